"""The table of exact resume: four stages, killed at every step boundary and at named points inside a step.

``python -m tests.faults.resume_table [--json FILE] [--stage grpo] [--point after_rollout]``. Each case is a
``trimtab run`` of six steps with a checkpoint after every second, ended by SIGKILL, and a ``trimtab run
--resume``; model, end of training (weights, optimizer, controllers, guard, random states), metrics and
rollouts must be those of the run that was not killed, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.faults.forks import EVERY, KILLED, STAGES, STEPS, Outcome, run, write_recipe

CHECKPOINT = tuple(
    f"checkpoint_{name}"
    for name in ("started", "after_tensors", "after_state", "after_manifest", "before_rename", "after_rename")
)
MODEL = ("model_written", "before_model_rename", "after_model_rename")
SUPERVISED = ("step_started", "after_batch")
SAMPLED = (
    *("step_started", "after_rollout", "after_reward", "after_reference"),
    *("before_publish", "after_publish"),
)
UPDATE = ("mid_backward", "after_backward", "after_optimizer_step", "before_event", "after_event")


def points(kind: str) -> list[tuple[str, str]]:
    """Name and fault of every case of a stage. Inside a step: in the fourth, whose end has a checkpoint."""
    cases = [(f"boundary {step}", f"step_finished@{step}=kill") for step in range(1, STEPS + 1)]
    inner = (*(SAMPLED if kind in ("grpo", "ppo") else SUPERVISED), *UPDATE)
    per_step = {"grpo": 2, "ppo": 4}  # two mini-batches; PPO: two learners
    for name in inner:
        is_update = name in UPDATE[:3]
        count = 3 * per_step.get(kind, 1) + 1 if is_update else 4
        cases.append((name, f"{name}@{count}=kill"))
    cases += [(name, f"{name}@2=kill") for name in CHECKPOINT]
    return cases + [(name, f"{name}@1=kill") for name in MODEL]


def rows(kinds: Sequence[str], names: Sequence[str], root: Path) -> Iterator[dict[str, Any]]:
    """Run the cases of ``kinds`` (only those called ``names``, where given); one row each."""
    for kind in kinds:
        recipe = write_recipe(root / kind, kind)
        code = run(recipe, root / kind / "whole")
        if code:
            raise RuntimeError((root / kind / "whole.log").read_text()[-2000:])
        whole = Outcome.of(root / kind / "whole", kind)
        for name, fault in points(kind):
            if names and name not in names:
                continue
            output = root / kind / "case"
            shutil.rmtree(output, ignore_errors=True)
            yield {"stage": kind, "point": name, "fault": fault, **case(recipe, output, kind, fault, whole)}


def case(recipe: Path, output: Path, kind: str, fault: str, whole: Outcome) -> dict[str, Any]:
    """Kill one run, resume it, compare it with the ``whole`` one."""
    start = time.perf_counter()
    killed = run(recipe, output, fault=fault)
    steps = [path.name for path in sorted((output / "run").glob("checkpoints/*/step-*"))]
    resumed = run(recipe, output, ["--resume"])
    differences = Outcome.of(output, kind).differences(whole) if resumed == 0 else ["it did not resume"]
    leftovers = [str(p) for p in output.rglob("*.tmp")] + [str(p) for p in output.glob(".*")]
    return {
        "identical": killed == KILLED and resumed == 0 and not differences and not leftovers,
        "was_killed": killed == KILLED,
        "checkpoints_at_kill": steps,
        "differences": differences,
        "leftovers": leftovers,
        "seconds": round(time.perf_counter() - start, 2),
    }


def main() -> int:
    """Print the table; the exit code is 1 if any case is not identical."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stage", action="append", choices=STAGES, help="only this stage; may be repeated")
    parser.add_argument("--point", action="append", default=[], help="only this point; may be repeated")
    parser.add_argument("--json", metavar="FILE", help="also write the rows to this file")
    args = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(args.stage or STAGES, args.point, Path(folder)):
            found.append(row)
            word = "yes" if row["identical"] else f"NO {row['differences'][:4]} {row['leftovers'][:2]}"
            print(f"{row['stage']:<14}{row['point']:<28}{word}  ({row['seconds']} s)", flush=True)
    good = sum(row["identical"] for row in found)
    print(f"identical: {good} of {len(found)}; {STEPS} steps, a checkpoint every {EVERY}")
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=1) + "\n")
    return 0 if good == len(found) else 1


if __name__ == "__main__":
    sys.exit(main())
