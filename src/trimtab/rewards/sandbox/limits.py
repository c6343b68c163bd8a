"""What one solution may use, and what the machine can hold it to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from trimtab.rewards.sandbox.leftovers import own_name

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one run: of a case where it says so, else of the whole run."""

    seconds_per_case: float = 6.0
    seconds: float = 30.0  # of all cases together
    memory_mib: int = 512
    processes: int = 32
    files: int = 64  # open descriptors per process
    disk_mib: int = 64  # of the private /tmp; also the longest file
    disk_files: int = 1000  # of the private folder of level 2
    output_bytes: int = _MIB  # of one case

    def resources(self, *, has_cgroup: bool) -> dict[str, int]:
        """The rlimits by name. Processes count per user, over all runs: the cgroup's limit is tighter."""
        cpu = int(self.seconds) + 1
        return {
            "RLIMIT_CPU": cpu,
            "RLIMIT_AS": 2 * self.memory_mib * _MIB,
            "RLIMIT_FSIZE": self.disk_mib * _MIB,
            "RLIMIT_NOFILE": self.files,
            "RLIMIT_NPROC": (16 if has_cgroup else 4) * self.processes,
            "RLIMIT_CORE": 0,
            "RLIMIT_STACK": 16 * _MIB,
        }


class ControlGroup:
    """A cgroup (v2, else v1) that holds one run to its memory and processes; empty where there is none."""

    def __init__(self, limits: Limits) -> None:
        self.folders: list[Path] = []
        name = own_name()
        for base, files in _hierarchies(limits):
            folder = base / name
            try:
                folder.mkdir()
                self.folders.append(folder)
                for file, value in files.items():
                    (folder / file).write_text(value)
            except OSError:
                self.remove()
                return

    @property
    def is_complete(self) -> bool:
        """Whether both memory and processes are bounded."""
        return bool(self.folders)

    def kill(self) -> None:
        """End every process that is still in it, however it hid."""
        import signal

        for folder in self.folders:
            if (folder / "cgroup.kill").exists():
                (folder / "cgroup.kill").write_text("1")
                continue
            for pid in _pids(folder):
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    continue

    def remove(self) -> bool:
        """Remove it; False while processes are left in it."""
        left = []
        for folder in self.folders:
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                left.append(folder)
        self.folders = left
        return not left


def _pids(folder: Path) -> list[int]:
    try:
        return [int(word) for word in (folder / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def _hierarchies(limits: Limits) -> list[tuple[Path, dict[str, str]]]:
    """Where a group may be made, and what is written into it; empty where none may be."""
    root = Path("/sys/fs/cgroup")
    memory, processes = str(limits.memory_mib * _MIB), str(limits.processes)
    if (root / "cgroup.controllers").exists():
        enabled = (root / "cgroup.subtree_control").read_text().split()
        if not {"memory", "pids"} <= set(enabled) or not os.access(root, os.W_OK):
            return []
        return [(root, {"memory.max": memory, "memory.swap.max": "0", "pids.max": processes})]
    first, second = root / "memory", root / "pids"
    if not (os.access(first, os.W_OK) and os.access(second, os.W_OK)):
        return []
    return [(first, {"memory.limit_in_bytes": memory}), (second, {"pids.max": processes})]
