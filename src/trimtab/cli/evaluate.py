"""Evaluate a policy on the hidden prompts of a recipe: reward, pass rate, win rate against the SFT model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from trimtab.cli.figures import figures_of, table
from trimtab.cli.parser import Parser, parse, split_overrides
from trimtab.errors import ConfigError


def add_arguments(parser: Parser) -> None:
    """Add the options of `trimtab eval`."""
    parser.add_argument("recipe", metavar="RECIPE", help="a TOML file with an [eval] table")
    parser.add_argument("--model", metavar="DIR", help="evaluate this model instead of the recipe's policy")
    parser.add_argument("--output", metavar="DIR", help="the same DIR that was given to `trimtab run`")


def split(parser: Parser, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the options, and collect every other ``--key value`` as an override of the recipe."""
    rest, overrides = split_overrides(parser, arguments)
    found = parse(parser, rest)
    found.overrides = overrides
    return found


def execute(args: argparse.Namespace) -> int:
    """Evaluate and print the figures; return the exit code."""
    from trimtab.config import load_recipe

    overrides = [*args.overrides, *([("paths.policy", args.model)] if args.model and not args.output else [])]
    recipe = load_recipe(args.recipe, overrides, args.output)
    if args.model and args.output:
        paths = recipe.paths.model_copy(update={"policy": args.model})
        recipe = recipe.model_copy(update={"paths": paths})
    if recipe.eval is None:
        raise ConfigError(f"{args.recipe} has no table [eval]: add one, with `data` or `rl.hidden_data`.")
    from trimtab.pipeline import run_pipeline

    summary = run_pipeline(recipe, stage="eval", resume=False)
    print(table(["figure", "value"], [[name, f"{value:.4g}"] for name, value in figures_of(summary).items()]))
    return 0
