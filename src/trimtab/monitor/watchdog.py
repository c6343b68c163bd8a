"""The stall watchdog: a thread that knows what the run waits for, and speaks when that takes too long.

It measures with the monotonic clock, and counts only time in which the process itself could run: a clock that
is set, a laptop that sleeps or a process that was stopped (SIGSTOP) is no stall.
"""

from __future__ import annotations

import faulthandler
import os
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self

STALL_EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again
BETWEEN = "between the phases"
_REMEMBERED = 50  # durations per phase
_ENOUGH = 3  # durations before their median counts
_TELL_SECONDS = 5.0  # a disk that hangs must not keep the watchdog from acting

Action = Literal["warn", "stop"]


@dataclass(frozen=True, slots=True)
class Stall:
    """Something is awaited for too long; all times in seconds."""

    awaited: str  # the phase: rollout, reward, update …
    waited_s: float
    deadline_s: float
    usual_s: float | None  # median of the same phase so far; None where there are too few
    action: Action
    stacks: str  # the file with the stacks of all threads

    def sentence(self) -> str:
        """The stall as one line for a user."""
        usual = "" if self.usual_s is None else f", usually it takes {self.usual_s:.3g} s"
        then = f"; the process ends with exit code {STALL_EXIT_CODE}" if self.action == "stop" else ""
        return (
            f"stalled: '{self.awaited}' is awaited for {self.waited_s:.3g} s (deadline "
            f"{self.deadline_s:.3g} s{usual}); where every thread stands is in {self.stacks}{then}"
        )


@dataclass
class _Waiting:
    """One phase that is under way."""

    name: str
    seconds: float = 0.0  # of running time
    is_told: bool = False


class Watchdog:
    """Watches the phases of one process; used as a context manager, which starts and ends its thread.

    A phase is late after ``seconds``, or after ``factor`` times the median of its past durations where that
    is longer. Then all stacks go to ``stacks``, ``tell`` is called with the stall (once per phase, in another
    thread), and with the action ``stop`` the process ends with exit code 75. ``end`` replaces that in tests.
    What lies between the phases (loading, records) is watched alike.

    A call that never gives up Python's lock stops this thread too. Then the interpreter itself writes the
    stacks after at most twice the longest deadline, and under ``stop`` ends the process with exit code 1.

    Example:
        >>> with Watchdog(1800, stacks=Path("run/stacks.txt")) as watchdog, watchdog.waiting("reward"): ...
    """

    def __init__(
        self,
        seconds: float,
        *,
        factor: float = 20.0,
        action: Action = "warn",
        stacks: Path,
        tell: Callable[[Stall], object] = lambda stall: None,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self.seconds, self.factor, self.action = seconds, factor, action
        self.stacks, self.tell, self.end = stacks, tell, end
        self.interval = min(5.0, max(0.02, seconds / 20))
        self._past: dict[str, deque[float]] = {}
        self._open: list[_Waiting] = []  # phases may lie inside one another
        self._between = _Waiting(BETWEEN)
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self.stacks.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.stacks.open("ab")
        self._done.clear()
        self._arm_interpreter()  # here: what takes the lock at once would keep the thread from it
        self._thread = threading.Thread(target=self._watch, name="trimtab-watchdog", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the thread; an empty file of stacks is removed. Closing twice does nothing."""
        if self._thread is None or self._file is None:
            return
        self._done.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()
        self._file.close()
        self._thread = self._file = None
        with suppress(OSError):
            if self.stacks.stat().st_size == 0:
                self.stacks.unlink()

    @contextmanager
    def waiting(self, name: str) -> Iterator[None]:
        """Say that the block is what the run waits for."""
        start, mine = time.monotonic(), _Waiting(name)
        self._open.append(mine)
        try:
            yield
        finally:
            self._open.remove(mine)
            self._between = _Waiting(BETWEEN)
            self._past.setdefault(name, deque(maxlen=_REMEMBERED)).append(time.monotonic() - start)

    def deadline(self, name: str) -> float:
        """Seconds after which this phase is late."""
        usual = self.usual(name)
        return self.seconds if usual is None else max(self.seconds, self.factor * usual)

    def usual(self, name: str) -> float | None:
        """The median of this phase's past durations in seconds; None where there are fewer than 3."""
        past = list(self._past.get(name, ()))
        return statistics.median(past) if len(past) >= _ENOUGH else None

    def _watch(self) -> None:
        last = armed = time.monotonic()
        while not self._done.wait(self.interval):
            now = time.monotonic()
            # Longer than two turns: this process did not run, so nobody can have been late.
            passed, last = min(now - last, 2 * self.interval), now
            if now - armed > self.seconds / 2:
                armed = now
                self._arm_interpreter()
            for waiting in list(self._open) or [self._between]:
                waiting.seconds += passed
                if not waiting.is_told and waiting.seconds > self.deadline(waiting.name):
                    waiting.is_told = True
                    self._act(waiting)

    def _arm_interpreter(self) -> None:
        """What speaks when this thread cannot run; it is a thread of C that needs no lock of Python."""
        slowest = max([self.seconds, *map(self.deadline, list(self._past))])
        assert self._file is not None
        faulthandler.dump_traceback_later(2 * slowest, exit=self.action == "stop", file=self._file)

    def _act(self, waiting: _Waiting) -> None:
        stall = Stall(
            waiting.name,
            waiting.seconds,
            self.deadline(waiting.name),
            self.usual(waiting.name),
            self.action,
            str(self.stacks),
        )
        teller = threading.Thread(target=self._report, args=(stall,), daemon=True)
        teller.start()
        teller.join(_TELL_SECONDS)
        if self.action == "stop":
            self.end(STALL_EXIT_CODE)

    def _report(self, stall: Stall) -> None:
        for step in (self._dump, self.tell):
            try:
                step(stall)
            except Exception as error:  # a watchdog must not die of a full disk
                print(f"trimtab: {stall.sentence()} ({error})", file=sys.stderr, flush=True)

    def _dump(self, stall: Stall) -> None:
        assert self._file is not None
        self._file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {stall.sentence()}\n".encode())
        self._file.flush()
        faulthandler.dump_traceback(self._file, all_threads=True)


class NoWatchdog:
    """Watches nothing; for stages without one."""

    @contextmanager
    def waiting(self, name: str) -> Iterator[None]:
        """Do nothing."""
        yield


def build_watchdog(config: Any, stacks: Path, tell: Callable[[Stall], object]) -> Watchdog:
    """The watchdog that ``[monitor]`` asks for."""
    return Watchdog(
        config.stall_seconds,
        factor=config.stall_factor,
        action=config.stall_action,
        stacks=stacks,
        tell=tell,
    )
