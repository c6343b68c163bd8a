"""The process of an isolated reward, seen from the trainer: started, asked with a deadline, ended."""

from __future__ import annotations

import json
import os
import secrets
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from trimtab.cores import one_thread
from trimtab.rewards.sandbox.launcher import descendants
from trimtab.rewards.user_output import UserOutput

_MAX_REPLY = 1 << 26
_CHUNK = 1 << 16
_LOOK_SECONDS = 0.2  # how often it is looked whether the process still lives
_ENTRY = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); parent = int(sys.argv[2]); sys.argv[1:] = []; "
    "from trimtab.rewards.isolated_worker import main; main(parent)"
)


class WorkerGone(Exception):
    """The process is gone, or had to go; the message says why."""


class WorkerProcess:
    """One started process and its pipes."""

    def __init__(self, name: str) -> None:
        command = [sys.executable, "-c", _ENTRY, json.dumps(sys.path), str(os.getpid())]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=one_thread(os.environ),  # the trainer's threads need the cores
            start_new_session=True,
            bufsize=0,  # so that closing never waits for a writer
        )
        assert self.process.stderr is not None
        self.output = UserOutput(self.process.stderr, name)
        self._is_ended = False

    def ask(self, request: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Raises:
            WorkerGone: there is none in time, or no usable one; the process has been ended.
        """
        nonce = secrets.token_hex(16)
        self.output.next_batch()
        content = json.dumps({"nonce": nonce, **request}).encode() + b"\n"
        threading.Thread(target=self._send, args=(content,), daemon=True).start()
        try:
            line = self._line(time.monotonic() + seconds, seconds)
            try:
                said = json.loads(line)
            except (ValueError, RecursionError):
                said = None
            if not isinstance(said, dict) or said.get("nonce") != nonce:
                raise WorkerGone("it wrote into its own reply")
        except BaseException:
            self.end()
            raise
        return said

    def _send(self, content: bytes) -> None:
        assert self.process.stdin is not None
        left = memoryview(content)
        with suppress(OSError, ValueError):  # it has ended: whoever waits for the answer says so
            while left:
                left = left[os.write(self.process.stdin.fileno(), left) :]

    def _line(self, end: float, seconds: float) -> bytes:
        """One line of the answers."""
        assert self.process.stdout is not None
        file, parts, size = self.process.stdout.fileno(), list[bytes](), 0
        with selectors.DefaultSelector() as selector:
            selector.register(file, selectors.EVENT_READ)
            while not (parts and parts[-1].endswith(b"\n")):
                left = end - time.monotonic()
                if left <= 0:
                    raise WorkerGone(f"it did not answer within {seconds:g} s (timeout_s)")
                if not selector.select(min(left, _LOOK_SECONDS)):
                    if self.process.poll() is not None:
                        raise WorkerGone(self._cause())
                    continue
                part = os.read(file, _CHUNK)
                if not part:
                    raise WorkerGone(self._cause())
                parts.append(part)
                size += len(part)
                if size > _MAX_REPLY:
                    raise WorkerGone("it wrote into its own reply, more than 64 MiB")
        return b"".join(parts)

    def _cause(self) -> str:
        """How the process ended, and the last that it said."""
        try:
            code = self.process.wait(5.0)
        except subprocess.TimeoutExpired:
            return "it closed its reply"
        last = self.output.last_line()
        said = f" ({last})" if last else ""
        if code >= 0:
            return f"its process ended with exit code {code}{said}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"its process was killed by {name}{said}"

    def end(self) -> None:
        """Kill it and all that it started; what it starts meanwhile too."""
        if self._is_ended:
            return
        self._is_ended = True
        for _ in range(3):
            below = descendants(self.process.pid) if self.process.returncode is None else []
            for pid in below:
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            if not below:
                break
        with suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.output.close()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()
