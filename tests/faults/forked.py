"""Runs in processes of their own, forked from one that has imported everything: they really die."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab.cli.main import main
from trimtab.runs import faults

DEADLINE_SECONDS = 120.0  # of one run, which takes a second or two


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended: its exit code, negative for a signal; ``is_hung`` where it had to be killed."""

    code: int
    is_hung: bool
    started: float  # time.time()
    ended: float
    said: str  # its output


def run_forked(
    arguments: Sequence[str],
    log: Path,
    *,
    fault: str | None = None,
    setup: Callable[[], object] | None = None,
    deadline_s: float = DEADLINE_SECONDS,
    while_running: Callable[[int], object] | None = None,
) -> Ended:
    """``trimtab ARGUMENTS`` in a forked child, with the ``fault`` armed and ``setup`` called there first."""

    def body() -> int:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if setup is not None:
            setup()
        faults.arm(fault)
        return main(list(arguments))

    log.unlink(missing_ok=True)
    started = time.time()
    pid = fork(body, log)
    if while_running is not None:
        while_running(pid)
    is_hung = False
    try:
        code = wait(pid, deadline_s)
    except TimeoutError:
        is_hung, code = True, -signal.SIGKILL
    said = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    return Ended(code, is_hung, started, time.time(), said)


def fork(body: Callable[[], int], log: Path) -> int:
    """Start ``body`` in a child whose output is appended to ``log``; return its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        code = body()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(pid: int, seconds: float = DEADLINE_SECONDS) -> int:
    """The exit code of a child, −n where signal n ended it.

    Raises:
        TimeoutError: it did not end; it was killed, with its process group where it leads one.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    if os.getpgid(pid) == pid:
        os.killpg(pid, signal.SIGKILL)
    else:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise TimeoutError(f"a child ran longer than {seconds} seconds")
