"""Checkpoints that are whole or absent: safetensors and JSON in a directory that appears by one rename.

A state is a tree of dicts and lists with tensors, numbers, strings, booleans and None. Tensors go to
``tensors.safetensors``, the rest to ``state.json`` where ``{"tensor": key}`` marks their place.
``manifest.json`` has the SHA-256 of both, the name of the directory, and a checksum of itself; it has one
spelling only, so that no byte of it can change unseen.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trimtab.errors import CheckpointError
from trimtab.runs.faults import reach
from trimtab.runs.files import sync

_TENSORS, _STATE, _MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
_FILES = (_TENSORS, _STATE, _MANIFEST)
_NAME = re.compile(r"step-[0-9]+")


def save_checkpoint(
    directory: str | Path, state: Mapping[str, Any], keep: int = 2, kept: Collection[str] = ()
) -> Path:
    """Write ``state`` as ``directory`` and return it; older siblings beyond ``keep`` are removed.

    The parent directory holds one directory per checkpoint, named ``step-000010`` and so on; those named in
    ``kept`` stay whatever their age. Nothing is removed before the new one is on the disk.

    Raises:
        CheckpointError: it cannot be written (a full disk); the checkpoints before it are untouched.
    """
    target = Path(directory)
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        _write(temporary, target.name, state)
        _put(temporary, target)
    except (OSError, SafetensorError) as error:
        sweep(target.parent)  # what it took may be what is missing
        raise CheckpointError(
            f"The checkpoint {target} cannot be written ({_reason(error)}): make room on the disk; the "
            f"checkpoints before it are whole."
        ) from error
    prune(target.parent, keep, kept)
    return target


def load_checkpoint(directory: str | Path) -> dict[str, Any]:
    """Read a checkpoint back, checking every byte.

    Raises:
        CheckpointError: a file is missing, differs from the manifest, or is none of the checkpoint's.
    """
    source = Path(directory)
    try:
        digests = _read_manifest(source)
        for name, digest in digests.items():
            if _sha256(source / name) != digest:
                raise CheckpointError(f"{source / name} was changed after it was written: use an older one.")
        tensors = load_file(source / _TENSORS)
        tree = json.loads((source / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CheckpointError(
            f"The checkpoint {source} cannot be read ({_reason(error)}): use an older one."
        ) from None
    return dict(_join(tree, tensors))


def list_checkpoints(directory: str | Path) -> list[Path]:
    """The checkpoints in a directory, oldest first. Each was whole when it was given its name."""
    found = [path for path in Path(directory).glob("step-*") if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def prune(directory: str | Path, keep: int, kept: Collection[str] = ()) -> None:
    """Remove all but the newest ``keep`` checkpoints and those named in ``kept``."""
    for old in list_checkpoints(directory)[:-keep]:
        if old.name not in kept:
            remove_checkpoints(old)


def remove_checkpoints(directory: Path) -> None:
    """Remove a checkpoint, or a directory of them; renamed first, so that half of one is never in sight."""
    gone = directory.with_name(f".{directory.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    if directory.exists():
        directory.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def sweep(directory: str | Path) -> list[str]:
    """Remove what a killed process left half done in a directory of checkpoints; return the names.

    One that was about to be replaced comes back when the new one did not arrive.
    """
    found = []
    for path in sorted(Path(directory).glob(".step-*")):
        found.append(path.name)
        target = path.with_name(path.name.removeprefix(".").removesuffix(".old"))
        if path.suffix == ".old" and not target.exists():
            path.rename(target)
        else:
            shutil.rmtree(path, ignore_errors=True)
    return found


def _write(folder: Path, name: str, state: Mapping[str, Any]) -> None:
    """Fill ``folder`` with the files of a checkpoint called ``name`` and bring them to the disk."""
    tensors: dict[str, Tensor] = {}
    tree = _split(state, tensors, set(), "")
    reach("checkpoint_started")
    save_file(tensors, folder / _TENSORS)
    reach("checkpoint_after_tensors")
    (folder / _STATE).write_text(json.dumps(tree), encoding="utf-8")
    reach("checkpoint_after_state")
    digests = {file: _sha256(folder / file) for file in (_TENSORS, _STATE)}
    (folder / _MANIFEST).write_text(_manifest_text(name, digests), encoding="utf-8")
    reach("checkpoint_after_manifest")
    for file in (*(folder / one for one in _FILES), folder):
        sync(file)


def _put(temporary: Path, target: Path) -> None:
    """Give a finished directory its name; one of that name is kept until then (see ``sweep``)."""
    reach("checkpoint_before_rename")
    old = target.with_name(f".{target.name}.old")
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
        reach("checkpoint_between_renames")
    os.replace(temporary, target)
    reach("checkpoint_after_rename")
    sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _manifest_text(name: str, digests: Mapping[str, str]) -> str:
    body = {"checkpoint": name, "sha256": dict(digests)}
    checksum = hashlib.sha256(json.dumps(body).encode()).hexdigest()
    return json.dumps({**body, "checksum": checksum})


def _read_manifest(source: Path) -> dict[str, str]:
    """The digests of a checkpoint's files, after the manifest itself and the list of files were checked."""
    text = (source / _MANIFEST).read_text(encoding="utf-8")
    digests: dict[str, str] = json.loads(text)["sha256"]
    if set(digests) != {_TENSORS, _STATE} or text != _manifest_text(source.name, digests):
        raise CheckpointError(
            f"{source / _MANIFEST} was changed, or its directory renamed, after it was written: use an older "
            "one."
        )
    if extra := sorted({path.name for path in source.iterdir()} - set(_FILES)):
        raise CheckpointError(
            f"{source / extra[0]} is no file of the checkpoint: move it out, or use an older one."
        )
    return digests


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _split(node: Any, tensors: dict[str, Tensor], owners: set[int], path: str) -> Any:
    if isinstance(node, Tensor):
        tensor = node.detach().cpu().contiguous()
        memory = tensor.untyped_storage().data_ptr()
        # safetensors refuses shared memory (tied weights); copies of everything would double what is held.
        tensors[path] = tensor.clone() if memory in owners else tensor
        owners.add(memory)
        return {"tensor": path}
    if isinstance(node, Mapping):
        return {
            "dict": [[key, _split(value, tensors, owners, f"{path}/{key}")] for key, value in node.items()]
        }
    if isinstance(node, (list, tuple)):
        return {"list": [_split(value, tensors, owners, f"{path}/{i}") for i, value in enumerate(node)]}
    return {"value": node}


def _join(node: Any, tensors: Mapping[str, Tensor]) -> Any:
    if "tensor" in node:
        return tensors[node["tensor"]]
    if "dict" in node:
        return {key: _join(value, tensors) for key, value in node["dict"]}
    if "list" in node:
        return [_join(value, tensors) for value in node["list"]]
    return node["value"]


def rng_state() -> dict[str, Any]:
    """The global random states that libraries and rewards may draw from: torch, CUDA, NumPy, Python."""
    state: Any = np.random.get_state(legacy=True)
    kind, keys, position, has_gauss, gauss = state
    version, numbers, following = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": [str(kind), keys.tolist(), int(position), int(has_gauss), float(gauss)],
        "python": [version, list(numbers), following],
    }


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Take over what ``rng_state`` returned; on a machine with other GPUs their states stay as they are."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(list(state["cuda"]))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    version, numbers, following = state["python"]
    random.setstate((version, tuple(numbers), following))


def seed_everything(seed: int) -> None:
    """Seed the same global generators, as at the start of a stage."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
