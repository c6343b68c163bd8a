"""The stall watchdog: late phases, stacks, actions; clocks that jump and processes that were stopped."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from trimtab.monitor import watchdog as module
from trimtab.monitor.watchdog import STALL_EXIT_CODE, Stall, Watchdog


class Clock:
    """A monotonic clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def strftime(self, _: str) -> str:
        return "now"


class Turns:
    """Stands for the event that the thread waits on: each wait moves the clock by the next of ``steps``."""

    def __init__(self, clock: Clock, steps: list[float]) -> None:
        self.clock, self.steps = clock, steps

    def wait(self, _: float) -> bool:
        if not self.steps:
            return True
        self.clock.now += self.steps.pop(0)
        return False


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(module, "time", found)
    return found


def watch(
    clock: Clock, root: Path, steps: list[float], phase: str | None = "reward", **keys: Any
) -> list[Any]:
    """Let the watchdog look once per step of the clock while ``phase`` is under way; what it did."""
    done: list[Any] = []
    dog = Watchdog(100.0, stacks=root / "stacks.txt", tell=done.append, end=done.append, **keys)
    dog._done = Turns(clock, steps)  # type: ignore[assignment]
    dog._file = (root / "stacks.txt").open("ab")
    try:
        if phase is None:
            dog._watch()
        else:
            with dog.waiting(phase):
                dog._watch()
    finally:
        module.faulthandler.cancel_dump_traceback_later()
        dog._file.close()
    return done


def test_a_late_phase_is_told_once_with_stacks(clock: Clock, tmp_path: Path) -> None:
    """Issue 5 (stall): what is awaited, for how long, the deadline, and where every thread stands."""
    (stall,) = watch(clock, tmp_path, [5.0] * 40)
    assert (stall.awaited, stall.deadline_s, stall.usual_s, stall.action) == ("reward", 100.0, None, "warn")
    assert stall.waited_s == 105.0
    assert "'reward' is awaited for 105 s (deadline 100 s)" in stall.sentence()
    text = (tmp_path / "stacks.txt").read_text()
    assert stall.sentence() in text and "test_watchdog.py" in text and "most recent call first" in text


def test_stop_ends_the_process_after_it_was_told(clock: Clock, tmp_path: Path) -> None:
    """Issue 5 (stall): under ``stop`` the process ends with 75, which a supervisor starts again."""
    stall, code = watch(clock, tmp_path, [5.0] * 40, action="stop")[:2]
    assert isinstance(stall, Stall) and code == STALL_EXIT_CODE == 75
    assert "exit code 75" in stall.sentence()


def test_nothing_is_late_before_the_deadline(clock: Clock, tmp_path: Path) -> None:
    """Issue 5 (stall): 100 s exactly are in time."""
    assert watch(clock, tmp_path, [5.0] * 20) == []


def test_between_the_phases_it_watches_too(clock: Clock, tmp_path: Path) -> None:
    """Issue 5 (stall): loading or records that hang are named."""
    (stall,) = watch(clock, tmp_path, [5.0] * 21, phase=None)
    assert stall.awaited == "between the phases"


def test_a_process_that_did_not_run_was_not_late(clock: Clock, tmp_path: Path) -> None:
    """Issue 5 (stall): an hour of SIGSTOP or sleep counts as two turns (10 s), not as an hour."""
    assert watch(clock, tmp_path, [5.0, 3600.0, 5.0, 3600.0] * 3) == []


def test_usually_slow_phases_get_longer(clock: Clock, tmp_path: Path) -> None:
    """Issue 5 (stall): the deadline is the longer of ``seconds`` and ``factor`` medians: 3 × 60 s."""
    dog = Watchdog(100.0, factor=3.0, stacks=tmp_path / "stacks.txt")
    for duration in (1.0, 60.0, 500.0):
        with dog.waiting("rollout"):
            clock.now += duration
    assert (dog.usual("rollout"), dog.deadline("rollout")) == (60.0, 180.0)
    assert (dog.usual("reward"), dog.deadline("reward")) == (None, 100.0)


def test_a_disk_that_hangs_does_not_keep_it_from_acting(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 5 (stall): the event cannot be written, the process ends all the same."""
    monkeypatch.setattr(module, "_TELL_SECONDS", 0.05)
    release, ended = threading.Event(), []
    dog = Watchdog(
        100.0, action="stop", stacks=tmp_path / "s", tell=lambda _: release.wait(5), end=ended.append
    )
    dog._done, dog._file = Turns(clock, [5.0] * 21), (tmp_path / "s").open("ab")  # type: ignore[assignment]
    with dog.waiting("reward"):
        dog._watch()
    release.set()
    module.faulthandler.cancel_dump_traceback_later()
    assert ended == [75]


def test_a_call_that_keeps_the_lock_from_the_start_is_ended(tmp_path: Path) -> None:
    """R14: Python's lock is taken before the watchdog's thread has looked once; the interpreter ends it."""
    code = (
        "import re, sys; from pathlib import Path; from trimtab.monitor.watchdog import Watchdog\n"
        "with Watchdog(0.5, action='stop', stacks=Path(sys.argv[1])): re.match('(a+)+b', 'a' * 64)"
    )
    found = subprocess.run([sys.executable, "-c", code, str(tmp_path / "stacks")], timeout=60, check=False)
    assert found.returncode == 1
    assert b"Timeout" in (tmp_path / "stacks").read_bytes()


def test_its_thread_ends_and_leaves_nothing(tmp_path: Path) -> None:
    """Issue 5 (stall): the real thread, and a phase that really is late; a quiet run leaves no file."""
    told: list[Stall] = []
    with Watchdog(0.1, stacks=tmp_path / "late.txt", tell=told.append) as dog, dog.waiting("reward"):
        ends = time.monotonic() + 20
        while not told and time.monotonic() < ends:
            time.sleep(0.02)
    assert [stall.awaited for stall in told] == ["reward"] and (tmp_path / "late.txt").stat().st_size > 0
    with Watchdog(1000.0, stacks=tmp_path / "quiet.txt") as dog, dog.waiting("reward"):
        pass
    assert not (tmp_path / "quiet.txt").exists()
    assert not [thread for thread in threading.enumerate() if thread.name == "trimtab-watchdog"]
