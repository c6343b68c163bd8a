"""Writing a model directory that plain transformers loads: whole, or not there at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimtab.errors import ModelError
from trimtab.models.lora import ADAPTER_FOLDER, has_adapter, merged_state, save_adapter
from trimtab.models.quiet import quiet
from trimtab.runs.faults import reach


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
        reach("after_model_rename")
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return target


def _flush(folder: Path) -> None:
    for file in (folder, *folder.rglob("*")):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _replace(new: Path, target: Path) -> None:
    if not target.exists():
        new.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent)) / "model"
    target.rename(old)
    reach("between_model_renames")
    new.rename(target)
    for entry in old.iterdir():
        if entry.is_dir() and entry.name != ADAPTER_FOLDER:
            entry.rename(target / entry.name)
    shutil.rmtree(old.parent)
