"""Checkpoints that are whole or absent: safetensors and JSON in a directory that appears by one rename.

A state is a tree of dicts and lists with tensors, numbers, strings, booleans and None. Tensors go to
``tensors.safetensors``, the rest to ``state.json`` where ``{"tensor": key}`` marks their place.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from trimtab.errors import CheckpointError

_TENSORS, _STATE, _MANIFEST = "tensors.safetensors", "state.json", "manifest.json"


def save_checkpoint(
    directory: str | Path, state: Mapping[str, Any], keep: int = 2, kept: Collection[str] = ()
) -> Path:
    """Write ``state`` as ``directory`` and return it; older siblings beyond ``keep`` are removed.

    The parent directory holds one directory per checkpoint, named ``step-000010`` and so on; those named in
    ``kept`` stay whatever their age.
    """
    target = Path(directory)
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    tensors: dict[str, Tensor] = {}
    tree = _split(state, tensors, set(), "")
    save_file(tensors, temporary / _TENSORS)
    (temporary / _STATE).write_text(json.dumps(tree), encoding="utf-8")
    digests = {name: _sha256(temporary / name) for name in (_TENSORS, _STATE)}
    (temporary / _MANIFEST).write_text(json.dumps({"sha256": digests}), encoding="utf-8")
    for name in (_TENSORS, _STATE, _MANIFEST):
        _sync(temporary / name)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(temporary, target)
    _sync(target.parent)
    for old in list_checkpoints(target.parent)[:-keep]:
        if old.name not in kept:
            shutil.rmtree(old, ignore_errors=True)
    return target


def load_checkpoint(directory: str | Path) -> dict[str, Any]:
    """Read a checkpoint back, checking every byte.

    Raises:
        CheckpointError: a file is missing or differs from the manifest.
    """
    source = Path(directory)
    try:
        digests = json.loads((source / _MANIFEST).read_text(encoding="utf-8"))["sha256"]
        for name, digest in digests.items():
            if _sha256(source / name) != digest:
                raise CheckpointError(f"{source / name} was changed after it was written: use an older one.")
        tensors = load_file(source / _TENSORS)
        tree = json.loads((source / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"The checkpoint {source} cannot be read ({error}): use an older one."
        ) from None
    return dict(_join(tree, tensors))


def list_checkpoints(directory: str | Path) -> list[Path]:
    """The whole checkpoints in a directory, oldest first."""
    return sorted(path.parent for path in Path(directory).glob(f"step-*/{_MANIFEST}"))


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


def rng_state() -> dict[str, Tensor]:
    """The global random states that libraries may draw from."""
    return {"torch": torch.get_rng_state()}


def set_rng_state(state: Mapping[str, Tensor]) -> None:
    """Take over what ``rng_state`` returned."""
    torch.set_rng_state(state["torch"])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
