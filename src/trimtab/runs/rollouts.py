"""Rollouts as Parquet: one file, holding one row group, per step.

A Parquet file cannot be read before its footer is written at its end, so a file that grows over the run
would be lost with the process. A file per step is whole or absent, costs a few kilobytes of footer, and lets
a rewind be a deletion.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab.runs.events import to_plain
from trimtab.runs.files import replace_file

# Every file has these columns, null where a row lacks them; further columns take the type of their values.
COLUMNS: dict[str, str] = {
    "step": "int64",
    "prompt_id": "string",
    "prompt": "string",
    "completion": "string",
    "finish_reason": "string",
    "reward": "float64",
    "parts": "string",
    "num_tokens": "int64",
    "advantage": "float64",
    "policy_version": "int64",
}
_CAST: dict[str, Any] = {"int64": int, "float64": float}


def write_rollout_file(path: Path, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows of one step; ``parts`` and other nested values become JSON text.

    A reward of None (abstained) stays null. A file that is already there is replaced.
    """
    import pyarrow
    import pyarrow.parquet

    extra = sorted({name for row in rows for name in row} - COLUMNS.keys())
    table = {}
    for name in (*COLUMNS, *extra):
        values = [step if name == "step" else row.get(name) for row in rows]
        kind = COLUMNS.get(name) or _kind(values)
        table[name] = pyarrow.array(
            [_cell(value, kind) for value in values], type=pyarrow.type_for_alias(kind)
        )
    replace_file(
        path,
        lambda partial: pyarrow.parquet.write_table(
            pyarrow.table(table), partial, compression="zstd", row_group_size=max(1, len(rows))
        ),
    )


def read_rollout_file(path: Path) -> list[dict[str, Any]]:
    """Return the rows of one file, ``parts`` as a dictionary again."""
    import pyarrow.parquet

    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    for row in rows:
        row["parts"] = json.loads(row["parts"]) if row.get("parts") else {}
    return rows


def _kind(values: Sequence[Any]) -> str:
    """The column type for values of an extra column: a number type only if all of them are that number."""
    present = [value for value in values if value is not None]
    for kind, types in (("bool", bool), ("int64", int), ("float64", (int, float))):
        if present and all(isinstance(v, types) and (kind == "bool") == isinstance(v, bool) for v in present):
            return kind
    return "string"


def _cell(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind in _CAST:
        return _CAST[kind](value)
    if kind == "bool":
        return value
    text = value if isinstance(value, str) else json.dumps(to_plain(value), ensure_ascii=False)
    return text.encode("utf-8", "replace").decode()  # a lone surrogate cannot be stored


def is_rollout_of(path: Path, first: int, last: float = math.inf) -> bool:
    """Whether ``path`` holds the rollouts of a step in first..last."""
    name = path.stem.removeprefix("step-")
    return path.suffix == ".parquet" and name.isdigit() and first <= int(name) <= last
