"""Read rows from JSON lines, JSON, Parquet, CSV, a directory of them, or a hub name, with their places."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

from trimtab.data.arrow_values import plain, read_parquet
from trimtab.data.text_files import COMPRESSED, kind_of, read_csv, read_json, read_json_lines
from trimtab.errors import DataError

_Reader = Callable[[Path], Iterator[tuple[str, Any]]]
_READERS: dict[str, _Reader] = {
    ".jsonl": read_json_lines,
    ".json": read_json,
    ".parquet": read_parquet,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".ndjson": read_json_lines,
}
SUFFIXES = tuple(_READERS)
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

    ``path`` is a file with one of ``SUFFIXES`` (text also compressed: ``rows.jsonl.gz``), a directory of such
    files (read in the order of their names), or a hub data set ``org/name`` or ``org/name:split`` (package
    `datasets`, split ``train``).

    Raises:
        DataError: the file is missing, empty, unreadable, or a row is not an object or a string.
    """
    source = Path(path)
    if source.is_dir():
        rows = _directory(source)
    elif source.is_file():
        rows = _file(source)
    elif _reader_of(source) is None and _HUB_NAME.fullmatch(str(path)) and not source.parent.is_dir():
        rows = _hub(str(path))
    else:
        # Names alone are compared: in one long directory all paths look alike.
        beside = source.parent.iterdir() if source.parent.is_dir() else ()
        names = [file.name for file in beside if file.is_dir() or _reader_of(file) is not None]
        close = get_close_matches(source.name, [name for name in names if name[0] != "."], n=1)
        hint = f" (did you mean {str(source.parent / close[0])!r}?)" if close else ""
        raise DataError(
            f"There is no data at {path}{hint}: give a {', '.join(SUFFIXES)} file, a directory of them, "
            "or a hub data set such as org/name:train."
        )
    found = list(islice(rows, limit))
    if not found:
        raise DataError(f"{path} holds no rows: add at least one row or name another file.")
    return found


def _directory(source: Path) -> Iterator[Row]:
    files = sorted(file for file in source.iterdir() if _reader_of(file) is not None and file.is_file())
    if not files:
        raise DataError(f"The directory {source} holds no {', '.join(SUFFIXES)} file: name a file instead.")
    for file in files:
        yield from _file(file)


def _reader_of(source: Path) -> _Reader | None:
    """What reads a file of this name; None where nothing does."""
    suffix = source.with_suffix("").suffix if source.suffix in COMPRESSED else source.suffix
    if suffix == ".parquet" and suffix != source.suffix:
        return None  # Parquet is compressed inside
    return _READERS.get(suffix)


def _file(source: Path) -> Iterator[Row]:
    reader = _reader_of(source)
    if reader is None:
        raise DataError(
            f"{source} has the ending '{source.suffix}', which is not read: convert it to one of "
            f"{', '.join(SUFFIXES)} (text also as {', '.join(COMPRESSED)})."
        )
    try:
        for where, item in reader(source):
            yield _row(where, item)
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror or error}; check the file.") from None


def _row(where: str, item: Any) -> Row:
    if isinstance(item, str):
        return Row(where, {"prompt": item})
    if isinstance(item, dict) and item:
        return Row(where, item)
    shown = "an empty object" if item == {} else kind_of(item)
    raise DataError(f"{where}: a row must be a string or an object with columns, not {shown}; mend this row.")


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
        yield _row(f"{name} row {number}", {column: plain(value) for column, value in item.items()})
