"""What a user's reward file prints: read on, shown on stderr up to a bound, never mixed with answers."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from typing import IO

from trimtab.runs.plain_text import one_line, sanitise

_CHUNK = 1 << 16
_MAX_SHOWN = 1 << 14  # bytes per batch; the rest is read and dropped


class UserOutput:
    """Reads a pipe in a thread of its own until it ends or is closed."""

    def __init__(self, pipe: IO[bytes], name: str) -> None:
        self._pipe, self._name = pipe, name
        self._left = _MAX_SHOWN
        self._last = b""
        self._thread = threading.Thread(target=self._read, name="trimtab-reward-output", daemon=True)
        self._thread.start()

    def next_batch(self) -> None:
        """Allow as much again to be shown."""
        self._left = _MAX_SHOWN

    def last_line(self) -> str:
        """The last line that was printed, for a message."""
        self._thread.join(0.5)  # what was printed before the end may still be in the pipe
        lines = self._last.decode("utf-8", "replace").strip().splitlines()
        return one_line(lines[-1], 200) if lines else ""

    def close(self) -> None:
        """Stop reading, when the process has ended; something it started may still hold the pipe."""
        self._thread.join(0.5)
        if not self._thread.is_alive():
            self._pipe.close()

    def _read(self) -> None:
        with suppress(OSError, ValueError):
            while part := os.read(self._pipe.fileno(), _CHUNK):
                self._last = (self._last + part)[-4096:]
                self._show(part)

    def _show(self, part: bytes) -> None:
        if self._left <= 0:
            return
        text = sanitise(part[: self._left].decode("utf-8", "replace"))
        self._left -= len(part)
        if self._left <= 0:
            text += f"\n(what else reward {self._name} prints for this batch is not shown)\n"
        with suppress(OSError, ValueError):
            sys.stderr.write(text)
