"""Named points of a run at which tests make something go wrong; in production a point is one comparison.

``TRIMTAB_FAULT`` is read once, when the process starts: ``POINT@COUNT=ACTION``, several joined by commas. The
action happens the COUNT-th time that the process reaches the point, and never again. Actions:

- ``kill``: SIGKILL to itself, as a power cut or the out-of-memory killer does; ``term``: SIGTERM to itself
- ``exit``: end at once with exit code 1, without cleaning up
- ``raise``: RuntimeError; ``oserror``: OSError, no space left on device; ``oom``: out of memory
- ``hang``: wait for ever
- ``nan``: ``poison`` at that point returns not-a-number
"""

from __future__ import annotations

import errno
import math
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping

ACTIONS = ("kill", "term", "exit", "raise", "oserror", "oom", "hang", "nan")
_FORM = re.compile(r"(?P<point>[a-z0-9_./-]+)@(?P<count>[1-9][0-9]*)=(?P<action>[a-z]+)")

_faults: dict[tuple[str, int], str] | None = None
_reached: Counter[str] = Counter()


def arm(text: str | None) -> None:
    """Set the faults of this process and count from zero; None or an empty text removes them.

    Raises:
        ValueError: ``text`` is not ``POINT@COUNT=ACTION``, joined by commas.

    Example:
        >>> arm("after_backward@2=kill,before_rename@1=oserror")
    """
    global _faults
    _reached.clear()
    _faults = dict(map(_parse, text.split(","))) if text else None


def reach(point: str) -> None:
    """Say that the process is at ``point``; does nothing unless a fault is set there."""
    if _faults is not None:
        _act(point, _next(point, _faults))


def poison(point: str, number: float) -> float:
    """Return ``number``, or not-a-number where the fault of ``point`` says so; a point like any other."""
    if _faults is None:
        return number
    action = _next(point, _faults)
    if action == "nan":
        return math.nan
    _act(point, action)
    return number


def _parse(text: str) -> tuple[tuple[str, int], str]:
    found = _FORM.fullmatch(text.strip())
    if found is None or found["action"] not in ACTIONS:
        raise ValueError(f"TRIMTAB_FAULT: {text!r} is not POINT@COUNT=ACTION; actions: {', '.join(ACTIONS)}")
    return (found["point"], int(found["count"])), found["action"]


def _next(point: str, faults: Mapping[tuple[str, int], str]) -> str | None:
    _reached[point] += 1
    return faults.get((point, _reached[point]))


def _act(point: str, action: str | None) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "term":
        os.kill(os.getpid(), signal.SIGTERM)
    elif action == "exit":
        os._exit(1)
    elif action == "raise":
        raise RuntimeError(f"fault injected at {point}")
    elif action == "oserror":
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} (fault injected at {point})")
    elif action == "oom":
        raise _out_of_memory(f"out of memory (fault injected at {point})")
    elif action == "hang":
        while True:
            time.sleep(1)


def _out_of_memory(text: str) -> BaseException:
    """The error of torch where it is loaded: this package does not import it."""
    kind = getattr(sys.modules.get("torch"), "OutOfMemoryError", MemoryError)
    error = kind(text)
    assert isinstance(error, BaseException)
    return error


arm(os.environ.get("TRIMTAB_FAULT"))
