"""Where a run writes: places that can be made and written, and room on the disk."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path

from trimtab.config import Recipe, Stage
from trimtab.errors import ConfigError, TrimtabError
from trimtab.models.load import stored_parameters
from trimtab.models.paths import resolve_model_path

CHECKPOINT_BYTES = 12  # per trained parameter: the parameter, what makes it fp32, and two fp32 moments


def check_places(recipe: Recipe, stages: Collection[Stage]) -> None:
    """Every place that the stages write to can be made and written.

    Raises:
        ConfigError: one is a file, or lies in a directory that cannot be written.
    """
    paths = recipe.paths
    outputs = {"sft": paths.sft, "reward_model": paths.reward_model, "process_reward": paths.process_reward}
    outputs["rl"] = paths.policy
    for key, path in [(f"paths.{_KEY.get(s, s)}", outputs[s]) for s in stages if s in outputs] + [
        ("paths.run", paths.run),
    ]:
        if Path(path).exists() and not Path(path).is_dir():
            raise ConfigError(f"{key} = {path} is a file: choose another place, such as --output DIR.")
        _writable(key, Path(path))
    if Path(paths.summary).is_dir():
        raise ConfigError(f"paths.summary = {paths.summary} is a directory: name a file in it.")
    _writable("paths.summary", Path(paths.summary).parent)


_KEY = {"rl": "policy"}


def _writable(key: str, path: Path) -> None:
    place = _existing(path)
    if not place.is_dir():
        raise ConfigError(f"{key}: {place} is a file, so {path} cannot be made: choose another place.")
    try:
        with tempfile.TemporaryFile(dir=place):  # what os.access says is not true of every file system
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(
            f"{key}: {place} cannot be written ({reason}): choose another place with --output DIR."
        ) from None


def _existing(path: Path) -> Path:
    """The path, or the nearest directory above it that is there."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def check_disk(recipe: Recipe, stages: Collection[Stage]) -> None:
    """The disk holds the models that the stages save, and a checkpoint of each.

    Raises:
        ConfigError: it does not.
    """
    need = 0.0
    for stage in stages:
        if (start := _start_of(recipe, stage)) is None:
            continue
        try:
            parameters = stored_parameters(resolve_model_path(start))
        except TrimtabError:
            continue  # told in a line of its own
        is_adapter = recipe.model.lora is not None
        has_checkpoint = recipe.checkpoint.keep_last or bool(
            getattr(getattr(recipe, stage), "checkpoint_every", 0)
        )
        need += parameters * (4 if recipe.model.dtype == "float32" else 2)
        need += 0 if is_adapter or not has_checkpoint else parameters * CHECKPOINT_BYTES
    place = _existing(Path(recipe.paths.run))
    free = shutil.disk_usage(place).free
    if need > free:
        raise ConfigError(
            f"The disk of {place} has {free / 2**30:.1f} GiB left and this run writes about "
            f"{need / 2**30:.1f}: make room, write elsewhere with --output DIR, or set "
            "checkpoint.keep_last = false."
        )


def _start_of(recipe: Recipe, stage: Stage) -> str | None:
    """The model whose size a stage's output has; where SFT will make it, that of SFT's own start."""
    if stage == "eval":
        return None
    own: str | None = getattr(getattr(recipe, stage), "model", None)
    return own or (recipe.sft.model if recipe.sft else None) or recipe.model.path
