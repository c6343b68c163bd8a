"""A sandbox that is talked to: line by line, in turns, each answer within a deadline and a size."""

from __future__ import annotations

import json
import os
import secrets
import selectors
import time
from collections.abc import Mapping
from typing import Any

from trimtab.rewards.sandbox.launch import source_of
from trimtab.rewards.sandbox.pool import Sandbox

_CHUNK = 65536
_MAX_DEPTH = 200  # of an answer's brackets


class Session:
    """One started sandbox that runs ``program`` (a file of this package) and answers what it is sent."""

    def __init__(self, box: Sandbox, program: str, job: Mapping[str, Any]) -> None:
        self._box, self._nonce = box, secrets.token_hex(16)
        self._waiting = b""
        self.fault = box.wait_until_ready()
        self.is_open = self.fault is None
        if self.is_open:
            self._send({**job, "nonce": self._nonce, "program": [source_of(program)]})

    def ask(self, message: Mapping[str, Any], end: float) -> dict[str, Any] | None:
        """Send ``message`` and return the answer; None where there is none by ``end`` (time.monotonic)."""
        self._send(message)
        return self.read(end)

    def read(self, end: float) -> dict[str, Any] | None:
        """The next answer; without one, or with one that is no answer, the sandbox is ended."""
        said = self._parsed(self._line(end)) if self.is_open else None
        if said is None:
            self.end()
        return said

    def end(self) -> None:
        """Kill what is left."""
        if self.is_open or self.fault is not None:
            self.is_open, self.fault = False, None
            self._box.end()

    def _send(self, message: Mapping[str, Any]) -> None:
        if not self.is_open:
            return
        left = memoryview(json.dumps(message).encode() + b"\n")
        end = time.monotonic() + self._box.limits.seconds
        file = self._box.process.stdin
        with selectors.DefaultSelector() as selector:
            selector.register(file, selectors.EVENT_WRITE)
            while left and time.monotonic() < end and selector.select(max(0.0, end - time.monotonic())):
                try:
                    left = left[os.write(file, left[:_CHUNK]) :]
                except BlockingIOError:
                    continue
                except OSError:
                    break  # it has ended: whoever reads finds out
        if left:
            self.end()

    def _line(self, end: float) -> bytes | None:
        parts, size, file = [self._waiting], len(self._waiting), self._box.process.stdout
        limit = 6 * self._box.limits.output_bytes + 4096  # escaping may make a text six times as long
        with selectors.DefaultSelector() as selector:
            selector.register(file, selectors.EVENT_READ)
            while b"\n" not in parts[-1]:
                left = end - time.monotonic()
                if left <= 0 or not selector.select(left):
                    return None
                part = os.read(file, _CHUNK)
                size += len(part)
                if not part or size > limit:
                    return None
                parts.append(part)
        line, _, self._waiting = b"".join(parts).partition(b"\n")
        return line

    def _parsed(self, line: bytes | None) -> dict[str, Any] | None:
        nonce, _, said = (line or b"").partition(b" ")
        if nonce != self._nonce.encode():
            return None
        try:
            found = json.loads(said)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) and is_shallow(found) else None


def is_shallow(value: Any, depth: int = 0) -> bool:
    """Whether brackets are nested less than ``_MAX_DEPTH`` deep."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return True
    return depth < _MAX_DEPTH and all(is_shallow(item, depth + 1) for item in value)
