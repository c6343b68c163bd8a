"""Look for mistakes in a recipe before it costs time: each line passes, warns or fails, with a fix (R25)."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any

from trimtab.cli.parser import Parser, parse, split_overrides
from trimtab.errors import ConfigError, TrimtabError

if TYPE_CHECKING:
    from trimtab.cli.checks.line import CheckLine
    from trimtab.config import Recipe
    from trimtab.types import Prompt


def add_arguments(parser: Parser) -> None:
    """Add the options of `trimtab check`."""
    parser.add_argument("recipe", metavar="RECIPE", help="a TOML file")
    parser.add_argument("--output", metavar="DIR", help="the same DIR that `trimtab run` will get")


def split(parser: Parser, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the options, and collect every other ``--key value`` as an override of the recipe."""
    rest, overrides = split_overrides(parser, arguments)
    found = parse(parser, rest)
    found.overrides = overrides
    return found


def execute(args: argparse.Namespace) -> int:
    """Print the checklist.

    Raises:
        ConfigError: something fails, so that the exit code is 2.
    """
    from trimtab.config import load_recipe

    recipe = load_recipe(args.recipe, args.overrides, args.output)
    counts = {"pass": 0, "warn": 0, "fail": 0}
    for line in check_recipe(recipe):
        counts[line.status] += 1
        print(line, flush=True)
    print(f"{counts['pass']} passed, {counts['warn']} warned, {counts['fail']} failed")
    if counts["fail"]:
        raise ConfigError(
            f"{counts['fail']} of {sum(counts.values())} checks of {args.recipe} failed: mend those lines."
        )
    return 0


def check_recipe(recipe: Recipe) -> Iterator[CheckLine]:
    """Yield the lines of the checklist, then whatever else ``trimtab run`` would refuse before it starts."""
    from trimtab.cli.checks.line import CheckLine
    from trimtab.pipeline.preflight import find_problems

    told: set[str] = set()
    for line in _lines(recipe):
        if line.status == "fail":
            told |= {line.name, line.found}
        yield line
    found = 0
    for finding in find_problems(recipe, recipe.stages):
        text = " ".join(str(finding.error).split()).rstrip(".")
        if _SAME.get(finding.place, finding.place) not in told and text not in told:
            found += 1
            yield CheckLine("fail" if finding.is_fatal else "warn", finding.place, text)
    if not found and recipe.stages:
        yield CheckLine("pass", "every stage", "places, models and data of all stages are there")


# What a line of the checklist is called where the checks before a run call it otherwise.
_SAME = {"rl.hidden_data": "hidden data", "eval": "hidden data", "model.path": "model"}


def _num_parameters(recipe: Recipe) -> int | None:
    """The size of the model that RL starts from, by its weights' headers; None where it is not there."""
    from trimtab.cli.checks.models import first_model
    from trimtab.models.load import stored_parameters
    from trimtab.models.paths import resolve_model_path

    path = (recipe.rl.model if recipe.rl else None) or first_model(recipe)
    with suppress(TrimtabError):
        return stored_parameters(resolve_model_path(path))
    return None


def _lines(recipe: Recipe) -> Iterator[CheckLine]:
    """The lines of every check but those that a run does first."""
    from trimtab.cli.checks.agreement import check_rows
    from trimtab.cli.checks.datasets import check_pairs, check_preferences, check_solutions
    from trimtab.cli.checks.line import CheckLine, guarded
    from trimtab.cli.checks.settings import check_settings

    yield CheckLine("pass", "recipe", f"{recipe.name}: {' → '.join(recipe.stages) or 'no stage'}")
    yield from guarded("settings", lambda: check_settings(recipe, _num_parameters(recipe)))
    loaded: dict[str, Any] = {}
    yield from guarded("model", lambda: _model(recipe, loaded))
    tokenizer = loaded.get("tokenizer")
    if recipe.sft is not None:
        yield from guarded(
            "sft.data", lambda: chain(check_pairs(recipe, tokenizer), check_rows(recipe, "sft"))
        )
    if recipe.reward_model is not None:
        yield from guarded(
            "reward_model.data",
            lambda: chain(check_preferences(recipe), check_rows(recipe, "reward_model")),
        )
    if recipe.process_reward is not None:
        yield from guarded(
            "process_reward.data",
            lambda: chain(check_solutions(recipe), check_rows(recipe, "process_reward")),
        )
    if recipe.rl is not None:
        yield from _rl(recipe, tokenizer)


