"""How many cores this process may use, and how its threads wait for work: said before torch is loaded.

OpenMP's threads spin while they wait. On a machine of one's own that costs nothing; two programs on the same
cores take them from each other that way, and both run 4 to 20 times slower instead of 2. So threads fall asleep
soon here, unless the user has said how they shall wait.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path

# Who has set one of these has decided how threads wait.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
# libgomp counts turns of a loop: 2,000 are some ten microseconds, more than a step's gaps between operators.
# Intel's and LLVM's runtimes count milliseconds, 200 of them unless told otherwise.
_SHORT = {"GOMP_SPINCOUNT": "2000", "KMP_BLOCKTIME": "1"}
_COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_CGROUP = Path("/sys/fs/cgroup")


def share_cores() -> None:
    """Set how OpenMP's threads wait, and their number where a container may use fewer cores than it sees.

    What the environment says already stays. Once torch is loaded nothing is done: it has read the settings.
    """
    if "torch" in sys.modules:
        return
    os.environ.update(settings(os.environ, usable_cores(), visible_cores()))


def settings(environment: Mapping[str, str], usable: int, visible: int) -> dict[str, str]:
    """What is to be set in an environment for ``usable`` cores of ``visible`` ones."""
    found = {} if any(name in environment for name in WAITING) else dict(_SHORT)
    if usable < visible and "OMP_NUM_THREADS" not in environment:
        found["OMP_NUM_THREADS"] = str(usable)
    return found


def one_thread(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for a worker beside the trainer: one thread for each library that would take them all.

    Also where the user gave the trainer more of them: that number was meant for the trainer.
    """
    return {**environment, **dict.fromkeys(_COUNTS, "1"), **settings(environment, 1, 1)}


def visible_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_cores(root: Path = _CGROUP) -> int:
    """Cores whose time this process may use: those it may run on, within the container's quota."""
    quota = _quota(root)
    return visible_cores() if quota is None else max(1, min(visible_cores(), math.ceil(quota)))


def _quota(root: Path) -> float | None:
    """CPU seconds per second that the container may use; None without a limit."""
    try:
        if (root / "cpu.max").exists():
            quota, period = (root / "cpu.max").read_text().split()[:2]
        else:
            quota, period = (
                (root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
            )
        return float(quota) / float(period) if quota.strip() not in ("max", "-1") else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
