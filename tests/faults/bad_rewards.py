"""A user's reward that is well but for one batch, in which it dies, hangs or returns garbage; once per run.

The environment variable ``TRIMTAB_FAULT_MARK`` names the file that says that it has happened.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

_calls = 0


def _is_the_time() -> bool:
    global _calls
    _calls += 1
    mark = Path(os.environ["TRIMTAB_FAULT_MARK"])
    if _calls != 4 or mark.exists():
        return False
    mark.touch()
    return True


def _well(completions: list[str]) -> list[float]:
    return [len(text) % 7 / 7 for text in completions]


def dies(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    """Killed, as by the out-of-memory killer."""
    if _is_the_time():
        os.kill(os.getpid(), signal.SIGKILL)
    return _well(completions)


def hangs(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    """Waits for ever."""
    while _is_the_time():
        time.sleep(3600)
    return _well(completions)


def raises(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    """An exception of its own."""
    if _is_the_time():
        raise KeyError("no such column")
    return _well(completions)


def garbage(prompts: list[str], completions: list[str], **columns: Any) -> list[Any]:
    """Texts, and too few of them."""
    return ["good"] if _is_the_time() else list(_well(completions))


def not_a_number(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    """NaN for every completion of one batch."""
    return [float("nan")] * len(completions) if _is_the_time() else _well(completions)


def infinite(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    """Infinity for one completion of one batch."""
    return [float("inf"), *_well(completions)[1:]] if _is_the_time() else _well(completions)
