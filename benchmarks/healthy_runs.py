"""How often do the detectors speak in real runs in which nothing is wrong?

Sound runs of the tests' tiny model: GRPO and PPO in turn, three rewards that a policy can earn within a leash
(adaptive KL, 0.1 nats per token), the default thresholds of the monitor but for truncation (answers are paid
for their length up to the limit, so a sound policy is always cut). The settings were chosen on seeds 0 to 5,
before the others were run. Every alarm counts as false, each repetition too; a run that does not learn
(reward not above its start) counts all the same. With ``--doctor PYTHON`` the same logs go through rl-doctor.

    python benchmarks/healthy_runs.py --runs 28 --json out.json --doctor /path/to/venv/bin/python
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.detectors import Doctor, Findings, quiet_row, real_rows
from scipy.stats import chi2

from trimtab.config import MonitorConfig
from trimtab.monitor import Guard
from trimtab.runs import read_events
from trimtab.runs.spellings import trl_metrics
from trimtab.types import Sample

EDGE = 20  # steps that are averaged at either end of a run
LIMIT = 12  # tokens of an answer
LEASH = {"coef": 1.0, "controller": "adaptive", "target_per_token": 0.1, "horizon": 32}
SHARED = {"max_new_tokens": LIMIT, "kl": LEASH, "warmup_steps": 5}
SETTINGS: dict[str, dict[str, Any]] = {
    "grpo": {**SHARED, "num_prompts": 4, "num_generations": 8, "learning_rate": 5e-4},
    "ppo": {
        **SHARED,
        "num_prompts": 8,
        "num_generations": 4,
        "num_minibatches": 2,
        "num_epochs_per_batch": 2,
        "learning_rate": 2e-4,
        "ppo": {"critic_learning_rate": 1e-3},
    },
}


def even(sample: Sample) -> float:
    """Even token ids, as a share of the limit."""
    return _share(sample, lambda token: token % 2 == 0)


def low(sample: Sample) -> float:
    """Token ids under 64, as a share of the limit."""
    return _share(sample, lambda token: token < 64)


def bits(sample: Sample) -> float:
    """Token ids whose last two bits differ, as a share of the limit."""
    return _share(sample, lambda token: (token ^ (token >> 1)) & 1 == 1)


def _share(sample: Sample, is_paid: Any) -> float:
    return sum(map(is_paid, sample.token_ids)) / LIMIT


REWARDS = (even, low, bits)


def train_one(seed: int, steps: int, root: str) -> str:
    """Train run ``seed`` in a directory under ``root`` and return it."""
    from tests.unit.trainers.systems import rl_config, tiny_stage, tiny_system, train

    algorithm = ("grpo", "ppo")[seed % 2]
    rl = rl_config(algorithm, **SETTINGS[algorithm], steps=steps)
    stage = tiny_stage(Path(root) / f"{algorithm}-{seed}")
    stage.guard = Guard(config=MonitorConfig(thresholds={"truncated": 1.0}))  # type: ignore[arg-type]
    with contextlib.redirect_stdout(io.StringIO()):
        train(tiny_system(rl, REWARDS[seed % len(REWARDS)], seed=seed), rl, stage, seed=seed)
    return str(stage.run.directory.root)


def judge(directory: str, doctor: Doctor | None) -> dict[str, Any]:
    """The alarms that the run itself raised, how it went, and what rl-doctor says of its log."""
    rows = real_rows(directory)
    alarms = [(event.step, event.data["kind"]) for event in read_events(directory, kind="alarm")]
    ends = {
        name: [sum(row[name] for row in part) / EDGE for part in (rows[:EDGE], rows[-EDGE:])]
        for name in ("reward/mean", "kl/ref", "policy/entropy")
    }
    found: dict[str, Any] = {"run": Path(directory).name, "steps": len(rows), "alarms": alarms, **ends}
    if doctor is not None:
        found["rldoctor"] = doctor.diagnose([trl_metrics(row) for row in rows])
    return found


def upper_bound(count: int, steps: int) -> float:
    """Alarms per 10,000 steps that are not exceeded with 95 % confidence (Poisson, exact)."""
    return float(chi2.ppf(0.95, 2 * (count + 1))) / 2 / steps * 10_000


def main() -> int:
    """Train, count, show; fail where the rate is above the target."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=28)
    parser.add_argument("--steps", type=int, default=400, help="of each run")
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--doctor", help="a Python that has rldoctor")
    parser.add_argument("--check-every", type=int, default=25, help="steps between rl-doctor's checks")
    parser.add_argument("--quick", action="store_true", help="two runs of 60 steps")
    parser.add_argument("--json", help="where the figures are written")
    args = parser.parse_args()
    count, steps = (2, 60) if args.quick else (args.runs, args.steps)
    doctor = Doctor(args.doctor, args.check_every) if args.doctor else None
    runs: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory() as root,
        ProcessPoolExecutor(args.processes, multiprocessing.get_context("spawn")) as pool,
    ):
        seeds = range(args.first_seed, args.first_seed + count)
        for directory in pool.map(train_one, seeds, [steps] * count, [root] * count):
            runs.append(judge(directory, doctor))
            print(json.dumps(runs[-1]), flush=True)
    ours: list[tuple[int, Findings]] = [(run["steps"], run["alarms"]) for run in runs]
    figures: dict[str, Any] = {"trimtab": quiet_row(ours), "runs": runs}
    row = figures["trimtab"]
    row["upper_95"] = upper_bound(row["alarms"], row["steps"])
    row["runs_that_learnt"] = sum(run["reward/mean"][1] > run["reward/mean"][0] for run in runs)
    if doctor is not None:
        figures["rldoctor"] = quiet_row([(run["steps"], run["rldoctor"]) for run in runs])
        doctor.close()
    for arm in ("trimtab", "rldoctor"):
        print(arm, figures.get(arm))
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return int(row["per_10000_steps"] > 1)


if __name__ == "__main__":
    raise SystemExit(main())
