"""The faults, what each run is expected to do about it, and the judge of what it did."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from tests.faults.forked import DEADLINE_SECONDS, Ended
from tests.faults.injections import Setup, watched
from tests.faults.tiny_runs import STEPS, TinyRun

How = Literal["survived", "resumed", "either"]
STALL: dict[str, Any] = {"stall_seconds": 10.0, "stall_action": "stop"}


@dataclass(frozen=True)
class Fault:
    """One fault. ``point`` is for ``trimtab.runs.faults``, ``setup`` is called in the run's process.

    ``how``: the first process finishes in spite of it (survived), or ends and a second one goes on (resumed).
    ``either`` leaves that open.
    ``is_exact``: it ends bit for bit like an undisturbed run. ``event`` and ``words``: what must have been
    said, as an event of this kind and as text in it (or in the output). ``damage`` happens between the
    processes.
    """

    name: str
    how: How = "resumed"
    point: str | None = None
    setup: Setup | None = None
    change: Mapping[str, Any] = field(default_factory=dict)
    monitor: Mapping[str, Any] = field(default_factory=dict)
    is_exact: bool = True
    event: str = ""
    words: str = ""
    codes: tuple[int, ...] = ()
    damage: Callable[[TinyRun], object] | None = None
    while_running: Callable[[int], object] | None = None
    is_watched: bool = False  # count NaN and infinity that reach weights, samples, checkpoints
    before: Callable[[TinyRun], object] | None = None
    is_timed: bool = True  # off where the clock that events are dated with is what fails


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one fault did to one run; times in seconds, None where there is nothing to time."""

    fault: str
    seed: int
    how: str
    code: int
    is_hung: bool
    is_exact: bool | None  # None: not promised
    problems: tuple[str, ...]
    detection_s: float | None  # from the last sign of life before it, to its being noticed
    recovery_s: float | None  # from there (or from the start of the second process) to the next finished step
    said: str

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def disturb(fault: Fault, seed: int, root: Path, undisturbed: TinyRun) -> Outcome:
    """Run with the fault in it, go on where that is expected, and compare with the undisturbed run."""
    run = TinyRun(root, seed, fault.change, fault.monitor)
    problems: list[str] = []
    os.environ["TRIMTAB_FAULT_MARK"] = str(root / "mark")
    setup = watched(root, fault.setup or (lambda: None)) if fault.is_watched else fault.setup
    if fault.before is not None:
        fault.before(run)
    first = run.start(fault.point, setup, while_running=fault.while_running)
    ended, code = first, first.code
    detection, noticed = _detected(fault, run, first)
    how = "survived"
    if first.is_hung:
        problems.append(f"hung for {DEADLINE_SECONDS:g} s")
    elif fault.how != "survived" and code != 0:
        how, ended = _resume(fault, run)
    if fault.how == "survived" and code != 0:
        problems.append(f"ended with {code}")
    if fault.codes and code not in fault.codes:
        problems.append(f"ended with {code}, not {fault.codes}")
    if fault.how == "resumed" and code == 0 and not fault.setup:
        problems.append("the fault did not happen")
    problems += _lost(run, undisturbed, ended) if not first.is_hung else []
    is_exact = None
    if fault.is_exact and not problems:
        is_exact = run.left() == undisturbed.left()
        if not is_exact:
            problems.append("it did not end like the undisturbed run")
    problems += _unsaid(fault, run, first)
    if (root / "reached").exists():
        problems.append(f"numbers that are not finite reached {(root / 'reached').read_text()}")
    recovery = _recovered(run, ended.started if how != "survived" else noticed)
    if not fault.is_timed:
        detection = recovery = None
    return Outcome(
        fault.name, seed, how, code, first.is_hung, is_exact, tuple(problems), detection, recovery,
        _last_line(first),
    )  # fmt: skip


def _resume(fault: Fault, run: TinyRun) -> tuple[str, Ended]:
    """Start again with --resume; where that refuses a damaged checkpoint, take it away as it says."""
    if fault.damage is not None:
        fault.damage(run)
    ended = run.start(resume=True)
    if ended.code == 2 and "use an older one" in ended.said:
        shutil.rmtree(newest(run))
        return "refused, resumed", run.start(resume=True)
    return "resumed", ended


def _lost(run: TinyRun, undisturbed: TinyRun, ended: Ended) -> list[str]:
    """What is missing at the end: steps, prompts, a policy of numbers."""
    if ended.code != 0:
        return [f"the last process ended with {ended.code}: {_last_line(ended)}"]
    found = []
    if run.steps_done() != undisturbed.steps_done():
        found.append(f"steps {run.steps_done()}")
    ours, theirs = (
        [(step, prompt) for step, prompt, *_ in one.left()["rollouts"]] for one in (run, undisturbed)
    )
    if ours != theirs:
        found.append("other prompts than in the undisturbed run")
    if not all(bool(torch.isfinite(x).all()) for x in run.weights().values()):
        found.append("the policy holds NaN or infinity")
    return found


def _unsaid(fault: Fault, run: TinyRun, first: Ended) -> list[str]:
    events = run.events(fault.event) if fault.event else []
    if fault.event and not any(fault.words in str(event.data) for event in events):
        # A process that ends says it at the end; the record of the steps that are run again is cut.
        if fault.words and fault.words in first.said:
            return []
        return [f"no event {fault.event} says '{fault.words}'"]
    if not fault.event and fault.words and fault.words not in first.said:
        return [f"nobody said '{fault.words}', but: {_last_line(first)}"]
    return []


def _detected(fault: Fault, run: TinyRun, first: Ended) -> tuple[float | None, float]:
    """Seconds from the last record before the fault to its being noticed, and when that was."""
    records = run.events("metrics") + run.events("checkpoint")
    noticed = first.ended
    if first.code == 0:
        kinds = [event.time for event in run.events(fault.event)] if fault.event else []
        if not kinds:
            abstained = [e.time for e in run.events("metrics") if e.data.get("reward/abstained", 0.0) > 0]
            kinds = abstained[:1]
        if not kinds:
            return None, noticed
        noticed = kinds[0]
    before = [event.time for event in records if event.time < noticed]
    return (max(0.0, noticed - max(before)) if before else None), noticed


def _recovered(run: TinyRun, since: float) -> float | None:
    later = [event.time for event in run.events("metrics") if event.time > since]
    return min(later) - since if later else None


def _last_line(ended: Ended) -> str:
    lines = [line for line in ended.said.splitlines() if "error" in line or "guard" in line or "!" in line]
    return (lines or ended.said.splitlines() or [""])[-1][:300]


def newest(run: TinyRun) -> Path:
    """The newest checkpoint."""
    return sorted(run.checkpoints.glob("step-*"))[-1]


def stop_and_continue(pid: int) -> None:
    """Suspend a process for longer than a stall is allowed to be."""
    time.sleep(1.5)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(STALL["stall_seconds"] + 2.0)
    os.kill(pid, signal.SIGCONT)


__all__ = ["STALL", "STEPS", "Fault", "Outcome", "disturb", "newest", "stop_and_continue"]
