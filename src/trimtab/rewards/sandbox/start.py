"""The process that starts sandboxes, seen from the trainer: see ``launcher.py``.

An interpreter takes ten times as long to start as to fork, and a trainer that holds a model and threads must
not fork itself: one small process beside it does, for all of its sandboxes.
"""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.rewards.sandbox.launch import source_of

_POLL_SECONDS = 0.002
_ORDER_SECONDS = 20.0  # until the launcher must have answered


class Launcher:
    """One launcher and the socket to it.

    Raises:
        OSError: from each method, where the launcher is gone or does not answer.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(_ORDER_SECONDS)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", "-c", source_of("launcher.py")],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                close_fds=True,
                env={"PATH": os.environ.get("PATH", "/usr/bin:/bin")},
                cwd="/",
            )

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it can be given orders."""
        return self._process.poll() is None

    def start(self, specification: Mapping[str, Any], files: Sequence[int]) -> int:
        """Start a sandbox with ``files`` as its stdin, stdout and stderr; the number of its process."""
        return self._order({"start": specification}, files)

    def end(self, pid: int, number: int) -> bool:
        """Send a signal to a sandbox; whether it is gone, with all of its process group."""
        return self._order({"end": pid, "signal": number}, ()) == 1

    def _order(self, order: Mapping[str, Any], files: Sequence[int]) -> int:
        content = json.dumps(order).encode()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))] if files else []
        with self._lock:
            try:
                self._socket.sendmsg([content], rights)
                answer = self._socket.recv(64)
            except OSError:
                self._stop()  # an answer that comes late would be taken for the next one's
                raise
        if not answer:
            raise ConnectionResetError("the launcher of the sandboxes is gone")
        return int(answer)

    def _stop(self) -> None:
        self._socket.close()
        self._process.kill()
        self._process.wait()


class Started:
    """A process that the launcher started, with pipes to its stdin, stdout and stderr (descriptors here)."""

    def __init__(self, specification: Mapping[str, Any]) -> None:
        theirs, self.stdin = os.pipe()
        self.stdout, out = os.pipe()
        self.stderr, err = os.pipe()
        os.set_blocking(self.stdin, False)
        self._open = {self.stdin, self.stdout, self.stderr}
        self.is_gone = False
        try:
            self._launcher = launcher()
            self.pid = self._launcher.start(specification, (theirs, out, err))
        except BaseException:
            self.close(*self._open)
            raise
        finally:
            for file in (theirs, out, err):
                os.close(file)

    @property
    def has_launcher(self) -> bool:
        """Whether the launcher is still there; this process ends with it, which is no fault of a solution."""
        return self._launcher.is_alive

    def close(self, *files: int) -> None:
        """Close some of its pipes; one that is closed already stays so."""
        for file in files:
            if file in self._open:
                self._open.discard(file)
                os.close(file)

    def end(self, number: int, seconds: float) -> bool:
        """Signal it until it is gone, ``seconds`` at most; whether it is. It ends with its launcher."""
        end = time.monotonic() + seconds
        while not self.is_gone:
            try:
                self.is_gone = self._launcher.end(self.pid, number)
            except OSError:
                self.is_gone = True
            if not self.is_gone:
                if time.monotonic() >= end:
                    return False
                time.sleep(_POLL_SECONDS)
        return True

    def kill(self) -> None:
        """End it, its process group, and wait until they are gone."""
        self.end(signal.SIGKILL, float("inf"))


_launchers: dict[int, Launcher] = {}
_lock = threading.Lock()


def launcher() -> Launcher:
    """The launcher of this process, started now where it has none; a fork of this process gets its own."""
    with _lock:
        found = _launchers.get(os.getpid())
        if found is None or not found.is_alive:
            found = _launchers[os.getpid()] = Launcher()
        return found


def _forget() -> None:
    global _lock
    _lock = threading.Lock()  # whoever held it is not in this process


os.register_at_fork(after_in_child=_forget)
