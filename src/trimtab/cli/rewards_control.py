"""`trimtab rewards control`: how much of a gain is the reward's, and how much comes with any training?"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from trimtab.cli.figures import table
from trimtab.errors import ConfigError

ARMS = ("random", "length", "shuffled")


def add_control(actions: Any) -> None:
    """Add `rewards control` to the subcommands of `trimtab rewards`."""
    parser = actions.add_parser(
        "control",
        help="train with a reward that says nothing: what does the real one add?",
        description=(
            "Run the RL stage of a recipe twice, with its own reward and with another in its place: random "
            "(a coin per completion), length (longer is better) or shuffled (the real rewards, dealt out at "
            "random). The real reward is measured on the hidden prompts before and after. Nothing that the "
            "recipe makes is touched."
        ),
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a TOML file whose earlier stages have been run")
    parser.add_argument("--arm", choices=ARMS, default="shuffled", help="what replaces the reward (shuffled)")
    parser.add_argument("--steps", type=int, metavar="N", help="steps of each arm (rl.steps)")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of both arms (the recipe's)")
    parser.add_argument(
        "--output", default="output/control", metavar="DIR", help="DIR/real and DIR/ARM (output/control)"
    )
    parser.add_argument(
        "--existing",
        metavar="DIR",
        help="a finished `trimtab run --output DIR`: its policy is the real arm and is not trained again",
    )
    parser.add_argument("--json", metavar="FILE", help="also write the figures here")


def execute_control(args: argparse.Namespace) -> int:
    """Run the arms and print the table; return the exit code."""
    if args.steps is not None and (args.existing or args.steps < 1):
        why = (
            "must be at least 1" if args.steps < 1 else "cannot be chosen with --existing, whose run is over"
        )
        raise ConfigError(f"--steps {args.steps} {why}; leave it out to take rl.steps.")
    from trimtab.config import load_recipe
    from trimtab.pipeline.control import run_control

    overrides = [("seed", str(args.seed))] if args.seed is not None else []
    recipe = load_recipe(args.recipe, overrides, args.existing)
    report = run_control(
        recipe, args.arm, Path(args.output), steps=args.steps, is_done=args.existing is not None
    )
    arms = (report.real, report.control)
    rows = [
        [
            a.arm,
            f"{a.before:.3f}",
            f"{a.after:.3f}",
            f"{a.gain:+.3f}",
            f"± {2 * a.error:.3f}",
            str(a.num_prompts),
        ]
        for a in arms
    ]
    print(table(["arm", "hidden before", "after", "gain", "2 std. errors", "prompts"], rows))
    print(report.verdict)
    if args.json is not None:
        keys = ("arm", "before", "after", "gain", "error", "num_prompts")
        found = {"arms": [{key: getattr(a, key) for key in keys} for a in arms], "verdict": report.verdict}
        text = json.dumps(found | {"contribution": report.contribution}, ensure_ascii=False, indent=2)
        try:
            Path(args.json).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--json {args.json} cannot be written: {error.strerror or error}.") from None
    return 0
