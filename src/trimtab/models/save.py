"""Writing a model directory that plain transformers loads: whole, or not there at all."""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimtab.errors import ModelError
from trimtab.models.lora import ADAPTER_FOLDER, has_adapter, merged_state, save_adapter
from trimtab.models.quiet import quiet
from trimtab.runs.faults import reach
from trimtab.runs.files import sync


def save_model(
    model: Any,
    tokenizer: Any,
    directory: str | os.PathLike[str],
    files: Mapping[str, Any] | None = None,
    *,
    keep_adapter: bool = False,
) -> Path:
    """Write model, tokenizer, chat template and extra JSON ``files`` (name → data) to ``directory``.

    A model with an adapter is written merged and not changed itself; ``keep_adapter`` also writes the adapter
    alone, into the folder ``adapter``. Everything is written beside the target first and renamed at the end.
    An earlier model's files there are replaced; other folders inside it (runs, checkpoints) are kept.

    Raises:
        ModelError: ``directory`` is a file, or an extra file would hide one of the model's.
    """
    target = Path(directory)
    if target.exists() and not target.is_dir():
        raise ModelError(f"cannot save a model to {target}: it is a file; choose another output directory")
    target.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        new.chmod(0o755)
        with quiet():
            merged = {"state_dict": merged_state(model)} if has_adapter(model) else {}
            model.save_pretrained(new, **merged)
            if merged and keep_adapter:
                save_adapter(model, new / ADAPTER_FOLDER)
            tokenizer.save_pretrained(new)
        for name, data in (files or {}).items():
            if (new / name).exists() or Path(name).name != name:
                raise ModelError(f"cannot save {name} beside the model in {target}; choose another file name")
            text = json.dumps(data, ensure_ascii=False, indent=2, allow_nan=False)
            (new / name).write_text(text + "\n", encoding="utf-8")
        reach("model_written")
        _flush(new)
        reach("before_model_rename")
        _replace(new, target)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return target


def sweep_models(directory: str | os.PathLike[str]) -> None:
    """Put right what a process that was killed while it saved to ``directory`` left beside it.

    An earlier model that was out of the way comes back when the new one did not arrive; its other folders
    come back in any case.
    """
    target = Path(directory)
    if not target.parent.is_dir():
        return
    form = re.compile(rf"\.{re.escape(target.name)}-(old-)?[a-z0-9_]{{8}}")
    for path in sorted(target.parent.glob(f".{glob.escape(target.name)}-*")):
        found = form.fullmatch(path.name)
        if found is None or not path.is_dir():
            continue
        if found[1] and (path / "model").is_dir():
            _bring_back(path / "model", target)
        shutil.rmtree(path, ignore_errors=True)


def _flush(folder: Path) -> None:
    for file in (folder, *folder.rglob("*")):
        sync(file)


def _replace(new: Path, target: Path) -> None:
    if not target.exists():
        new.rename(target)
        sync(target.parent)
        reach("after_model_rename")
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent)) / "model"
    target.rename(old)
    reach("between_model_renames")
    new.rename(target)
    sync(target.parent)
    reach("after_model_rename")
    _bring_back(old, target)
    shutil.rmtree(old.parent)


def _bring_back(old: Path, target: Path) -> None:
    """Move what is no part of a model from ``old`` to ``target``; without a target, all of it."""
    if not target.exists():
        old.rename(target)
        return
    for entry in old.iterdir():
        if entry.is_dir() and entry.name != ADAPTER_FOLDER and not (target / entry.name).exists():
            entry.rename(target / entry.name)
