"""Which checkpoint is the best so far: a small file beside the checkpoints that names one of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from trimtab.models.checkpoint import list_checkpoints
from trimtab.runs.files import read_json, write_json

FILE = "best.json"


@dataclass(frozen=True, slots=True)
class Best:
    """The checkpoint with the best ``metric`` of those that were saved right after it was measured."""

    checkpoint: str
    metric: str
    value: float


def read_best(directory: str | Path, metric: str | None) -> Best | None:
    """The best checkpoint by ``metric``; None where none is named, it is gone, or the file is damaged."""
    content = read_json(Path(directory) / FILE)
    name, value = content.get("checkpoint"), content.get("value")
    if metric is None or content.get("metric") != metric or not isinstance(value, (int, float)):
        return None
    if name not in [path.name for path in list_checkpoints(directory)]:
        return None
    return Best(str(name), metric, float(value))


def is_better(value: float, best: Best | None, mode: Literal["max", "min"]) -> bool:
    """Whether ``value`` beats the best so far; a tie does not, and what is not finite never does."""
    if not math.isfinite(value):
        return False
    return best is None or (value > best.value if mode == "max" else value < best.value)


def write_best(directory: str | Path, best: Best) -> None:
    """Name the best checkpoint, in one step."""
    write_json(Path(directory) / FILE, asdict(best))


def measured(latest: Mapping[str, tuple[int, float]], metric: str | None, step: int) -> float | None:
    """The value of ``metric`` if it was measured after exactly ``step`` finished steps."""
    found = latest.get(metric) if metric else None
    return found[1] if found is not None and found[0] == step else None
