"""Level 2: what Landlock is told, a kernel's own sandbox for processes without any rights.

https://docs.kernel.org/userspace-api/landlock.html. Landlock restricts opening, making, removing and
executing files, and (newer kernels) TCP and signals. It restricts neither ``stat`` nor ``chmod``: the first
stays open at level 2, the second is closed by seccomp.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import sys
from collections.abc import Collection, Iterator
from functools import cache
from glob import glob
from pathlib import Path

_CREATE_RULESET, _VERSION = 444, 1
EXECUTE, WRITE, READ, LIST, REMOVE_FILE, MAKE_FILE, TRUNCATE = 1, 2, 4, 8, 1 << 5, 1 << 8, 1 << 14
_ON_FILES = EXECUTE | WRITE | READ | TRUNCATE  # the rights that a rule on a single file may have
# By ABI, what is new in it. 1: everything about files; 2: moving between folders; 3: truncating; 4: TCP;
# 5: ioctl on devices; 6: abstract sockets and signals.
_FILES = {1: (1 << 13) - 1, 2: 1 << 13, 3: TRUNCATE, 5: 1 << 15}
_NETWORK = {4: 0b11}
_SCOPES = {6: 0b11}
SCOPES_SIGNALS = 6
# Users that systemd hands out for a while and nobody owns files as.
_TRANSIENT_USERS = range(61184, 65520)
_numbers = itertools.count(os.getpid())


@cache
def landlock_abi() -> int:
    """The version that this kernel speaks; 0: none, or switched off."""
    try:
        found = ctypes.CDLL(None, use_errno=True).syscall(
            ctypes.c_long(_CREATE_RULESET), None, ctypes.c_long(0), ctypes.c_long(_VERSION)
        )
    except (OSError, AttributeError):
        return 0
    return max(0, int(found))


def handled(abi: int) -> tuple[int, int, int]:
    """The masks of all that this version can deny: files, network, scopes.

    Example:
        >>> handled(1), handled(6)
        ((8191, 0, 0), (65535, 3, 3))
    """
    tables = (_FILES, _NETWORK, _SCOPES)
    files, network, scopes = (sum(bits for since, bits in table.items() if since <= abi) for table in tables)
    return files, network, scopes


def transient_user() -> tuple[int, int]:
    """A uid and gid that no other sandbox of this process has now: its signals reach nobody else."""
    number = _TRANSIENT_USERS[next(_numbers) % len(_TRANSIENT_USERS)]
    return number, number


def grants(abi: int, folder: str, prefix: Path, shown: Path) -> list[tuple[str, int]]:
    """What a solution may open: ``folder`` to write, Python and the system's libraries to read.

    Args:
        abi: the version; rights that it does not know are left out.
        folder: the private folder: plain files only, so that it is flat and can be counted.
        prefix: Python's installation.
        shown: where that is seen by the solution.
    """
    known = handled(abi)[0]
    rules = [(folder, (READ | WRITE | LIST | REMOVE_FILE | MAKE_FILE | TRUNCATE) & known)]
    rules += [("/dev/null", READ | WRITE), ("/dev/zero", READ), ("/dev/urandom", READ)]
    return [*rules, *_readable_files(prefix, shown)]


@cache
def _readable_files(prefix: Path, shown: Path) -> tuple[tuple[str, int], ...]:
    version = f"python3.{sys.version_info.minor}"
    roots = [prefix / "bin" / version, prefix / "lib" / version, prefix / "lib64" / version]
    found = [*glob(f"{prefix}/lib*/libpython*"), *glob("/lib/ld-*"), "/lib64", "/usr/lib64"]
    found += [*glob("/lib/*-linux-*"), *glob("/usr/lib/*-linux-*")]
    found += ["/usr/share/zoneinfo", "/usr/lib/locale", "/etc/ld.so.cache"]
    real = dict.fromkeys(path.resolve() for path in [*roots, *map(Path, found)] if path.exists())
    hidden = {path.resolve() for path in package_folders(prefix)}
    rules = [rule for root in real for rule in readable(root, hidden)]
    inside = [(os.path.relpath(path, prefix), path, access) for path, access in rules]
    return tuple((path if to.startswith("..") else str(shown / to), access) for to, path, access in inside)


def readable(root: Path, hidden: Collection[Path]) -> Iterator[tuple[str, int]]:
    """Rules that let everything below ``root`` be read but ``hidden``, whose names can still be listed."""
    if root in hidden:
        return
    if not root.is_dir():
        yield str(root), (EXECUTE | READ) & _ON_FILES
    elif not any(root in path.parents for path in hidden):
        yield str(root), EXECUTE | READ | LIST
    else:
        yield str(root), LIST
        for child in sorted(root.iterdir()):
            if not child.is_symlink():  # what it points to has a rule of its own, or none
                yield from readable(child, hidden)


def package_folders(prefix: Path) -> list[Path]:
    """Where installed packages are: no solution is meant to see which there are.

    What stands there is code that a solution could load, and tells what the machine is used for.
    """
    places = [prefix / "lib", prefix / "lib64", *map(Path, ("/usr/lib", "/usr/lib64"))]
    places += [Path("/usr/local/lib"), Path("/usr/local/lib64")]
    names = ("site-packages", "dist-packages")
    found = [Path(path) for place in places for name in names for path in glob(f"{place}/python3*/{name}")]
    return list(dict.fromkeys(path for path in found if path.is_dir()))
