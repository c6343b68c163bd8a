"""Two processes in one run directory: the second is told who the first is, and a dead one blocks nobody."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trimtab.errors import DataError
from trimtab.runs import RunWriter, metrics_table, read_events
from trimtab.runs import lock as locks
from trimtab.runs.events import Event
from trimtab.runs.writer import append_event

HOLD = """
import os, sys, time
from trimtab.runs import RunWriter
run = RunWriter(sys.argv[1], {})
run.metrics("rl", 0, {"loss/total": 0.5})
{extra}
print("holding", flush=True)
time.sleep(60)
"""
# The child says that it runs: until then it has what its parent had open.
FORK = """
heard, said = os.pipe()
if os.fork() == 0:
    os.write(said, b".")
    time.sleep(60)
os.read(heard, 1)
"""


def hold(root: Path, extra: str = "") -> subprocess.Popen[bytes]:
    """A process that writes a run, and says so once it does."""
    code = HOLD.replace("{extra}", extra)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None and process.stdout.readline() == b"holding\n"
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and all that it has forked."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_process_is_refused_and_harms_nothing(tmp_path: Path, resume: bool) -> None:
    """R17: one sentence with the first one's number and host; its record stays as it is; readers go on."""
    process = hold(tmp_path)
    try:
        before = (tmp_path / "events.jsonl").read_bytes()
        with pytest.raises(
            DataError, match=rf"^Process {process.pid} on \S+ has been writing .* elsewhere\.$"
        ):
            RunWriter(tmp_path, {}, resume=resume)
        with pytest.raises(DataError, match=f"^Process {process.pid} "):
            append_event(tmp_path, Event(time.time(), "rl", "restart", 0, {}))
        assert (tmp_path / "events.jsonl").read_bytes() == before
        assert not (tmp_path / "previous").exists()
        assert metrics_table(tmp_path, "rl")["loss/total"] == [0.5]
    finally:
        end(process)


@pytest.mark.parametrize("extra", ["", FORK], ids=["alone", "with a child"])
def test_the_lock_dies_with_its_process(tmp_path: Path, extra: str) -> None:
    """R17: after SIGKILL the run can be resumed at once, also where a child of the dead one lives on."""
    process = hold(tmp_path, extra)
    try:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with RunWriter(tmp_path, {}, resume=True) as run:
            run.metrics("rl", 1, {"loss/total": 0.25})
        assert metrics_table(tmp_path, "rl")["loss/total"] == [0.5, 0.25]
    finally:
        end(process)


def test_a_closed_run_is_free(tmp_path: Path) -> None:
    """A finished run can be written by another process, and by this one."""
    for resume in (False, True):
        RunWriter(tmp_path, {}, resume=resume).close()
    end(hold(tmp_path))


def test_one_process_may_open_its_run_again(tmp_path: Path) -> None:
    """A notebook cell that is run twice: the lock is held until the last writer of the process is closed."""
    first = RunWriter(tmp_path, {})
    second = RunWriter(tmp_path, {}, resume=True)
    first.close()
    code = "import sys; from trimtab.runs import RunWriter; RunWriter(sys.argv[1], {}, resume=True)"
    command = [sys.executable, "-c", code, str(tmp_path)]
    assert b"DataError: Process" in subprocess.run(command, capture_output=True, check=False).stderr
    second.close()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network file systems know no locks: the run goes on, with a warning in its record."""

    class NoLocks:
        LOCK_EX = LOCK_NB = 0

        @staticmethod
        def flock(descriptor: int, how: int) -> None:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(locks, "fcntl", NoLocks)
    with RunWriter(tmp_path, {}) as run:
        run.event("rl", "note", 0)
    (warning,) = read_events(tmp_path, "warning")
    assert re.search(r"cannot be locked \(No locks available\).*start none there", warning.data["text"])
