"""Columns under other names: ``columns = { prompt = "question", answer = "reward_model.ground_truth" }``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from trimtab.data.sources import Row
from trimtab.errors import DataError

Columns = Mapping[str, str]
_MISSING = object()
_SHOWN = 12
# Names that are read as parts of a row; one that is nearly such a name is a slip of the pen.
_READ = ("prompt", "completion", "chosen", "rejected", "messages", "completions", "conversations")


def map_columns(rows: Sequence[Row], columns: Columns | None, source: str) -> list[Row]:
    """Return the rows with each name of ``columns`` holding what its path leads to.

    A path is the name of a column, or a dotted way through structs, lists (``choices.0.text``) and JSON in a
    text (``input_output.fn_name``); a name that has a dot itself is found too. The other columns stay. An
    empty path removes the column. Where a path leads to nothing in some rows only, the value there is null.

    Raises:
        DataError: a path leads to nothing in every row; names the nearest one that does not.

    Example:
        >>> row = Row("f:1", {"question": "1+1?", "gold": {"text": "2"}})
        >>> map_columns([row], {"prompt": "question", "answer": "gold.text"}, "f")[0].values["answer"]
        '2'
    """
    if not columns:
        return list(rows)
    mapped = [dict(row.values) for row in rows]
    for name, path in columns.items():
        meant = get_close_matches(name, _READ, n=1, cutoff=0.8)
        if meant and name not in _READ:
            raise DataError(
                f"{source}: columns names '{name}', which nothing reads; did you mean '{meant[0]}'?"
            )
        if not path.strip():
            for values in mapped:
                values.pop(name, None)
            continue
        found = [find(row.values, path.strip()) for row in rows]
        if all(value is _MISSING for value in found):
            raise DataError(_nowhere(name, path.strip(), rows[0], source))
        for values, value in zip(mapped, found, strict=True):
            values[name] = None if value is _MISSING else value
    return [Row(row.where, values) for row, values in zip(rows, mapped, strict=True)]


def find(value: Any, path: str) -> Any:
    """Return what ``path`` leads to from ``value``, or the mark of this module that nothing is there."""
    if isinstance(value, str):
        value = _from_json(value)
    if isinstance(value, Mapping):
        if path in value:
            return value[path]
        # The longest name first: a column may have a dot in its name.
        cuts = [index for index, char in enumerate(path) if char == "."]
        for cut in reversed(cuts):
            if path[:cut] in value:
                return find(value[path[:cut]], path[cut + 1 :])
        return _MISSING
    if isinstance(value, (list, tuple)):
        head, dot, rest = path.partition(".")
        index = int(head) if head.removeprefix("-").isdecimal() else None
        if index is None or not -len(value) <= index < len(value):
            return _MISSING
        return find(value[index], rest) if dot else value[index]
    return _MISSING


def paths_of(value: Any, prefix: str = "", depth: int = 3) -> Iterator[str]:
    """Yield the dotted paths of a row, down to ``depth`` names; of a list its first item."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        value = _from_json(value)
    if not depth or not isinstance(value, (Mapping, list, tuple)):
        return
    items = value.items() if isinstance(value, Mapping) else list(enumerate(value))[:1]
    for name, item in items:
        yield f"{prefix}{name}"
        yield from paths_of(item, f"{prefix}{name}.", depth - 1)


def _from_json(text: str) -> Any:
    try:
        return json.loads(text) if text.lstrip()[:1] in ("{", "[") else None
    except (ValueError, RecursionError):
        return None


def _nowhere(name: str, path: str, row: Row, source: str) -> str:
    known = list(paths_of(row.values))
    close = get_close_matches(path, known, n=1, cutoff=0.55) or [
        one for one in known if one.rpartition(".")[2] == path.rpartition(".")[2]
    ]
    guess = f" (did you mean '{close[0]}'?)" if close else f" (there are: {', '.join(known[:_SHOWN])})"
    return (
        f"{source}: columns names '{path}' for '{name}', but no row has it{guess}; write for example "
        f'columns = {{ {name} = "{(close or known or ["NAME"])[0]}" }}.'
    )
