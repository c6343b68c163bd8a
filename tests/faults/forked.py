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
    started, ends = time.time(), time.monotonic() + deadline_s
    pid = os.fork()
    if pid == 0:
        _child(arguments, log, fault, setup)
    is_hung, status = False, 0
    if while_running is not None:
        while_running(pid)
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            break
        if time.monotonic() > ends:
            is_hung = True
            os.killpg(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            break
        time.sleep(0.005)
    said = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    return Ended(os.waitstatus_to_exitcode(status), is_hung, started, time.time(), said)


def _child(
    arguments: Sequence[str], log: Path, fault: str | None, setup: Callable[[], object] | None
) -> None:
    code = 99
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
        if setup is not None:
            setup()
        faults.arm(fault)
        code = main(list(arguments))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
