"""Sandboxes, each for one solution, and a pool that keeps some started before they are needed."""

from __future__ import annotations

import json
import os
import queue
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from trimtab.rewards.sandbox.launch import launch_specification, source_of
from trimtab.rewards.sandbox.leftovers import sweep_once
from trimtab.rewards.sandbox.limits import ControlGroup, Limits

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
        command = [sys.executable, "-I", "-S", "-B", "-c", source_of("launcher.py"), json.dumps(spec)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            close_fds=True,
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin")},
            cwd="/",
        )

    def run(self, job: Mapping[str, Any]) -> RunResult:
        """Run ``{code, cases}`` and end the sandbox, within the limits' seconds whatever happens in it."""
        try:
            fault = self._wait_until_ready()
            return RunResult(fault=fault) if fault else RunResult(self._exchange(job))
        except OSError as error:
            return RunResult(fault=f"{type(error).__name__}: {error}")
        finally:
            self.end()

    def _wait_until_ready(self) -> str | None:
        first = self._read(time.monotonic() + _START_SECONDS, 6, until=b"\n")
        if first == b"ready\n":
            return None
        self._kill()
        assert self.process.stderr is not None
        said = self.process.stderr.read(2000).decode("utf-8", "replace").strip()
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
        assert self.process.stdin is not None
        end = time.monotonic() + limits.seconds
        writer = threading.Thread(target=self._send, args=(json.dumps(told).encode(),), daemon=True)
        writer.start()
        # Escaping may make a text six times as long.
        room = len(job["cases"]) * (6 * limits.output_bytes + 4096)
        text = self._read(end, room)
        replies: dict[int, Mapping[str, Any]] = {}
        for line in text.split(b"\n"):
            try:
                reply = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(reply, dict) and reply.get("nonce") == nonce and type(reply.get("case")) is int:
                replies.setdefault(reply["case"], reply)
        return replies

    def _send(self, content: bytes) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(content)
            self.process.stdin.close()
        except OSError:
            return  # it ended before it had read its job

    def _read(self, end: float, limit: int, until: bytes | None = None) -> bytes:
        """What the sandbox writes, until it closes, the time is over, or it wrote too much."""
        assert self.process.stdout is not None
        file, parts, size = self.process.stdout.fileno(), list[bytes](), 0
        with selectors.DefaultSelector() as selector:
            selector.register(file, selectors.EVENT_READ)
            while (left := end - time.monotonic()) > 0 and size < limit:
                if not selector.select(left):
                    break
                part = os.read(file, min(_CHUNK, limit - size))
                if not part:
                    break
                parts.append(part)
                size += len(part)
                if until is not None and part.endswith(until):
                    break
        return b"".join(parts)

    def _kill(self) -> None:
        if self.folder is not None:
            # The keeper knows all that descends from it, also what left its process group.
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_KEEPER_SECONDS)
        with suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.group.kill()

    def end(self) -> None:
        """Kill what is left, and give everything back."""
        self._kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    continue
        if self.folder is not None:  # where the keeper was killed itself
            shutil.rmtree(self.folder, ignore_errors=True)
        for _ in range(100):
            if self.group.remove():
                return
            self.group.kill()
            time.sleep(0.01)


class SandboxPool:
    """Runs solutions a few at a time; for each one that starts, the next sandbox is started beside it."""

    def __init__(self, level: str, limits: Limits, workers: int = 2) -> None:
        sweep_once()
        self.level, self.limits, self.workers = level, limits, workers
        self._ready: queue.SimpleQueue[Sandbox] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="trimtab-sandbox")
        self.num_faults = 0  # sandboxes that did not start, since the start
        # Also when the process ends: what waits would end by itself, but leave its cgroup behind.
        self._end_ready = weakref.finalize(self, _end_all, self._ready)

    def run_all(self, jobs: Sequence[Mapping[str, Any]]) -> list[RunResult]:
        """One result per job, in order."""
        left = self.workers - self._ready.qsize()
        for _ in range(min(left, len(jobs))):
            self._ready.put(Sandbox(self.level, self.limits))
        return list(self._threads.map(self._run, jobs))

    def _run(self, job: Mapping[str, Any]) -> RunResult:
        result = RunResult(fault="never tried")
        for _ in range(2):  # a sandbox that does not start is the machine's fault: once more
            result = self._take().run(job)
            if result.fault is None:
                return result
            self.num_faults += 1
        return result

    def _take(self) -> Sandbox:
        try:
            box = self._ready.get_nowait()
        except queue.Empty:
            return Sandbox(self.level, self.limits)
        self._ready.put(Sandbox(self.level, self.limits))
        return box

    def close(self) -> None:
        """End the waiting sandboxes."""
        self._threads.shutdown(wait=True)
        self._end_ready()


def _end_all(ready: queue.SimpleQueue[Sandbox]) -> None:
    while not ready.empty():
        ready.get_nowait().end()
