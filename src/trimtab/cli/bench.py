"""Measure how fast a model samples and learns here, and how long a recipe will take.

Give a model (a directory, a name, builtin:tiny-zh) or a recipe; keys of a recipe can be overridden as in
`trimtab run`. The model is loaded, sampled and trained for a few steps; nothing is saved.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trimtab.cli.parser import Parser, parse, split_overrides
from trimtab.errors import ConfigError

if TYPE_CHECKING:
    from trimtab.config import Recipe
    from trimtab.models.roofline import Workload
    from trimtab.pipeline.estimate import StageTime
    from trimtab.pipeline.speed import Speeds

MOST_NEW_TOKENS = 128  # longer completions are timed at this length: speed hardly changes after it
GIB = 2**30


def add_arguments(parser: Parser) -> None:
    """Add the options of `trimtab bench`."""
    parser.add_argument(
        "target", nargs="?", default="builtin:tiny-zh", metavar="MODEL|RECIPE", help="(builtin:tiny-zh)"
    )
    parser.add_argument("--prompts", type=int, metavar="N", help="prompts (those of a step of the recipe)")
    parser.add_argument("--generations", type=int, metavar="N", help="completions of each (the recipe's)")
    parser.add_argument(
        "--prompt-tokens", type=int, metavar="N", help="tokens of a prompt (the data's, or 32)"
    )
    parser.add_argument("--new-tokens", type=int, metavar="N", help="tokens of a completion (at most 128)")
    parser.add_argument("--json", metavar="FILE", help="write the figures")


def split(parser: Parser, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the options, and collect every other ``--key value`` as an override of the recipe."""
    rest, overrides = split_overrides(parser, arguments)
    found = parse(parser, rest)
    found.overrides = overrides
    for name in ("prompts", "generations", "prompt_tokens", "new_tokens"):
        if (value := getattr(found, name)) is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} {value} must be at least 1")
    return found


def execute(args: argparse.Namespace) -> int:
    """Measure and print; return the exit code.

    Raises:
        ConfigError: the recipe cannot be read.
        ModelError: the model cannot be loaded.
    """
    import torch

    from trimtab.cli.checks.models import first_model
    from trimtab.models.load import load_causal_lm, load_tokenizer
    from trimtab.pipeline.estimate import estimate_stages
    from trimtab.pipeline.speed import measure_speeds

    is_recipe = args.target.endswith(".toml")
    recipe = recipe_of(args, is_recipe)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    path = first_model(recipe)
    tokenizer = load_tokenizer(path, recipe.model.chat_template)
    work = workload_of(args, recipe, tokenizer if is_recipe else None)
    model = load_causal_lm(path, recipe.model)
    speeds = measure_speeds(recipe, model, tokenizer, work)
    times = estimate_stages(recipe, speeds, tokenizer) if is_recipe else []
    about = f"{path}, {sum(p.numel() for p in model.parameters()) / 1e6:.1f} million parameters in "
    about += f"{str(model.dtype).removeprefix('torch.')} on {model.device}"
    show(about, work, speeds, times)
    if args.json:
        write(args.json, about, work, speeds, times)
    return 0


def recipe_of(args: argparse.Namespace, is_recipe: bool) -> Recipe:
    """The recipe itself, or one that holds nothing but the model and the overrides."""
    from trimtab.config import build_recipe, load_recipe

    if is_recipe:
        return load_recipe(args.target, args.overrides, None)
    if args.overrides:
        key = args.overrides[0][0]
        raise ConfigError(
            f"--{key} overrides a recipe, and {args.target} is a model: give a .toml file first."
        )
    return build_recipe({"model": {"path": args.target}})


def workload_of(args: argparse.Namespace, recipe: Recipe, tokenizer: Any) -> Workload:
    """What is sampled and trained: a step of the recipe, or 8 × 8 completions of 128 tokens."""
    from trimtab.models.roofline import Workload
    from trimtab.pipeline.estimate import SAMPLED_ROWS, prompt_length
    from trimtab.pipeline.sources import prompts_for

    rl, prompt_tokens = recipe.rl, args.prompt_tokens or 32
    if rl is not None and args.prompt_tokens is None and tokenizer is not None:
        prompts = prompts_for(rl.data, "train", recipe.seed, SAMPLED_ROWS, rl.columns)[:SAMPLED_ROWS]
        prompt_tokens = round(prompt_length(prompts, tokenizer))
    longest = MOST_NEW_TOKENS if rl is None else min(rl.max_new_tokens, MOST_NEW_TOKENS)
    return Workload(
        num_prompts=args.prompts or (8 if rl is None else rl.num_prompts),
        num_generations=args.generations or (8 if rl is None else rl.num_generations),
        prompt_tokens=prompt_tokens,
        new_tokens=args.new_tokens or longest,
    )


def show(about: str, work: Workload, speeds: Speeds, times: Sequence[StageTime]) -> None:
    """Print the figures, and the time of the stages, as tables."""
    from rich.console import Console
    from rich.table import Table

    from trimtab.cli.checks.duration import duration

    console = Console()
    console.print(about, highlight=False)
    table = Table("what", "tokens/s", "of the roofline")
    for name, speed, fraction in (
        ("sampling", speeds.rollout, speeds.rollout_fraction),
        ("training", speeds.train, speeds.train_fraction),
        ("log-probabilities", speeds.score, None),
    ):
        table.add_row(name, f"{speed:,.0f}", "" if fraction is None else f"{fraction:.0%}")
    console.print(table)
    shape = f"{work.num_prompts} prompts of {work.prompt_tokens:.0f} tokens × {work.num_generations}"
    console.print(
        f"measured on {shape} completions of {work.new_tokens:.0f} tokens; an optimizer step took "
        f"{duration(speeds.optimizer_seconds)}; peak memory {speeds.peak_bytes / GIB:.2f} GiB",
        highlight=False,
    )
    if not times:
        return
    stages = Table("stage", "steps", "a step", "in all", title="estimated time, completions at their longest")
    for time in times:
        steps = (str(time.steps), duration(time.seconds_per_step)) if time.steps else ("", "")
        stages.add_row(time.stage, *steps, duration(time.seconds))
    stages.add_row("all", "", "", duration(sum(time.seconds for time in times)))
    console.print(stages)


def write(file: str, about: str, work: Workload, speeds: Speeds, times: Sequence[StageTime]) -> None:
    """Write the figures as JSON."""
    from dataclasses import asdict
    from pathlib import Path

    from trimtab import __version__
    from trimtab.runs.files import write_json

    data = {"model": about, "trimtab": __version__, "workload": asdict(work), "speeds": asdict(speeds)}
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    write_json(Path(file), {**data, "stages": [asdict(time) for time in times]})
