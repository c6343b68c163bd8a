"""Sandboxes, each for one solution, and a pool that keeps some started before they are needed."""

from __future__ import annotations

import json
import os
import queue
import secrets
import selectors
import shutil
import signal
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from trimtab.rewards.sandbox.launch import launch_specification
from trimtab.rewards.sandbox.leftovers import sweep_once
from trimtab.rewards.sandbox.limits import ControlGroup, Limits
from trimtab.rewards.sandbox.start import Started, launcher

_START_SECONDS = 20.0  # until the guest must have said that it is ready
_KEEPER_SECONDS = 10.0  # until a keeper must have ended all that its solution started
_CHUNK = 65536


@dataclass(frozen=True, slots=True)
class RunResult:
    """What came out of a sandbox: replies by case (one may be missing), or why it never started."""

    replies: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    fault: str | None = None


class Sandbox:
    """One started sandbox that waits for its one job."""

    def __init__(self, level: str, limits: Limits) -> None:
        self.limits = limits
        self.group = ControlGroup(limits)
        spec = launch_specification(level, limits, self.group.folders)
        self.folder = spec["keeper"] and spec["keeper"]["folder"]  # private, of level 2
        self.process = Started(spec)

    def run(self, job: Mapping[str, Any]) -> RunResult:
        """Run ``{code, cases}`` and end the sandbox, within the limits' seconds whatever happens in it."""
        try:
            fault = self.wait_until_ready()
            if fault is not None:
                return RunResult(fault=fault)
            replies = self._exchange(job)
            if len(replies) < len(job["cases"]) and not self.process.has_launcher:
                return RunResult(fault="the launcher of the sandboxes is gone")
            return RunResult(replies)
        except OSError as error:
            return RunResult(fault=f"{type(error).__name__}: {error}")
        finally:
            self.end()

    def wait_until_ready(self) -> str | None:
        """Why it did not start; None when it waits for its job."""
        first = self._read(time.monotonic() + _START_SECONDS, 6, until=b"\n")
        if first == b"ready\n":
            return None
        self._kill()
        said = os.read(self.process.stderr, 2000).decode("utf-8", "replace").strip()
        return " ".join(said.split())[-300:] or "it did not start in time"

    def _exchange(self, job: Mapping[str, Any]) -> dict[int, Mapping[str, Any]]:
        limits, nonce = self.limits, secrets.token_hex(16)
        told = {
            "nonce": nonce,
            "code": job["code"],
            "cases": job["cases"],
            "seconds_per_case": limits.seconds_per_case,
            "max_output": limits.output_bytes,
        }
        # Escaping may make a text six times as long.
        room = len(job["cases"]) * (6 * limits.output_bytes + 4096)
        text = self._read(time.monotonic() + limits.seconds, room, json.dumps(told).encode())
        replies: dict[int, Mapping[str, Any]] = {}
        for line in text.split(b"\n"):
            words = line.split(b" ", 2)
            if len(words) == 3 and words[0] == nonce.encode() and words[1].isdigit() and len(words[1]) < 9:
                replies.setdefault(int(words[1]), _checked(words[2]))
        return replies

    def _read(self, end: float, limit: int, content: bytes = b"", until: bytes | None = None) -> bytes:
        """What the sandbox writes, until it closes, the time is over, or it wrote too much.

        ``content`` is written to it meanwhile, as it takes it; then its stdin is closed.
        """
        parts, size, left_to_send = list[bytes](), 0, memoryview(content)
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if content:
                selector.register(self.process.stdin, selectors.EVENT_WRITE)
            while (left := end - time.monotonic()) > 0 and size < limit:
                ready = {key.fd for key, _ in selector.select(left)}
                if self.process.stdin in ready:
                    left_to_send = self._send(left_to_send)
                    if not left_to_send:
                        selector.unregister(self.process.stdin)
                        self.process.close(self.process.stdin)
                if self.process.stdout not in ready:
                    continue
                part = os.read(self.process.stdout, min(_CHUNK, limit - size))
                if not part:
                    break
                parts.append(part)
                size += len(part)
                if until is not None and part.endswith(until):
                    break
        return b"".join(parts)

    def _send(self, content: memoryview) -> memoryview:
        """Write what can be written now; what is left, nothing where nobody reads it any more."""
        try:
            return content[os.write(self.process.stdin, content[:_CHUNK]) :]
        except BlockingIOError:
            return content
        except OSError:
            return content[:0]  # it ended before it had read its job

    def _kill(self) -> None:
        if self.folder is not None:
            # The keeper knows all that descends from it, also what left its process group.
            self.process.end(signal.SIGTERM, _KEEPER_SECONDS)
        self.process.kill()
        self.group.kill()

    def end(self) -> None:
        """Kill what is left, and give everything back."""
        self._kill()
        self.process.close(self.process.stdin, self.process.stdout, self.process.stderr)
        if self.folder is not None:  # where the keeper was killed itself
            shutil.rmtree(self.folder, ignore_errors=True)
        for _ in range(100):
            if self.group.remove():
                return
            self.group.kill()
            time.sleep(0.01)


def _checked(said: bytes) -> Mapping[str, Any]:
    """A reply of the guest, which may be anything."""
    try:
        reply = json.loads(said)
    except (ValueError, RecursionError):
        reply = None
    if isinstance(reply, dict) and set(reply) <= {"value", "output", "error"}:
        return reply
    return {"error": "no result"}


class SandboxPool:
    """Runs solutions a few at a time; for each one that starts, the next sandbox is started beside it."""

    def __init__(self, level: str, limits: Limits, workers: int = 2) -> None:
        sweep_once()
        launcher()  # before the finalizer below, so that it is still there when that runs
        self.level, self.limits, self.workers = level, limits, workers
        self._ready: queue.SimpleQueue[Sandbox] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="trimtab-sandbox")
        self.num_faults = 0  # sandboxes that did not start, since the start
        # Also when the process ends: what waits would end by itself, but leave its cgroup behind.
        self._end_ready = weakref.finalize(self, _end_all, self._ready)
        self.also_close: list[Callable[[], Any]] = []  # what else is to end with the pool

    def run_all(self, jobs: Sequence[Mapping[str, Any]]) -> list[RunResult]:
        """One result per job, in order."""
        left = self.workers - self._ready.qsize()
        for _ in range(min(left, len(jobs))):
            self._ready.put(Sandbox(self.level, self.limits))
        return list(self._threads.map(self._run, jobs))

    def map(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> list[Any]:
        """Call ``function`` for each job, as many at a time as there are workers; results in order."""
        return list(self._threads.map(function, jobs))

    def _run(self, job: Mapping[str, Any]) -> RunResult:
        result = RunResult(fault="never tried")
        for _ in range(2):  # a sandbox that does not start is the machine's fault: once more
            result = self.take().run(job)
            if result.fault is None:
                return result
            self.num_faults += 1
        return result

    def take(self) -> Sandbox:
        """A started sandbox; the next one is started beside it."""
        try:
            box = self._ready.get_nowait()
        except queue.Empty:
            return Sandbox(self.level, self.limits)
        self._ready.put(Sandbox(self.level, self.limits))
        return box

    def close(self) -> None:
        """End the waiting sandboxes."""
        self._threads.shutdown(wait=True)
        for close in self.also_close:
            close()
        self._end_ready()


def _end_all(ready: queue.SimpleQueue[Sandbox]) -> None:
    while not ready.empty():
        ready.get_nowait().end()
