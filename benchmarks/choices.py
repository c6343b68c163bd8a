"""Rollout tokens/s and seconds of a whole GRPO step: with the measured ways of computing, and each forced.

Run it on a quiet machine: ``python benchmarks/choices.py --out choices.json``. The arms take turns.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import DEFAULT_MODEL, parser_of, settle
from benchmarks.process import ArmProcess
from benchmarks.ratios import paired_ratio
from benchmarks.workload import step_of

WAYS = ("measure", "own", "packed", "torch")


def options() -> argparse.ArgumentParser:
    """The options; those that all benchmarks share are described in ``machine.py``."""
    parser = parser_of(__doc__)
    parser.add_argument("--out", metavar="FILE", help="write the figures as JSON (the same as --json)")
    parser.add_argument("--repeats", type=int, default=5, help="steps of every arm, after one to warm up (5)")
    return parser


def main(words: list[str]) -> int:
    """Measure, print and write; return the exit code."""
    args = options().parse_args(words)
    spec = step_of(args, model_of(args)).as_dict()
    with ExitStack() as stack:
        arms = {
            way: stack.enter_context(
                ArmProcess(way, "ours_arm.py", spec, environment={"TRIMTAB_CHOICES": way})
            )
            for way in WAYS
        }
        for arm in arms.values():
            arm({"do": "step"})
        steps: dict[str, list[dict[str, Any]]] = {way: [] for way in arms}
        for number in range(2 if args.quick else args.repeats):
            turn = list(arms) if number % 2 == 0 else list(reversed(arms))
            for way in turn:
                steps[way].append(arms[way]({"do": "step"}))
        about = arms["measure"]({"do": "choices"})
    result = {**about, "model": spec["model"], "ways": {way: figures(done) for way, done in steps.items()}}
    for way in WAYS[1:]:
        pairs = [[step["seconds"] for step in steps[name]] for name in (way, WAYS[0])]
        result["ways"][way]["over_measured"] = paired_ratio(*pairs)
    show(result)
    for file in {args.out, args.json} - {None}:
        Path(file).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


def model_of(args: argparse.Namespace) -> str:
    """The model that the options name; the built-in one where none is named and none was fetched."""
    try:
        return settle(args)
    except SystemExit:
        if args.model:
            raise
        print(f"models/{DEFAULT_MODEL} is absent: the built-in model is timed, which says little of others")
        return "builtin:tiny-zh"


def figures(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of one arm, and what every step took."""
    seconds = [step["seconds"] for step in steps]
    speeds = [step["tokens"] / step["phases"]["time/rollout"] for step in steps]
    return {
        "step_seconds": median(seconds),
        "rollout_tokens_per_s": median(speeds),
        "each": {"step_seconds": seconds, "rollout_tokens_per_s": speeds},
    }


def show(result: dict[str, Any]) -> None:
    """Print the table, what was chosen, and where."""
    print(f"{result['processor']}, {result['threads']} threads, {result['versions']}, {result['model']}")
    for way, found in result["ways"].items():
        line = (
            f"{way:<8} {found['rollout_tokens_per_s']:8.0f} tokens/s  {found['step_seconds']:8.2f} s a step"
        )
        if (ratio := found.get("over_measured")) is not None:
            line += (
                f"  {ratio['median']:.3f} times the measured one's ({ratio['low']:.3f}-{ratio['high']:.3f})"
            )
        print(line)
    for question, way in result["chosen"].items():
        print(f"  {question}: {way}")
    for question, found in result["measured"].items():
        print(f"  {question}: {found['reason']} {found['microseconds']}")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
