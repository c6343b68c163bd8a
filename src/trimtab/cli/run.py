"""Run the stages of a recipe in order: SFT, reward model, RL, evaluation.

Any key of the recipe can be overridden: --rl.kl.coef 0.01 or --rl.kl.coef=0.01 (`trimtab run --keys`).
"""

from __future__ import annotations

import argparse
import shlex
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from trimtab.cli.parser import Parser, parse, split_overrides
from trimtab.errors import ConfigError, StoppedError

STAGES = ("sft", "reward_model", "rl", "eval")


def add_arguments(parser: Parser) -> None:
    """Add the options of `trimtab run`."""
    parser.add_argument(
        "recipe", nargs="?", metavar="RECIPE", help="a TOML file, e.g. recipes/sales/demo.toml"
    )
    parser.add_argument("--stage", choices=STAGES, help="run only this stage")
    parser.add_argument(
        "--output", metavar="DIR", help="write to DIR/sft, DIR/rm, DIR/policy, DIR/run and DIR/summary.json"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument(
        "--max-restarts",
        type=int,
        default=0,
        metavar="N",
        help="go on by itself after a crash, at most N times",
    )
    parser.add_argument("--keys", action="store_true", help="list every recipe key and leave")


def split(parser: Parser, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the options, and collect every other ``--key value`` as an override of the recipe."""
    rest, overrides = split_overrides(parser, arguments)
    asks_help = bool({"-h", "--help"} & set(rest))
    found = parse(parser, [word for word in rest if word not in ("-h", "--help")])
    if asks_help and found.recipe is None:
        parser.print_help()
    found.show_help = asks_help
    found.overrides = overrides
    found.words = list(arguments)
    return found


def execute(args: argparse.Namespace) -> int:
    """Run the recipe, or list the keys; return the exit code."""
    if args.keys or (args.show_help and args.recipe):
        print(describe_keys())
        return 0
    if args.show_help:
        return 0
    if args.recipe is None:
        raise ConfigError("No recipe is given: write `trimtab run RECIPE.toml`, or `trimtab run --keys`.")
    from trimtab.config import load_recipe

    recipe = load_recipe(args.recipe, args.overrides, args.output)
    if args.max_restarts < 0:
        raise ConfigError(f"--max-restarts {args.max_restarts} is negative; give 0 or more.")
    if args.max_restarts:
        from trimtab.cli.supervise import supervise, without_restarts

        return supervise(without_restarts(args.words), recipe.paths.run, args.max_restarts)
    from trimtab.pipeline import run_pipeline
    from trimtab.runs.stopping import StopRequest

    summary: dict[str, Any]
    try:
        with StopRequest() as stop:
            summary = run_pipeline(recipe, stage=args.stage, resume=args.resume, stop=stop)
    except StoppedError:
        print(f"go on with: {resume_command(args.words)}", file=sys.stderr)
        raise
    print(f"done: {', '.join(summary.get('stages', {})) or args.stage}; result in {recipe.paths.summary}")
    return 0


def resume_command(words: Sequence[str]) -> str:
    """The command line that goes on with the run that ``trimtab run`` was started with as ``words``."""
    return shlex.join(["trimtab", "run", *words, *([] if "--resume" in words else ["--resume"])])


def describe_keys() -> str:
    """Return every key of a recipe with its type, default and sentence, one table after another."""
    from trimtab.config import Recipe
    from trimtab.config.schema import keys

    lines = ["Keys of a recipe; on the command line: --KEY VALUE.", ""]
    table = ""
    for key in keys(Recipe):
        parent = key.name.rpartition(".")[0]
        if parent != table:
            table = parent
            lines += ["", f"[{table}]"]
        lines.append(f"  {key.name}  ({key.type}, {_default(key.default)})")
        lines.append(textwrap.fill(key.description, 100, initial_indent=" " * 6, subsequent_indent=" " * 6))
    return "\n".join(lines)


def _default(default: str) -> str:
    return default if default == "required" else f"default {default}"
