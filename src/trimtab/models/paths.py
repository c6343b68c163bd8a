"""From the name of a model in a recipe to a directory with its files."""

from __future__ import annotations

import os
import re
from pathlib import Path

from trimtab.errors import ModelError, nearest
from trimtab.models.builtin import PREFIX, builtin_path

MODELS_FOLDER = Path("models")  # where `trimtab models get` saves, in the working directory
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.py"]


def resolve_model_path(name: str | os.PathLike[str]) -> str:
    """Return the directory of a model.

    ``name`` is ``builtin:NAME``, an existing directory, the short name of a folder in ``./models``, or a hub
    name, which is fetched (or found in the hub's cache).

    Raises:
        ModelError: nothing of that name here, and the hub does not have it or cannot be reached.
    """
    text = os.fspath(name)
    if text.startswith(PREFIX):
        return str(builtin_path(text.removeprefix(PREFIX)))
    for path in (Path(text).expanduser(), MODELS_FOLDER / text):
        if (path / "config.json").is_file():
            return str(path)
    path = Path(text).expanduser()
    if path.is_dir():
        raise ModelError(f"{text} is not a model directory: it has no config.json; point model.path at one")
    looks_local = not _HUB_NAME.fullmatch(text) or ("/" in text and path.parent.is_dir())
    if looks_local:
        raise ModelError(f"there is no model directory {text}{_neighbours(path)}; fix model.path")
    return _from_hub(text)


def _neighbours(path: Path) -> str:
    folders = [str(p) for p in path.parent.glob("*") if p.is_dir()] if path.parent.is_dir() else []
    return nearest(str(path), folders)


def _from_hub(name: str) -> str:
    from huggingface_hub import snapshot_download

    try:
        return str(snapshot_download(name, allow_patterns=_HUB_FILES))
    except Exception as error:
        reason = type(error).__name__
        raise ModelError(
            f"model '{name}' is neither a directory nor in ./models, and the hub did not give it ({reason}); "
            f"check the name, go online once, or run `trimtab models get {name.rsplit('/', 1)[-1].lower()}`"
        ) from error
