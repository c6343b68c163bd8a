"""The cores of a shared machine: how many this process may use, and how its threads wait for each other.

Set before torch is loaded, since the runtimes of OpenMP read the environment once, when they are loaded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from math import ceil
from pathlib import Path

# What says how an idle thread waits: OpenMP's own word, GNU's, and that of Intel's and LLVM's runtimes.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
# Measured with two programs on two cores: GNU's default spins for milliseconds and leaves each a tenth of
# its speed. 2000 rounds leave each a half, and cost nothing alone; 0 costs 15 % alone.
_SPINS, _BLOCK_MILLISECONDS = "2000", "1"


def settle_environment(environment: MutableMapping[str, str] | None = None) -> None:
    """Let threads wait briefly, and use no more of them than a quota of the container lets run.

    Whatever the user has set stays. Child processes inherit both.
    """
    environment = os.environ if environment is None else environment
    if not any(name in environment for name in WAITING):
        environment["GOMP_SPINCOUNT"] = _SPINS
        environment["KMP_BLOCKTIME"] = _BLOCK_MILLISECONDS
    cores = usable_cores()
    if not any(name in environment for name in THREADS) and cores < allowed_cores():
        environment["OMP_NUM_THREADS"] = str(cores)


def one_thread(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker process beside the trainer, whose cores it must not fight for."""
    return {**environment, **dict.fromkeys(THREADS, "1")}


def share_of_cores(environment: Mapping[str, str], processes: int) -> dict[str, str]:
    """The environment of one of ``processes`` equals that have the machine to themselves.

    Whatever the user has set stays.
    """
    if any(name in environment for name in THREADS):
        return dict(environment)
    return {**environment, "OMP_NUM_THREADS": str(max(1, usable_cores() // processes))}


def allowed_cores() -> int:
    """Cores that the process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def usable_cores(root: Path = Path("/")) -> int:
    """Cores that the process may run on and that the quota of its control group allows; at least 1."""
    quota = _quota(root)
    allowed = allowed_cores()
    return allowed if quota is None else max(1, min(allowed, ceil(quota)))


def _quota(root: Path) -> float | None:
    """The smallest quota, in cores, of the process's control groups; None without one."""
    found: list[float] = []
    for folder in _groups(root):
        try:
            if (file := folder / "cpu.max").is_file():
                most, period = file.read_text().split()
            else:
                most, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            if most.strip() != "max" and int(most) > 0 and int(period) > 0:
                found.append(int(most) / int(period))
        except (OSError, ValueError):
            continue
    return min(found, default=None)


def _groups(root: Path) -> list[Path]:
    """Folders of the process's control groups for processor time, with those above them, of both versions."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    folders: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2) if line.count(":") >= 2 else ("", "-", "")
        mounts = {"": ("sys/fs/cgroup",)}.get(controllers, ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct"))
        if controllers and "cpu" not in controllers.split(","):
            continue
        for mount in mounts:
            top = root / mount
            folder = top / path.lstrip("/")
            folders += [folder, *(parent for parent in folder.parents if top in (parent, *parent.parents))]
    return folders
