"""Do the detectors find what goes wrong, how soon, and how often do they speak when nothing does?

Faults are put into simulated runs (``benchmarks/detector_runs.py``): each kind into as many runs as there are
seeds. A fault is found when one of its alarms is raised at its onset or later, within 260 steps of a run;
the lag counts steps from the onset. Every alarm in a healthy run, each repetition too, is a false alarm.
Thresholds were set on seeds 0 to 19; the default reports on 100 to 119. ``--real`` replays run directories,
``--tiny`` trains the tiny model of the tests. With ``--doctor PYTHON`` the same logs, in TRL's spelling, go
through rl-doctor (PyPI: rldoctor), installed for that Python.

    python benchmarks/detectors.py --json out.json --doctor /path/to/venv/bin/python
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from benchmarks.detector_runs import FAULTS, KINDS, STEPS, Run, faulty, healthy

from trimtab.monitor import Guard, Measure
from trimtab.runs import read_events
from trimtab.runs.spellings import trl_metrics

EVAL_EVERY, EVAL_PROMPTS = 20, 32
Row = dict[str, float]
Findings = list[tuple[int, str]]


def rows_of(run: Run) -> list[Row]:
    """One dictionary of metrics per step."""
    names = [name for name in run if not name.startswith("_")]
    columns = [run[name].tolist() for name in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def evaluation_of(run: Run, step: int, rng: np.random.Generator) -> tuple[dict[str, Measure], float]:
    """What an evaluation on hidden prompts measures at a step, and the mean of its judge."""
    passed = (rng.random(EVAL_PROMPTS) < run["_hidden"][step]).astype(float)
    paid = np.clip(run["reward/mean"][step] + 0.2 * rng.standard_normal(EVAL_PROMPTS), 0, 1)
    judged = np.clip(run["_judge"][step] + 0.15 * rng.standard_normal(EVAL_PROMPTS), 0, 1)
    named = (("eval/pass_rate", passed), ("eval/reward", paid), ("eval/judge", judged))
    return {name: Measure.of(values.tolist()) for name, values in named}, float(judged.mean())


def replay(run: Run, seed: int) -> tuple[Findings, list[Row], float]:
    """Alarms of the guard, the rows in rl-doctor's spelling, and the CPU seconds spent in ``after_log``."""
    guard, rng, found, records, spent = Guard(), np.random.default_rng(seed + 1_000_000), [], [], 0.0
    for step, row in enumerate(rows_of(run)):
        start = time.process_time()
        alarms = guard.after_log(row)
        spent += time.process_time() - start
        record = trl_metrics(row)
        guard.gaps.observe((rng.binomial(8, run["_train"][step], 4) / 8).tolist())
        if step % EVAL_EVERY == 0:
            measures, record["eval_score"] = evaluation_of(run, step, rng)
            alarms = alarms + guard.after_evaluation(measures)[1]
        found += [(step, alarm.kind) for alarm in alarms]
        records.append(record)
    return found, records, spent


class Doctor:
    """rl-doctor in a process of its own; without a Python that has it, nothing is found."""

    def __init__(self, python: str, check_every: int) -> None:
        self.check_every = check_every
        script = str(Path(__file__).with_name("doctor_arm.py"))
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([python, script], stdin=pipe, stdout=pipe, text=True)

    def diagnose(self, records: Sequence[Row]) -> Findings:
        """The findings of severity WARNING and above, each when it was first announced or became worse."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"records": records, "check_every": self.check_every}) + "\n")
        self.process.stdin.flush()
        return [(step, detector) for step, detector, _ in json.loads(self.process.stdout.readline())]

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def first_lag(found: Findings, kinds: Sequence[str], onset: int) -> int | None:
    """Steps from the onset to the first finding of one of these kinds; None when there is none."""
    steps = [step - onset for step, kind in found if kind in kinds and step >= onset]
    return min(steps) if steps else None


def row_of(lags: Sequence[int | None]) -> dict[str, Any]:
    """Recall and lag over the runs of a fault."""
    hits = [lag for lag in lags if lag is not None]
    figures: dict[str, Any] = {"runs": len(lags), "recall": len(hits) / len(lags)}
    return figures | ({"lag_median": median(hits), "lag_max": max(hits)} if hits else {})


def faults_table(seeds: Sequence[int], doctor: Doctor | None) -> tuple[dict[str, Any], Findings]:
    """Recall and lag of each fault, ours and rl-doctor's; and our alarms before the onset."""
    table: dict[str, Any] = {}
    early: Findings = []
    for name, fault in FAULTS.items():
        ours, theirs = [], []
        for seed in seeds:
            run, onset = faulty(name, seed)
            found, records, _ = replay(run, seed)
            ours.append(first_lag(found, fault.alarms, onset))
            early += [(step, kind) for step, kind in found if step < onset]
            if doctor is not None and fault.doctor:
                theirs.append(first_lag(doctor.diagnose(records), fault.doctor, onset))
        table[name] = {"trimtab": row_of(ours)} | ({"rldoctor": row_of(theirs)} if theirs else {})
    return table, early


def quiet_row(runs: Sequence[tuple[int, Findings]]) -> dict[str, Any]:
    """False alarms over healthy runs, given as (steps, findings)."""
    steps = sum(size for size, _ in runs)
    count = sum(len(found) for _, found in runs)
    return {
        "runs": len(runs),
        "steps": steps,
        "alarms": count,
        "per_10000_steps": 10_000 * count / steps if steps else 0.0,
        "runs_with_alarm": sum(bool(found) for _, found in runs),
        "by_kind": dict(Counter(kind for _, found in runs for _, kind in found)),
    }


