"""What watching costs: ``python -m tests.faults.cost [--steps 12] [--json FILE]``.

GRPO on the built-in model as in ``recipes/sales/demo.toml`` (without its trained reward model). Timed from
the inside: records, terminal, detectors and guard (``Stage.log`` and what stands beside it), the search for
numbers that are not finite before and after each optimizer step, and the watchdog. All in CPU seconds of this
process, so that a busy machine does not change the shares. Exit code 1 above 1 %.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from trimtab.config import load_recipe
from trimtab.monitor import Guard
from trimtab.monitor.watchdog import Watchdog
from trimtab.pipeline import run_pipeline
from trimtab.runs import metrics_table
from trimtab.trainers import update
from trimtab.trainers.stage import Stage

LIMIT = 0.01
PARTS: tuple[tuple[str, Any, str], ...] = (
    ("records, terminal, detectors", Stage, "log"),
    ("alarms of rewards", Stage, "tell_bad_rewards"),
    ("guard before updates", Guard, "before_update"),
    ("finite before the update", update, "find_fault_before"),
    ("finite after the update", update, "find_fault_after"),
)


def measure(steps: int, root: Path) -> dict[str, Any]:
    """Run ``steps`` steps; seconds and shares of every part, medians over the steps but the first two."""
    overrides = {"rl.steps": str(steps), "rl.model": "builtin:tiny-zh", "threads": "1"}
    recipe = load_recipe("recipes/sales/demo.toml", list(overrides.items()), str(root))
    assert recipe.rl is not None
    rl = recipe.rl.model_copy(update={"rewards": [r for r in recipe.rl.rewards if r.name != "reward_model"]})
    recipe = recipe.model_copy(update={"rl": rl, "sft": None, "reward_model": None, "eval": None})
    spent: dict[str, list[float]] = defaultdict(list)  # seconds of each step
    now: dict[str, float] = defaultdict(float)
    undo = [_timed(owner, name, now, label) for label, owner, name in PARTS]
    real, last = Stage.log, [time.process_time()]

    def log(self: Stage, step: int, metrics: Mapping[str, float]) -> None:
        real(self, step, metrics)
        spent["step"].append(time.process_time() - last[0])
        spent["wall"].append(metrics["time/step"])
        last[0] = time.process_time()
        for label, *_ in PARTS:
            spent[label].append(now.pop(label, 0.0))

    Stage.log = log  # type: ignore[method-assign]
    try:
        with open(os.devnull, "w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
            run_pipeline(recipe, "rl")
    finally:
        Stage.log = real  # type: ignore[method-assign]
        for back in undo:
            back()
    step = statistics.median(spent["step"][2:])
    parts = {label: statistics.median(spent[label][2:]) for label, *_ in PARTS}
    parts["watchdog, 5 phases"] = 5 * watchdog_seconds(root)
    total = sum(parts.values())
    lengths = metrics_table(recipe.paths.run, "rl")["completions/mean_length"]
    return {
        "step_s": step,
        "step_wall_s": statistics.median(spent["wall"][2:]),
        "parts_s": parts,
        "shares": {label: seconds / step for label, seconds in parts.items()},
        "share": total / step,
        "mean_length": statistics.fmean(x for x in lengths if x is not None),
    }


def watchdog_seconds(root: Path) -> float:
    """Seconds that announcing one phase takes, with the thread running."""
    count = 20_000
    with Watchdog(1800.0, stacks=root / "stacks.txt") as dog:
        start = time.process_time()
        for _ in range(count):
            with dog.waiting("reward"):
                pass
        return (time.process_time() - start) / count


def _timed(owner: Any, name: str, now: dict[str, float], label: str) -> Callable[[], None]:
    real = getattr(owner, name)

    def wrapper(*args: Any, **kw: Any) -> Any:
        start = time.process_time()
        try:
            return real(*args, **kw)
        finally:
            now[label] += time.process_time() - start

    setattr(owner, name, wrapper)
    return lambda: setattr(owner, name, real)


def main() -> int:
    """Print the shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(arguments.steps, Path(folder))
    for label, seconds in found["parts_s"].items():
        print(f"{label:<30} {1e3 * seconds:8.3f} ms  {found['shares'][label]:7.3%}")
    print(
        f"step {found['step_s']:.3f} s of CPU ({found['step_wall_s']:.3f} s of the wall), "
        f"{found['mean_length']:.0f} tokens per answer"
    )
    print(f"watching: {found['share']:.3%} of a step")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return int(found["share"] > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
