"""What a killed trainer left behind, by name: cgroups and private folders of processes that are no more."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import uuid
from functools import cache
from pathlib import Path

CGROUP_ROOTS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup/pids"))
_SHARED_MEMORY = Path("/dev/shm")
_NAME = re.compile(r"trimtab-(\d+)-(\d+)-[0-9a-f]{12}")


def own_name() -> str:
    """A name that says whose it is: the namespace that the process number belongs to, the number, a dice.

    Example:
        >>> _NAME.fullmatch(own_name()) is not None
        True
    """
    return f"trimtab-{_namespace()}-{os.getpid()}-{uuid.uuid4().hex[:12]}"


def scratch_root(*, has_cgroup: bool) -> Path:
    """Where private folders are made: in memory where a cgroup counts that, else among temporary files."""
    in_memory = has_cgroup and os.access(_SHARED_MEMORY, os.W_OK)
    return _SHARED_MEMORY if in_memory else Path(tempfile.gettempdir())


@cache
def sweep_once() -> None:
    """Remove the leftovers, once per process."""
    sweep([*CGROUP_ROOTS, _SHARED_MEMORY, Path(tempfile.gettempdir())])


def sweep(roots: list[Path]) -> int:
    """Remove what dead processes of this namespace left in ``roots``; how many there were.

    What cannot be removed (a cgroup in which something still runs, another user's folder) stays.
    """
    removed = 0
    for root in roots:
        for path in root.glob("trimtab-*"):
            found = _NAME.fullmatch(path.name)
            if found is None or int(found[1]) != _namespace() or _is_alive(int(found[2])):
                continue
            try:
                if root in CGROUP_ROOTS:
                    path.rmdir()
                else:
                    shutil.rmtree(path)
            except OSError:
                continue
            removed += 1
    return removed


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@cache
def _namespace() -> int:
    """The number of this process's pid namespace; process numbers of another one say nothing here."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0
