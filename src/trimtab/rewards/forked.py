"""Functions of ours over hostile text, in killable processes that share nothing with the next call.

A server process has imported what is needed and forks for every call: the child computes, says one JSON
value and ends, so nothing that it did to itself outlives it. The server kills a child at its deadline; the
parent kills a server that does not answer. ``python -m trimtab.rewards.forked MODULE:FUNCTION SECONDS
MEMORY_MIB`` is the server.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from trimtab.cores import one_thread
from trimtab.rewards.sandbox.launcher import load_filter
from trimtab.rewards.sandbox.seccomp import seccomp_filter

_CHUNK = 65536
_START_SECONDS = 60.0
_GRACE_SECONDS = 5.0  # of the server, after its child's deadline


@dataclass(frozen=True, slots=True)
class Reply:
    """The value that a call returned, or why there is none: ``timeout``, ``crash``, or an exception."""

    value: Any = None
    error: str | None = None
    is_fault: bool = False  # the machine's, not the text's: the caller abstains


class _Server:
    """One server process and its two pipes."""

    def __init__(self, target: str, seconds: float, memory_mib: int) -> None:
        command = [sys.executable, "-m", "trimtab.rewards.forked", target, str(seconds), str(memory_mib)]
        self.seconds = seconds
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=one_thread(os.environ),
            start_new_session=True,
        )
        if self._line(_START_SECONDS) != b"ready\n":
            self.kill()
            raise OSError(f"the server of {target} does not start")

    def call(self, arguments: Mapping[str, Any]) -> Reply:
        """Ask and wait; an OSError means that the server is gone and has been killed."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(arguments).encode() + b"\n")
        self.process.stdin.flush()
        line = self._line(self.seconds + _GRACE_SECONDS)
        if not line.endswith(b"\n"):
            self.kill()
            raise OSError("the server does not answer")
        return Reply(**json.loads(line))

    def _line(self, seconds: float) -> bytes:
        assert self.process.stdout is not None
        end, found = time.monotonic() + seconds, b""
        file = self.process.stdout.fileno()
        while not found.endswith(b"\n") and (left := end - time.monotonic()) > 0:
            if not select.select([file], [], [], left)[0]:
                break
            part = os.read(file, _CHUNK)
            if not part:
                break
            found += part
        return found

    def kill(self) -> None:
        """End it and what it started."""
        with suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class ForkedPool:
    """Calls ``module:function`` in killable processes, ``workers`` at a time; started when needed."""

    def __init__(
        self, target: str, *, workers: int = 2, seconds: float = 5.0, memory_mib: int = 2048
    ) -> None:
        self._settings = (target, seconds, memory_mib)
        self._servers: queue.SimpleQueue[_Server | None] = queue.SimpleQueue()
        for _ in range(workers):
            self._servers.put(None)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="trimtab-forked")

    def map(self, calls: Sequence[Mapping[str, Any]]) -> list[Reply]:
        """One reply per call, in order; never raises because of a call."""
        return list(self._threads.map(self._call, calls))

    def _call(self, arguments: Mapping[str, Any]) -> Reply:
        server = self._servers.get()
        said = ""
        try:
            for _ in range(2):  # a server that is gone is the machine's fault: once more
                try:
                    server = server or _Server(*self._settings)
                    return server.call(arguments)
                except OSError as error:
                    if server is not None:
                        server.kill()
                    server, said = None, str(error)
            return Reply(error=said, is_fault=True)
        finally:
            self._servers.put(server)

    def close(self) -> None:
        """End all servers."""
        self._threads.shutdown(wait=True)
        while not self._servers.empty():
            server = self._servers.get_nowait()
            if server is not None:
                server.kill()


def serve(target: str, seconds: float, memory_mib: int) -> int:
    """Answer calls, one JSON line each, until stdin ends."""
    name, _, attribute = target.partition(":")
    module = importlib.import_module(name)
    function = getattr(module, attribute)
    getattr(module, "warm_up", lambda: None)()
    replies = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 1)
    replies.write(b"ready\n")
    replies.flush()
    for line in sys.stdin.buffer:
        reply = _attempt(function, json.loads(line), seconds, memory_mib)
        replies.write(json.dumps(reply).encode() + b"\n")
        replies.flush()
    return 0


def _attempt(function: Any, arguments: Mapping[str, Any], seconds: float, memory_mib: int) -> dict[str, Any]:
    answer, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            say = _isolate(say)
            _limit(seconds, memory_mib)
            said = {"value": function(**arguments)}
        except BaseException as error:
            said = {"error": f"{type(error).__name__}: {error}"[:300]}
        try:
            os.write(say, json.dumps(said).encode()[:_CHUNK])
        finally:
            os._exit(0)
    os.close(say)
    ready = bool(select.select([answer], [], [], seconds)[0])
    text = os.read(answer, _CHUNK) if ready else b""
    os.close(answer)
    for group in (-pid, pid):
        try:
            os.kill(group, signal.SIGKILL)
        except OSError:
            continue
    os.waitpid(pid, 0)
    if not ready:
        return {"error": "timeout"}
    try:
        found = json.loads(text)
    except ValueError:
        return {"error": "crash"}
    return found if isinstance(found, dict) and set(found) <= {"value", "error"} else {"error": "crash"}


def _isolate(say: int) -> int:
    """Keep one descriptor, so that a child can neither read the next call nor answer in the server's name."""
    os.dup2(say, 3)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    os.closerange(4, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    return 3


def _limit(seconds: float, memory_mib: int) -> None:
    """No files written, no programs or sockets, bounded memory and time."""
    cpu = int(seconds) + 1
    for name, value in (
        ("RLIMIT_AS", memory_mib * 2**20),
        ("RLIMIT_CPU", cpu),
        ("RLIMIT_FSIZE", 0),
        ("RLIMIT_NPROC", 0),
        ("RLIMIT_CORE", 0),
    ):
        number = getattr(resource, name)
        hard = resource.getrlimit(number)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(number, (value, value))
    load_filter(seccomp_filter(allows_programs=False))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


if __name__ == "__main__":
    raise SystemExit(serve(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))
