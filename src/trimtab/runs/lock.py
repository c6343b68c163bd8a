"""One process at a time writes a run directory: a lock of the operating system that dies with its process."""

from __future__ import annotations

import json
import os
import socket
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimtab.errors import DataError
from trimtab.runs.layout import RunDirectory

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


class RunLock:
    """The right of this process to write a run: from :func:`take_lock`, given back when it is forgotten.

    The file stays when the lock is gone: what is in it only says who held it last. ``fault`` says why nothing
    is locked, where the file system knows no locks; empty where it is.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.fault = ""
        self.path, self._close = path, weakref.finalize(self, os.close, descriptor)
        try:
            if fcntl is None:
                raise OSError("this system has no flock")
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(path)
            self._close()
            raise DataError(f"{_sentence(path, holder)}; wait for it, stop it, or write elsewhere.") from None
        except OSError as error:
            self.fault = (
                f"{path.parent} cannot be locked ({error.strerror or error}): nothing keeps a second process "
                f"from writing it, so start none there"
            )
        who = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(who).encode(), 0)

    def release(self) -> None:
        """Give the lock back; again does nothing."""
        self._close()


# Locks of this process by file: a second writer in it, such as that of a notebook cell run again, shares one.
_held: weakref.WeakValueDictionary[tuple[int, int], RunLock] = weakref.WeakValueDictionary()


def take_lock(root: Path) -> RunLock:
    """Lock the run directory ``root`` for this process; it is made where it is missing.

    Raises:
        DataError: another process holds it; the sentence names it.
        OSError: the directory cannot be written.
    """
    root.mkdir(parents=True, exist_ok=True)
    path = RunDirectory(root).lock
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    facts = os.fstat(descriptor)
    key = (facts.st_dev, facts.st_ino)
    if (held := _held.get(key)) is not None:
        os.close(descriptor)
        return held
    lock = _held[key] = RunLock(path, descriptor)
    return lock


def _holder(path: Path) -> Mapping[str, Any]:
    """Who holds the lock, as far as is written there."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _sentence(path: Path, holder: Mapping[str, Any]) -> str:
    who = f"Process {holder['pid']} on {holder.get('host')}" if "pid" in holder else "Another process"
    since = f" since {holder['since']}" if "since" in holder else ""
    return f"{who} has been writing the run directory {path.parent}{since}"


def _forget_in_child() -> None:
    """A forked child has the descriptors too; were it to outlive its parent, the lock would with it."""
    for lock in list(_held.values()):
        lock.release()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
