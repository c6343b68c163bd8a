"""What a stage reads besides its recipe, as fingerprints: so that a resumed run knows what has changed.

Rows count, not files: data that were written again with the same rows are the same. Of large weight files
blocks spread over each are read, and small files whole: two different models have the same fingerprint only
where they differ in fewer numbers than any training changes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trimtab.config import Recipe, RewardSpec, Stage
from trimtab.data.sources import read_rows
from trimtab.errors import TrimtabError
from trimtab.models.paths import resolve_model_path
from trimtab.pipeline.sources import TASK, policy_start, process_reward_path, reward_model_path, sft_model
from trimtab.rewards.user_file import is_user_file

Kind = Literal["data", "held out", "model", "reference", "reward", "template"]
_SMALL = 2**26  # bytes up to which a file is read whole
_BLOCK, _NUM_BLOCKS = 2**12, 256


@dataclass(frozen=True, slots=True)
class Input:
    """One thing that a stage reads: its key in the recipe, what it is, where it is, and its fingerprint."""

    key: str
    kind: Kind
    name: str
    digest: str

    def as_dict(self) -> dict[str, str]:
        """What the manifest holds of it."""
        return {"kind": self.kind, "name": self.name, "sha256": self.digest}


def stage_inputs(recipe: Recipe, stage: Stage) -> dict[str, Input]:
    """The inputs of a stage by key; what cannot be read is left out, since the stage says what is wrong."""
    found = {}
    for key, kind, name in _named(recipe, stage):
        try:
            digest = _digest(kind, name)
        except (TrimtabError, OSError):
            continue
        found[key] = Input(key, kind, name, digest)
    return found


def rl_models(recipe: Recipe) -> frozenset[Path]:
    """Where the models lie that the RL stage starts from and is held to (its reference)."""
    found = _named(recipe, "rl")
    return frozenset(Path(name) for _, kind, name in found if kind in ("model", "reference"))


def rows_digest(source: str) -> str:
    """The fingerprint of a data set: of its rows in order, or of the name of a task.

    Raises:
        DataError: it cannot be read.
    """
    if source.startswith(TASK):
        return hashlib.sha256(source.encode()).hexdigest()
    total = hashlib.sha256()
    for row in read_rows(source):
        text = json.dumps(row.values, sort_keys=True, default=repr)
        total.update(text.encode("utf-8", "surrogatepass") + b"\n")
    return total.hexdigest()


def model_digest(name: str) -> str:
    """The fingerprint of a model: its JSON and template files whole, its weights as :func:`file_digest`.

    Raises:
        ModelError: there is no such model.
    """
    folder, total = Path(resolve_model_path(name)), hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in (".json", ".jinja", ".safetensors", ".model", ".txt") and file.is_file():
            total.update(f"{file.name}\0{file_digest(file)}\n".encode())
    return total.hexdigest()


def file_digest(file: Path) -> str:
    """SHA-256 of a small file; of a large one, of its size, its ends and blocks spread over it."""
    size, total = file.stat().st_size, hashlib.sha256()
    with file.open("rb") as content:
        if size <= _SMALL:
            return hashlib.file_digest(content, "sha256").hexdigest()
        total.update(str(size).encode())
        for number in range(_NUM_BLOCKS + 1):
            content.seek(min(size - _BLOCK, number * size // _NUM_BLOCKS))
            total.update(content.read(_BLOCK))
    return total.hexdigest()


def _digest(kind: Kind, name: str) -> str:
    if kind in ("data", "held out"):
        return rows_digest(name)
    path = Path(name.rpartition(":")[0] if ".py:" in name else name).expanduser()
    return file_digest(path) if path.is_file() else model_digest(name)


def _named(recipe: Recipe, stage: Stage) -> Iterator[tuple[str, Kind, str]]:
    """Key, kind and name of everything that a stage reads."""
    if recipe.model.chat_template:
        yield "model.chat_template", "template", recipe.model.chat_template
    config = getattr(recipe, stage)
    if stage == "eval":
        return
    yield f"{stage}.data", "data", config.data
    if stage != "rl":
        start = config.model or (recipe.model.path if stage == "sft" else _there(lambda: sft_model(recipe)))
        yield from _if_named(f"{stage}.model" if config.model else "model.path", "model", start)
        return
    rl = recipe.rl
    assert rl is not None
    key = "rl.model" if rl.model else "paths.sft" if recipe.sft else "model.path"
    yield from _if_named(key, "model", _there(lambda: policy_start(recipe)))
    yield from _if_named("rl.reference", "reference", rl.reference)
    yield from _if_named("rl.hidden_data", "held out", rl.hidden_data)
    yield from _if_named("rl.reward_model", "reward", _there(lambda: reward_model_path(recipe)))
    yield from _if_named("paths.process_reward", "reward", _there(lambda: process_reward_path(recipe)))
    yield from _rewards("rl.rewards", rl.rewards)
    yield from _rewards("rl.hidden_rewards", rl.hidden_rewards)


def _if_named(key: str, kind: Kind, name: str | None) -> Iterator[tuple[str, Kind, str]]:
    if name:
        yield key, kind, name


def _there(find: Any) -> str | None:
    """The path that ``find`` returns, or None where an earlier stage has not made it yet."""
    try:
        path: str | None = find()
    except TrimtabError:
        return None
    return path


def _rewards(key: str, specs: Sequence[RewardSpec]) -> Iterator[tuple[str, Kind, str]]:
    """The files and models that rewards name: a user's file, and options that are a file or a model."""
    for number, spec in enumerate(specs):
        if is_user_file(spec.name):
            yield f"{key}[{number}]", "reward", spec.name
        for option, value in spec.options.items():
            is_path = isinstance(value, str) and len(value) < 4096 and "\n" not in value
            if is_path and Path(str(value)).expanduser().exists():
                yield f"{key}[{number}].options.{option}", "reward", str(value)


def as_manifest(inputs: Mapping[str, Input]) -> dict[str, dict[str, str]]:
    """The inputs of a stage as the manifest holds them."""
    return {key: found.as_dict() for key, found in inputs.items()}