def healthy_table(seeds: Sequence[int], doctor: Doctor | None) -> dict[str, Any]:
    """False alarms on simulated healthy runs, and what a step costs."""
    ours, theirs, spent, steps = [], [], 0.0, 0
    for seed in seeds:
        run = healthy(seed)
        found, records, seconds = replay(run, seed)
        ours.append((STEPS, found))
        spent, steps = spent + seconds, steps + STEPS
        if doctor is not None:
            theirs.append((STEPS, doctor.diagnose(records)))
        for step, kind in found:
            print(f"  false alarm: seed {seed} ({KINDS[seed % len(KINDS)]}), step {step}: {kind}")
    figures = {"trimtab": quiet_row(ours), "us_per_step": 1e6 * spent / steps}
    return figures | ({"rldoctor": quiet_row(theirs)} if theirs else {})


def real_rows(directory: str) -> list[Row]:
    """The metrics of stage rl of a run directory, one dictionary per step."""
    steps: dict[int, Row] = {}
    for event in read_events(directory, kind="metrics"):
        if event.stage == "rl":
            steps.setdefault(event.step, {}).update(event.data)
    return [steps[step] for step in sorted(steps)]


def real_table(directories: Sequence[str], doctor: Doctor | None) -> dict[str, Any]:
    """Alarms on recorded runs; whether one is false is for the reader to say."""
    ours, theirs, listed = [], [], {}
    for directory in directories:
        rows = real_rows(directory)
        guard = Guard()
        found = [(step, alarm.kind) for step, row in enumerate(rows) for alarm in guard.after_log(row)]
        ours.append((len(rows), found))
        listed[directory] = {"steps": len(rows), "alarms": found}
        if doctor is not None:
            records = [trl_metrics(row) for row in rows]
            findings = doctor.diagnose(records)
            theirs.append((len(rows), findings))
            listed[directory]["rldoctor"] = findings
        print(f"  {directory}: {len(rows)} steps, {found}")
    figures = {"trimtab": quiet_row(ours), "runs": listed}
    return figures | ({"rldoctor": quiet_row(theirs)} if theirs else {})


def tiny_runs(root: Path, seeds: Sequence[int]) -> Iterator[str]:
    """Train the tiny model of the tests with GRPO and PPO, as its tests do, for each seed."""
    from tests.learning.runs import run

    for seed in seeds:
        for algorithm in ("grpo", "ppo"):
            directory = root / f"{algorithm}-{seed}"
            with contextlib.redirect_stdout(io.StringIO()):
                run(directory, algorithm, seed=seed)
            yield str(directory)


def show(figures: dict[str, Any]) -> None:
    """Print the tables."""
    print(
        f"\n{'fault':20} {'recall':>7} {'lag':>5} {'max':>5}   rl-doctor {'recall':>7} {'lag':>6} {'max':>5}"
    )
    for name, row in figures["faults"].items():
        cells = []
        for arm in ("trimtab", "rldoctor"):
            r = row.get(arm)
            lags = (
                f"{r['lag_median']:5.0f} {r['lag_max']:5d}"
                if r and "lag_median" in r
                else f"{'–':>5} {'–':>5}"
            )
            cells.append(f"{r['recall']:7.0%} {lags}" if r else f"{'–':>7} {'–':>5} {'–':>5}")
        print(f"{name:20} {cells[0]}             {cells[1]}")
    for part in ("healthy", "real"):
        for arm in ("trimtab", "rldoctor"):
            row = figures.get(part, {}).get(arm)
            if row:
                print(
                    f"{part} {arm}: {row['alarms']} alarms in {row['steps']} steps of {row['runs']} runs, "
                    f"{row['per_10000_steps']:.2f} per 10,000; {row['runs_with_alarm']} runs {row['by_kind']}"
                )
    print(f"cost {figures['healthy']['us_per_step']:.1f} µs per step")


def main() -> int:
    """Measure, show, and fail where a target is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--first-seed", type=int, default=100, help="0 is the set that thresholds were set on"
    )
    parser.add_argument("--seeds", type=int, default=20, help="runs of each fault")
    parser.add_argument("--healthy", type=int, default=30, help=f"healthy runs, {STEPS} steps each")
    parser.add_argument("--real", nargs="*", default=[], help="directories of recorded runs")
    parser.add_argument("--tiny", type=int, default=0, help="seeds of the tiny runs that are trained")
    parser.add_argument("--doctor", help="a Python that has rldoctor")
    parser.add_argument("--check-every", type=int, default=25, help="steps between rl-doctor's checks")
    parser.add_argument("--quick", action="store_true", help="two seeds, two healthy runs")
    parser.add_argument("--json", help="where the figures are written")
    args = parser.parse_args()
    first = args.first_seed
    seeds = range(first, first + (2 if args.quick else args.seeds))
    quiet = range(first, first + (2 if args.quick else args.healthy))
    doctor = Doctor(args.doctor, args.check_every) if args.doctor else None
    table, early = faults_table(seeds, doctor)
    figures: dict[str, Any] = {"seeds": [seeds.start, seeds.stop - 1], "faults": table}
    figures |= {
        "before_onset": dict(Counter(kind for _, kind in early)),
        "healthy": healthy_table(quiet, doctor),
    }
    with tempfile.TemporaryDirectory() as root:
        real = [*args.real, *tiny_runs(Path(root), range(first, first + args.tiny))]
        if real:
            figures["real"] = real_table(real, doctor)
    if doctor is not None:
        doctor.close()
    show(figures)
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    recall = sum(row["trimtab"]["recall"] for row in table.values()) / len(table)
    false = figures["healthy"]["trimtab"]["per_10000_steps"]
    print(f"recall {recall:.1%} (target 95 %), false alarms {false:.2f} per 10,000 steps (target 1)")
    return int(not args.quick and (recall < 0.95 or false > 1))


if __name__ == "__main__":
    raise SystemExit(main())
