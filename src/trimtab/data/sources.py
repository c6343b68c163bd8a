"""Read rows from JSONL, JSON, Parquet, a directory of them, or a hub name; say where each came from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

from trimtab.errors import DataError

SUFFIXES = (".jsonl", ".json", ".parquet")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.+\[\]:%-]+)?")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a data set: its columns, and where it stands (`FILE:LINE`), for error messages.

    A bare string, as in a JSON list of prompts, becomes the column ``prompt``.
    """

    where: str
    values: Mapping[str, Any]


def read_rows(path: str | Path, *, limit: int | None = None) -> list[Row]:
    """Return the rows of a data set, in order, at most ``limit`` of them.

    ``path`` is a .jsonl, .json or .parquet file, a directory of such files (read in the order of their
    names), or a hub data set ``org/name`` or ``org/name:split`` (package `datasets`, split ``train``).

    Raises:
        DataError: the file is missing, empty, unreadable, or a row is not an object or a string.
    """
    source = Path(path)
    if source.is_dir():
        rows = _directory(source)
    elif source.is_file():
        rows = _file(source)
    elif source.suffix not in SUFFIXES and _HUB_NAME.fullmatch(str(path)) and not source.parent.is_dir():
        rows = _hub(str(path))
    else:
        beside = [str(file) for file in source.parent.iterdir()] if source.parent.is_dir() else []
        close = get_close_matches(str(source), beside, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise DataError(
            f"There is no data at {path}{hint}: give a {', '.join(SUFFIXES)} file, a directory of them, "
            "or a hub data set such as org/name:train."
        )
    found = list(islice(rows, limit))
    if not found:
        raise DataError(f"{path} holds no rows: add at least one row or name another file.")
    return found


def _directory(source: Path) -> Iterator[Row]:
    files = sorted(file for file in source.iterdir() if file.suffix in SUFFIXES)
    if not files:
        raise DataError(f"The directory {source} holds no {', '.join(SUFFIXES)} file: name a file instead.")
    for file in files:
        yield from _file(file)


def _file(source: Path) -> Iterator[Row]:
    readers = {".jsonl": _jsonl, ".json": _json, ".parquet": _parquet}
    reader = readers.get(source.suffix)
    if reader is None:
        raise DataError(
            f"{source} has the ending '{source.suffix}', which is not read: "
            f"convert it to one of {', '.join(SUFFIXES)}."
        )
    try:
        yield from reader(source)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{source} is not UTF-8 text (byte {error.start}): save it as UTF-8 and try again."
        ) from None
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror or error}; check the file.") from None


def _jsonl(source: Path) -> Iterator[Row]:
    with source.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                where = f"{source}:{number}"
                yield _row(where, _parse(where, line, "write one JSON object per line"))


def _json(source: Path) -> Iterator[Row]:
    text = source.read_text(encoding="utf-8-sig")
    if not text.strip():
        return
    items = _parse(str(source), text, "use .jsonl if each line is an object of its own")
    if not isinstance(items, list):
        raise DataError(
            f"{source} must hold a JSON list of strings or of objects, not {_kind(items)}: put it into [ ]."
        )
    for number, item in enumerate(items, start=1):
        yield _row(f"{source} item {number}", item)


def _parse(where: str, text: str, fix: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise DataError(
            f"{where}: not valid JSON ({error.msg} at {line}column {error.colno}); {fix}."
        ) from None
    except (RecursionError, ValueError) as error:  # nested too deeply; an integer of thousands of digits
        raise DataError(f"{where}: not readable as JSON ({type(error).__name__}); mend this row.") from None


def _row(where: str, item: Any) -> Row:
    if isinstance(item, str):
        return Row(where, {"prompt": item})
    if isinstance(item, dict) and item:
        return Row(where, item)
    shown = "an empty object" if item == {} else _kind(item)
    raise DataError(f"{where}: a row must be a string or an object with columns, not {shown}; mend this row.")


def _kind(item: Any) -> str:
    names = {dict: "an object", list: "a list", bool: "a boolean", str: "a string", type(None): "null"}
    return names.get(type(item), "a number")


def _parquet(source: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(source) as file:
            for batch in file.iter_batches():
                for item in batch.to_pylist():
                    number += 1
                    yield _row(f"{source} row {number}", item)
    except pyarrow.ArrowException as error:
        first = str(error).splitlines()[0].rstrip(". ")
        raise DataError(f"{source} is not a readable Parquet file ({first}): write it again.") from None


def _hub(name: str) -> Iterator[Row]:
    repository, _, split = name.partition(":")
    try:
        import datasets  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        raise DataError(
            f"There is no file {name}, and to read it as a hub data set the package `datasets` is needed: "
            "correct the path or run `pip install datasets`."
        ) from None
    try:
        table = datasets.load_dataset(repository, split=split or "train")
    except Exception as error:  # the hub client raises many kinds; all of them mean: no data
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(". ")[:160]
        raise DataError(
            f"There is no file {name}, and it cannot be loaded as a hub data set ({reason}): "
            "correct the path, or check the name, the split and the network."
        ) from None
    for number, item in enumerate(table, start=1):
        yield _row(f"{name} row {number}", item)
