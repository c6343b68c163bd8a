"""Fault points: nothing in production, exactly the n-th time when a fault is set."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from trimtab.runs import faults


@pytest.fixture(autouse=True)
def _none_left() -> Iterator[None]:
    yield
    faults.arm(None)


def test_the_nth_time_and_only_then() -> None:
    """Issue 5 (6): counted per point; other points and other times pass."""
    faults.arm("here@2=raise, there@1=oserror")
    faults.reach("here")
    with pytest.raises(RuntimeError, match="fault injected at here"):
        faults.reach("here")
    faults.reach("here")
    with pytest.raises(OSError, match="No space left on device"):
        faults.reach("there")
    faults.arm(None)
    for _ in range(3):
        faults.reach("here")


def test_poison() -> None:
    """Issue 5 (6): not-a-number once; the number itself otherwise."""
    assert faults.poison("loss", 0.5) == 0.5
    faults.arm("loss@2=nan,norm@1=oom")
    assert faults.poison("loss", 0.5) == 0.5
    assert math.isnan(faults.poison("loss", 0.5))
    assert faults.poison("loss", 0.5) == 0.5
    with pytest.raises((MemoryError, RuntimeError), match="out of memory"):
        faults.poison("norm", 1.0)


@pytest.mark.parametrize("text", ["here", "here@0=kill", "here@1=explode", "here@x=kill", ",", "@1=kill"])
def test_a_wrong_fault_is_refused(text: str) -> None:
    """Issue 5 (6): a slip in a test must not become a test that passes."""
    with pytest.raises(ValueError, match="POINT@COUNT=ACTION"):
        faults.arm(text)


@pytest.mark.parametrize(
    ("action", "code"), [("kill", -signal.SIGKILL), ("term", -signal.SIGTERM), ("exit", 1)]
)
def test_the_environment_is_read_at_the_start(action: str, code: int) -> None:
    """Issue 5 (6): a process ends as the action says, and not without it."""
    program = "from trimtab.runs import faults; faults.reach('here'); raise SystemExit(7)"
    for fault, wanted in ((f"here@1={action}", code), ("", 7)):
        ended = subprocess.run([sys.executable, "-c", program], env={**os.environ, "TRIMTAB_FAULT": fault})
        assert ended.returncode == wanted
