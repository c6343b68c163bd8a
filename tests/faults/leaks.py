"""Memory and descriptors over 2,000 steps: ``python -m tests.faults.leaks [--steps 2000] [--json FILE]``.

The whole pipeline runs on the smallest model, with records, checkpoints, evaluations, detectors, guard and
watchdog, in this process; the resident memory, the open descriptors, the threads and the tensors that are
alive are counted every 200 steps. Exit code 1 when they grow between the first quarter and the end.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from tests.faults.tiny_runs import TinyRun

from trimtab.cli.main import main as run_command
from trimtab.trainers.stage import Stage

MAX_GROWTH_MIB = 8.0  # the records of each step grow a little: series of the detectors, names of files


def sample(step: int) -> dict[str, float]:
    """What this process holds."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "step": step,
        "rss_mib": round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 2),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "tensors": sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects()),
        "objects": len(gc.get_objects()),
    }


def measure(
    steps: int, every: int, root: Path, change: Mapping[str, Any] | None = None
) -> list[dict[str, float]]:
    """Run ``steps`` steps and sample every ``every`` of them."""
    small = {
        "steps": steps,
        "checkpoint_every": 50,
        "eval_every": 100,
        "num_prompts": 1,
        "num_generations": 2,
    }
    run = TinyRun(root, 1, {**small, "max_new_tokens": 4, "num_minibatches": 1, **(change or {})})
    found: list[dict[str, float]] = []
    real = Stage.log

    def log(self: Stage, step: int, metrics: Mapping[str, float]) -> None:
        real(self, step, metrics)
        if (step + 1) % every == 0:
            found.append(sample(step + 1))
            print(json.dumps(found[-1]), file=sys.__stderr__, flush=True)

    Stage.log = log  # type: ignore[method-assign]
    try:
        with open(os.devnull, "w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
            assert run_command(["run", str(run.write()), "--output", str(run.output)]) == 0
    finally:
        Stage.log = real  # type: ignore[method-assign]
    return found


def growth(samples: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The last sample less the one after the first quarter."""
    first, last = samples[max(0, len(samples) // 4 - 1)], samples[-1]
    return {key: round(last[key] - first[key], 2) for key in last if key != "step"}


def main() -> int:
    """Print the samples and what grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        samples = measure(arguments.steps, max(1, arguments.steps // 10), Path(folder) / "run")
    grown = growth(samples)
    print(json.dumps({"growth": grown}))
    if arguments.json:
        arguments.json.write_text(json.dumps({"samples": samples, "growth": grown}, indent=1) + "\n")
    return int(grown["rss_mib"] > MAX_GROWTH_MIB or grown["descriptors"] > 0 or grown["threads"] > 0)


if __name__ == "__main__":
    sys.exit(main())
