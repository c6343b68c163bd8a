"""Print the completions of a step: prompt, completion, reward with its parts, advantage; steps from 1."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from trimtab.cli.parser import Parser
from trimtab.errors import ConfigError, DataError

# Characters that JSON may hold as they are and that a terminal acts on, or that hide text.
_HOSTILE = re.compile(
    "[\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)


def add_arguments(parser: Parser) -> None:
    """Add the options of `trimtab rollouts`."""
    parser.add_argument("run", metavar="DIR", help="the DIR of `--output DIR`, or a run directory")
    parser.add_argument("--step", type=int, metavar="N", help="which step, from 1 (the last one)")
    parser.add_argument("--stage", default="rl", metavar="NAME", help="which stage (rl)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--best", type=int, metavar="K", help="only the K with the highest reward")
    which.add_argument("--worst", type=int, metavar="K", help="only the K with the lowest reward")
    parser.add_argument("--json", action="store_true", help="print a JSON list instead")


def execute(args: argparse.Namespace) -> int:
    """Print; return the exit code.

    Raises:
        ConfigError: K or N is below 1.
        DataError: there are no rollouts there, or none of that step.
    """
    for name in ("best", "worst", "step"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            why = "steps count from 1" if name == "step" else "give 1 or more"
            raise ConfigError(f"--{name} {getattr(args, name)}: {why}.")
    from trimtab.runs import read_rollouts

    root, steps = find_rollouts(args.run, args.stage)
    step = steps[-1] if args.step is None else args.step
    if step not in steps:
        raise DataError(
            f"Step {step} of {args.stage} has no rollouts in {root}: it has those of steps {_shown(steps)}."
        )
    rows = read_rollouts(root, args.stage, step)
    chosen = choose(rows, args.best, args.worst)
    if args.json:
        print(_HOSTILE.sub(_escaped, json.dumps(chosen, ensure_ascii=False, indent=2)))
        return 0
    rewards = [row["reward"] for row in rows if row["reward"] is not None]
    mean = f"mean reward {fmean(rewards):.4g}" if rewards else "no reward"
    prompts = len({row["prompt_id"] for row in rows})
    print(f"step {step} of {args.stage}: {len(rows)} completions of {prompts} prompts, {mean}")
    for row in chosen:
        print(f"\n{describe(row)}")
    return 0


def find_rollouts(place: str, stage: str) -> tuple[Path, list[int]]:
    """The run directory in or at ``place``, and the steps of a stage whose rollouts it holds, in order.

    Raises:
        DataError: there are none.
    """
    from trimtab.runs import RunDirectory

    source = Path(place)
    others: set[str] = set()
    for root in (source, source / "run"):
        folder = RunDirectory(root).rollouts
        found = sorted(int(path.stem.partition("-")[2]) for path in (folder / stage).glob("step-*.parquet"))
        if found:
            return root, found
        others |= {path.parent.name for path in folder.glob("*/step-*.parquet")}
    hint = f"; there are those of {', '.join(sorted(others))}: --stage NAME" if others else ""
    raise DataError(
        f"There are no rollouts of {stage} in {place}{hint}: give the DIR of `trimtab run --output DIR`."
    )


def choose(rows: Sequence[dict[str, Any]], best: int | None, worst: int | None) -> list[dict[str, Any]]:
    """All rows in order, or the ``best`` or ``worst`` few of those with a reward, the most extreme first."""
    if best is None and worst is None:
        return list(rows)
    scored = [row for row in rows if row["reward"] is not None]
    return sorted(scored, key=lambda row: row["reward"], reverse=best is not None)[: best or worst]


def describe(row: dict[str, Any]) -> str:
    """One completion as text that is safe on a terminal; every line of the model's is marked as such."""
    from trimtab.runs import one_line

    if row["reward"] is None:
        earned = f"no reward ({one_line(row.get('error') or 'it does not apply', 200)})"
    else:
        parts = ", ".join(f"{one_line(name, 60)} {value:.4g}" for name, value in row["parts"].items())
        earned = f"reward {row['reward']:.4g}" + (f" ({parts})" if parts else "")
    advantage = "" if row.get("advantage") is None else f" · advantage {row['advantage']:+.4g}"
    ended = "cut at the limit" if row.get("finish_reason") == "length" else row.get("finish_reason") or "?"
    head = (
        f"{earned}{advantage} · {row['num_tokens']} tokens, {ended} · prompt {one_line(row['prompt_id'], 60)}"
    )
    return "\n".join([head, *_marked("prompt", row["prompt"]), *_marked("answer", row["completion"])])


def _marked(label: str, text: str | None) -> list[str]:
    from trimtab.runs import sanitise

    lines = sanitise(text or "").split("\n")
    return [f"  {label if number == 0 else '':<6} │ {line}" for number, line in enumerate(lines)]


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _shown(steps: Sequence[int]) -> str:
    if len(steps) > 8 or steps == list(range(steps[0], steps[-1] + 1)):
        return f"{steps[0]} to {steps[-1]}"
    return ", ".join(map(str, steps))