def _model(recipe: Recipe, loaded: dict[str, Any]) -> Iterator[CheckLine]:
    from trimtab.cli.checks.agreement import check_model
    from trimtab.cli.checks.duration import check_time
    from trimtab.cli.checks.line import CheckLine
    from trimtab.cli.checks.models import check_attention, check_tokenizer, first_model
    from trimtab.cli.checks.resources import check_kernels, check_resources
    from trimtab.models.load import load_causal_lm, load_tokenizer

    path = first_model(recipe)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded["tokenizer"] = tokenizer = load_tokenizer(path, recipe.model.chat_template)
        model = load_causal_lm(path, recipe.model)
    for warning in caught:
        if "trimtab" in str(warning.filename):
            yield CheckLine("warn", "model", str(warning.message))
    parameters = sum(p.numel() for p in model.parameters())
    dtype = str(model.dtype).removeprefix("torch.")
    yield CheckLine("pass", "model", f"{path}: {parameters / 1e6:.1f} million parameters in {dtype}")
    yield from check_model(model, tokenizer)
    yield from check_attention(model, is_sampled=recipe.rl is not None)
    yield from check_tokenizer(path, tokenizer)
    if model.device.type == "cpu":
        yield from check_kernels()
    fits = True
    for line in check_resources(recipe, parameters, model.dtype):
        fits = fits and line.status == "pass"
        yield line
    if fits:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are among the lines above
            lines = list(check_time(recipe, model, tokenizer))
        yield from lines


def _rl(recipe: Recipe, tokenizer: Any) -> Iterator[CheckLine]:
    from trimtab.cli.checks.agreement import check_rows
    from trimtab.cli.checks.datasets import check_overlap, check_prompts
    from trimtab.cli.checks.gold import check_gold_answers
    from trimtab.cli.checks.line import guarded
    from trimtab.cli.checks.models import check_reward_model, is_there
    from trimtab.cli.checks.rewards import check_judge, check_rewards
    from trimtab.pipeline.sources import held_out_prompts, train_prompts
    from trimtab.pipeline.training import check_batches

    rl = recipe.rl
    assert rl is not None
    sets: dict[str, list[Prompt]] = {}
    hidden = (recipe.eval.data if recipe.eval else None) or rl.hidden_data

    def prompts(name: str, source: str, split: Any) -> Iterator[CheckLine]:
        sets[split] = train_prompts(recipe) if split == "train" else held_out_prompts(recipe, "eval.data")
        yield from check_prompts(name, source, sets[split], rl.max_prompt_tokens, tokenizer)
        if split == "train":
            check_batches(rl, len(sets[split]))

    yield from guarded("rl.data", lambda: prompts("rl.data", rl.data, "train"))
    if hidden is not None:
        yield from guarded("hidden data", lambda: prompts("hidden data", hidden, "hidden"))
    if "train" in sets:
        yield from guarded("rl.data", lambda: check_rows(recipe, "rl", sets["train"]))
    if recipe.eval is not None and "hidden" in sets:
        yield from guarded("hidden data", lambda: check_rows(recipe, "eval"))
    yield from guarded("overlap", lambda: check_overlap(recipe))
    given = rl.reward_model or (recipe.paths.reward_model if recipe.reward_model else None)
    ready = given if given and (rl.reward_model or is_there(given)) else None
    template = recipe.model.chat_template
    if ready is not None:
        yield from guarded("reward model", lambda: check_reward_model(ready, tokenizer, template))
    if recipe.eval is not None and recipe.eval.judge is not None:
        yield from guarded("eval.judge", lambda: check_judge(recipe, ready))
    if "train" in sets:
        yield from guarded("rl.rewards", lambda: check_rewards(recipe, sets["train"], ready))
    names = {"train": f"rl.data ({rl.data})", "hidden": f"hidden data ({hidden})"}
    named = {names[split]: rows for split, rows in sets.items()}
    yield from guarded("gold answers", lambda: check_gold_answers(recipe, named))
