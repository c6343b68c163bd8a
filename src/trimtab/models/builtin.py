"""Models that ship with the package, by name."""

from __future__ import annotations

from pathlib import Path

from trimtab.errors import ModelError, nearest

PREFIX = "builtin:"
ASSETS = Path(__file__).parent / "assets"
BUILTIN_MODELS: dict[str, str] = {"tiny-zh": "tiny_zh"}  # name → folder in assets/


def builtin_path(name: str) -> Path:
    """Return the folder of ``builtin:NAME`` (``name`` without the prefix).

    Raises:
        ModelError: no such built-in model, or its files are missing from this installation.
    """
    if name not in BUILTIN_MODELS:
        known = nearest(name, BUILTIN_MODELS)
        raise ModelError(f"no built-in model is called '{name}'{known}; fix model.path")
    path = ASSETS / BUILTIN_MODELS[name]
    if not (path / "config.json").is_file():
        raise ModelError(f"the files of {PREFIX}{name} are missing in {path}; reinstall trimtab")
    return path
