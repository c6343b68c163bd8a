"""``trimtab run --max-restarts N``: run the command in a child process, and go on with it after a crash.

A crash is a signal (out of memory, a segmentation fault) or any exit code but these: 0 done, 2 something for
the user to mend, 3 diverged, 130 and 143 stopped. Nothing of the library is imported here but records.
"""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType

from trimtab.errors import DataError
from trimtab.runs.events import Event
from trimtab.runs.files import read_json
from trimtab.runs.layout import RunDirectory
from trimtab.runs.reader import read_events
from trimtab.runs.writer import append_event

NO_CRASH = (0, 2, 3, 130, 143)
LONGEST_PAUSE = 60.0  # seconds; the first is PAUSE, then twice as long each time
PAUSE = 1.0
_PARENT_DEATH_SIGNAL = 1  # prctl


@dataclass(frozen=True, slots=True)
class Place:
    """How far a run has come: its stage, the finished steps of that, and the stages that it has finished."""

    stage: str
    step: int
    finished: int

    def __str__(self) -> str:
        return f"in stage {self.stage} after {self.step} steps" if self.stage else "before its first stage"


def supervise(words: Sequence[str], run: str, limit: int, pause: float = PAUSE) -> int:
    """Run ``trimtab run WORDS`` until it ends otherwise than by a crash; return its exit code.

    At most ``limit`` restarts, each an event of the run and each later than the one before. The same crash
    at the same place twice in a row ends it at once: another try would not help.
    """
    manifest = RunDirectory(run).manifest
    before, command = read_json(manifest), list(words)
    with Child() as child:
        last: tuple[int, Place] | None = None
        for number in range(1, limit + 2):
            code = child.run(command)
            if code in NO_CRASH or child.is_stopped:
                return code
            crash = (code, place_of(run))
            told = f"the run died {crash[1]} ({describe(code)})"
            if crash == last:
                return _say(
                    f"{told}, twice in a row: not restarted; mend it, then go on with --resume.", code
                )
            if number > limit:
                return _say(f"{told} after {limit} restarts: --max-restarts is used up.", code)
            last = crash
            # Until a new manifest is there, the record in the directory is of an older run.
            has_begun = bool(read_json(manifest)) and read_json(manifest) != before
            if has_begun:
                _record(run, number, limit, crash)
                command = [*words, *([] if "--resume" in words else ["--resume"])]
            seconds = min(LONGEST_PAUSE, pause * 2 ** (number - 1))
            _say(f"{told}; restart {number} of {limit} in {seconds:g} s.", 0)
            if not child.wait(seconds):
                return 130
    raise AssertionError("unreachable")


class Child:
    """The child process; signals that arrive here are passed on to it, and end the restarts."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.is_stopped = False

    def __enter__(self) -> Child:
        self._before = {
            number: signal.signal(number, self._pass_on) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *details: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def run(self, words: Sequence[str]) -> int:
        """Run one child to its end; return its exit code, 128 + n where signal n ended it."""
        command = [sys.executable, "-m", "trimtab.cli", "run", *words]
        # A session of its own: Ctrl-C in the terminal comes once, from here, and not twice.
        self.process = subprocess.Popen(command, start_new_session=True, preexec_fn=_end_with_parent)
        code = self.process.wait()
        return code if code >= 0 else 128 - code

    def wait(self, seconds: float) -> bool:
        """Wait between two children; False where a signal came."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.is_stopped:
            time.sleep(0.05)
        return not self.is_stopped

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self.is_stopped = True
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)


def place_of(run: str) -> Place:
    """How far the run in a directory has come."""
    try:
        events = read_events(run)
    except DataError:
        return Place("", 0, 0)
    steps = [event for event in events if event.kind == "metrics"]
    started = [event.stage for event in events if event.kind == "stage_started"]
    finished = sum(event.kind == "stage_finished" for event in events)
    if not started:
        return Place("", 0, finished)
    own = [event.step for event in steps if event.stage == started[-1]]
    return Place(started[-1], max(own, default=0), finished)


def describe(code: int) -> str:
    """An exit code in words: ``exit code 1``, or the name of the signal."""
    try:
        return signal.Signals(code - 128).name if code > 128 else f"exit code {code}"
    except ValueError:
        return f"exit code {code}"


def without_restarts(words: Sequence[str]) -> list[str]:
    """The command line without ``--max-restarts N``."""
    kept, skip = [], False
    for word in words:
        if skip or word == "--max-restarts" or word.startswith("--max-restarts="):
            skip = not skip and word == "--max-restarts"
            continue
        kept.append(word)
    return kept


def _record(run: str, number: int, limit: int, crash: tuple[int, Place]) -> None:
    code, place = crash
    data = {
        "number": number,
        "limit": limit,
        "exit_code": code,
        "reason": describe(code),
        "stage": place.stage,
        "step": place.step,
    }
    append_event(run, Event(time.time(), place.stage or "run", "restart", max(0, place.step), data))


def _end_with_parent() -> None:
    """On Linux the child is told to stop when this process dies; it saves a checkpoint then."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, int(signal.SIGTERM), 0, 0, 0)


def _say(sentence: str, code: int) -> int:
    print(f"trimtab: {sentence}", file=sys.stderr, flush=True)
    return code
