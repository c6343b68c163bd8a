"""The manifest: what is needed to know, a year later, which software made this run."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("trimtab", "torch", "transformers", "safetensors", "pyarrow", "numpy")
_SECRET_FLAG = re.compile(r"^--?(?:.*[-_.])?(?:token|key|password|secret)$", re.IGNORECASE)


def build_manifest(recipe: Mapping[str, Any], facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Describe this process: versions, Python, platform, seed, commit, command line and start time (UTC).

    ``facts`` are entries that only the caller knows, such as the ``sandbox`` that code rewards run in.
    """
    return {
        "name": recipe.get("name"),
        "seed": recipe.get("seed"),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": hide_secrets(sys.argv),
        "versions": {name: package_version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": git_state(Path.cwd()),
        **(facts or {}),
    }


def package_version(name: str) -> str | None:
    """The version of an installed package, without importing it; None when it is not installed."""
    if name == "trimtab":  # importable from a checkout that was never installed
        from trimtab import __version__

        return __version__
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def git_state(directory: Path) -> dict[str, Any] | None:
    """Return ``{"commit", "has_changes"}`` of the repository around ``directory``, or None."""
    commit = _git(directory, "rev-parse", "HEAD")
    if not commit:
        return None
    return {"commit": commit, "has_changes": bool(_git(directory, "status", "--porcelain", "-uno"))}


def hide_secrets(arguments: Sequence[str]) -> list[str]:
    """Return a command line in which the values of ``--*token``, ``--*key`` and the like are ``***``."""
    shown: list[str] = []
    for argument in arguments:
        flag, equals, _ = argument.partition("=")
        if equals and _SECRET_FLAG.match(flag):
            shown.append(f"{flag}=***")
        elif shown and _SECRET_FLAG.match(shown[-1]) and not argument.startswith("--"):
            shown.append("***")
        else:
            shown.append(argument)
    return shown


def _git(directory: Path, *arguments: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", *arguments], cwd=directory, capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
