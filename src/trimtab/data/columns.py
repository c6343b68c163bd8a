"""Recognise a data set by its columns (R31, R33), after those that a recipe maps; say what is missing."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from trimtab.data.mapping import Columns, map_columns
from trimtab.data.shapes import NEEDED, SHAPES, Shape, propose_mapping, recognise
from trimtab.data.sources import Row, read_rows
from trimtab.errors import DataError, nearest

_NOUNS = {
    "prompts": "prompts",
    "pairs": "pairs for SFT",
    "preferences": "preference pairs",
    "steps": "labelled steps",
}


def shaped_rows(
    path: str | Path, use: str, limit: int | None = None, columns: Columns | None = None
) -> tuple[Shape, list[Row]]:
    """Return the shape of a data set that is to be used as one of ``uses``, and its rows, mapped.

    Raises:
        DataError: the columns fit no shape, the shape cannot be used so, a later row lacks a column, or a
            path of ``columns`` leads to nothing.
    """
    rows = map_columns(read_rows(path, limit=limit), columns, str(path))
    first = rows[0]
    shape = recognise(first.values, use, [name for name, to in (columns or {}).items() if to.strip()])
    if shape is None:
        unfit = recognise(first.values)
        raise DataError(_unknown(path, first, use) if unfit is None else _unfit(path, first, use, unfit))
    for row in rows:
        missing = [column for column in shape.columns if column not in row.values]
        if missing:
            raise DataError(
                f"{row.where}: the column '{missing[0]}' is missing, though the first row has the shape "
                f"{shape}{_close(missing[0], row.values)}; add it or remove the row."
            )
    return shape, rows


def variables_of(row: Row) -> dict[str, Any]:
    """Return what a row gives its chat template beside messages: ``tools`` and ``chat_template_kwargs``.

    Both may be the JSON text of what they hold.

    Raises:
        DataError: ``tools`` is no list of objects, or ``chat_template_kwargs`` no object.
    """
    found: dict[str, Any] = {}
    options = _decoded(row.values.get("chat_template_kwargs"))
    if options:
        if not isinstance(options, Mapping):
            raise DataError(f"{row.where}: 'chat_template_kwargs' must be an object of names; mend this row.")
        found.update(options)
    tools = _decoded(row.values.get("tools"))
    if tools:
        if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
            raise DataError(
                f"{row.where}: 'tools' must be a list of functions (JSON schema) or its JSON text; mend this "
                'row, or leave the column out with columns = { tools = "" }.'
            )
        found["tools"] = tools
    return found


def _decoded(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else None
    except (ValueError, RecursionError):
        return value


def _unfit(path: str | Path, row: Row, use: str, shape: Shape) -> str:
    hint = _hint(row, use)
    if not hint and use == "pairs" and "chosen" in shape.columns:
        completion = "messages" if shape.columns == ("chosen", "rejected") else "completion"
        hint = f'; to imitate the chosen answers, write columns = {{ {completion} = "chosen" }}'
    if not hint and use == "preferences" and "completion" in shape.columns:
        hint = " (chosen and rejected): give both, or a column `label` that is true or false"
    mapping = propose_mapping(row.values, use)
    wanted = f"; write which columns hold them: columns = {mapping}, or give" if mapping else ": give"
    hint = hint or f"{wanted} one of {_accepted(use)}"
    return f"{path} has the shape {shape}, which does not hold {_NOUNS[use]}{hint}."


def _unknown(path: str | Path, row: Row, use: str) -> str:
    found = ", ".join(list(row.values)[:12])
    mapping = propose_mapping(row.values, use) or f'{{ {NEEDED[use][0]} = "{next(iter(row.values))}" }}'
    return (
        f"{path} has the columns ({found}), which fit no shape of {_NOUNS[use]}{_hint(row, use)}; write "
        f"which columns hold them, such as columns = {mapping}; accepted without: {_accepted(use)}."
    )


def _hint(row: Row, use: str) -> str:
    """Say which column looks like a misspelt one that is missing, if one does."""
    wanted = {name for shape in SHAPES if use in shape.uses for name in shape.columns}
    strange = [name for name in row.values if name not in wanted and name not in NEEDED[use]]
    for name in strange:
        close = get_close_matches(name, sorted(wanted - set(row.values)), n=1, cutoff=0.7)
        if close:
            return f": rename '{name}' (did you mean '{close[0]}'?)"
    return ""


def _close(name: str, known: Collection[str]) -> str:
    guess = nearest(name, known)
    return guess if "did you mean" in guess else ""


def _accepted(use: str) -> str:
    shapes: Sequence[Shape] = [shape for shape in SHAPES if use in shape.uses and not shape.renames]
    return "; ".join(str(shape) for shape in shapes) + " (docs/data.md lists more)"
