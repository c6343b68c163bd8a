"""Writing a model directory that plain transformers loads: whole, or not there at all."""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimtab.errors import ModelError
from trimtab.models.generation import saved_settings
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

    The configs name every end token and the padding, so that the model stops everywhere where it stops here.
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
        with quiet(), saved_settings(model, tokenizer):
            is_adapted = has_adapter(model)
            _write_model(model, new, merged_state(model) if is_adapted else None)
            if is_adapted and keep_adapter:
                save_adapter(model, new / ADAPTER_FOLDER)
            _write_tokenizer(tokenizer, new)
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


def _write_model(model: Any, folder: Path, state: Mapping[str, Any] | None) -> None:
    """Write weights and configs; where transformers refuses, the weights are written without its help.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    try:
        model.save_pretrained(folder, **({} if state is None else {"state_dict": dict(state)}))
    except Exception as error:
        if is_disk_fault(error):
            raise
        why = " ".join(str(error).split())[:200]
        warnings.warn(
            f"transformers could not save this model ({why}); its weights are written all the same, "
            "without a generation config",
            stacklevel=3,
        )
        for file in folder.iterdir():
            file.unlink()
        write_weights(model.state_dict() if state is None else state, folder)
        (folder / "config.json").write_text(model.config.to_json_string(use_diff=False), encoding="utf-8")


def write_weights(state: Mapping[str, Any], folder: Path) -> None:
    """Write ``state`` as one safetensors file: contiguous copies, a tensor under two names once."""
    from safetensors.torch import save_file

    seen: set[tuple[Any, ...]] = set()
    tensors = {}
    for name, tensor in state.items():
        place = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if place not in seen or not tensor.numel():
            tensors[name] = tensor.detach().cpu().clone().contiguous()
        seen.add(place)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def is_disk_fault(error: BaseException) -> bool:
    """Whether an error is that of a disk: libraries written in Rust tell it in words only."""
    return isinstance(error, OSError) or "(os error" in str(error)


def _write_tokenizer(tokenizer: Any, folder: Path) -> None:
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:
        if is_disk_fault(error):
            raise
        warnings.warn(
            f"the tokenizer could not be saved ({' '.join(str(error).split())[:200]}); copy the files of the "
            "starting model's tokenizer beside the weights",
            stacklevel=3,
        )


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
