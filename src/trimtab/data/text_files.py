"""Rows of text files with their lines: JSON lines, a JSON list and CSV, as they are or compressed."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from trimtab.errors import DataError

# What a text may begin with, and how it is read then. UTF-32 begins like UTF-16, so it comes first.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DAMAGED = (gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError)
Item = tuple[str, Any]  # where it stands, and what stands there


def _open_zstd(source: Path) -> BinaryIO:
    import pyarrow

    with pyarrow.input_stream(str(source), compression="zstd") as stream:
        return io.BytesIO(stream.read())  # its own lines cannot be gone through


def _open_plain(source: Path) -> BinaryIO:
    return source.open("rb")


_OPEN: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _open_zstd,
}
COMPRESSED = tuple(_OPEN)


def read_json_lines(source: Path) -> Iterator[Item]:
    """Yield every line's value; a file that is one JSON list is read as such.

    Raises:
        DataError: a line is not JSON or not text; names the line.
    """
    with _opened(source) as file:
        lines = _decoded(source, file)
        for number, line in lines:
            if line.lstrip().startswith("["):
                rest = "".join(text for _, text in lines)
                yield from _list_items(source, "\n" * (number - 1) + line + rest)
                return
            for piece in line.split("\r"):  # no JSON text holds a bare CR, but an old file ends lines with it
                where = f"{source}:{number}"
                if piece.strip():
                    yield where, _parse(where, piece, "write one JSON object per line")


def read_json(source: Path) -> Iterator[Item]:
    """Yield the items of a JSON list; a file that has one JSON object per line is read line by line.

    Raises:
        DataError: it is neither; names the line.
    """
    with _opened(source) as file:
        text = "".join(line for _, line in _decoded(source, file))
    if not text.strip():
        return
    first, _, rest = text.lstrip().partition("\n")
    if rest.strip() and first.strip().startswith("{") and _is_json(first):
        yield from read_json_lines(source)
    else:
        yield from _list_items(source, text)


def read_csv(source: Path) -> Iterator[Item]:
    """Yield the rows of a CSV or TSV file with a header, every value as text; an empty cell is null.

    Raises:
        DataError: a row has another number of cells than the header, or the header names a column twice.
    """
    csv.field_size_limit(2**31 - 1)
    with _opened(source) as file:
        lines = (line for _, line in _decoded(source, file))
        first = next(lines, "")
        # Spreadsheets write semicolons where a comma is the decimal point.
        delimiter = max(",;\t", key=first.count)
        reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
        header: list[str] = []
        try:
            for cells in reader:
                where = f"{source}:{reader.line_num}"
                if not header:
                    header = [cell.strip() for cell in cells]
                    if len(set(header)) < len(header):
                        raise DataError(f"{where}: the header names a column twice; rename one of them.")
                elif len(cells) == len(header):
                    yield where, {name: cell or None for name, cell in zip(header, cells, strict=True)}
                elif cells:
                    raise DataError(
                        f"{where}: {len(cells)} cells, but the header has {len(header)}; quote cells that "
                        "hold a comma, or mend this row."
                    )
        except csv.Error as error:
            raise DataError(f"{source}:{reader.line_num}: not valid CSV ({error}); mend this row.") from None


def _opened(source: Path) -> Any:
    return _OPEN.get(source.suffix, _open_plain)(source)


def _decoded(source: Path, file: Any) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers from 1, without byte-order mark; ends of lines become LF."""
    try:
        yield from _lines(source, iter(file))
    except _DAMAGED as error:
        raise DataError(f"{source} cannot be unpacked ({error}); compress it again.") from None


def _lines(source: Path, raw: Iterator[bytes]) -> Iterator[tuple[int, str]]:
    first = next(raw, b"")
    encoding = next((name for mark, name in _MARKS if first.startswith(mark)), "utf-8")
    if encoding in ("utf-16", "utf-32"):
        # A line feed is one byte of several here, so the lines are found after decoding.
        text = _text(source, 1, first + b"".join(raw), encoding)
        yield from enumerate(io.StringIO(text.replace("\r\n", "\n"), newline="\n"), start=1)
        return
    if b"\0" in first[:2]:
        raise DataError(
            f"{source} looks like UTF-16 without a byte-order mark: save it as UTF-8 and try again."
        )
    yield 1, _text(source, 1, first, encoding)
    for number, line in enumerate(raw, start=2):
        yield number, _text(source, number, line, "utf-8")


def _text(source: Path, number: int, line: bytes, encoding: str) -> str:
    try:
        text = line.decode(encoding)
    except UnicodeDecodeError as error:
        name = encoding.removesuffix("-sig").upper()
        raise DataError(
            f"{source}:{number} is not {name} text (byte {error.start} of the line): save it as UTF-8 and "
            "try again."
        ) from None
    return f"{text[:-2]}\n" if text.endswith("\r\n") else text


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _list_items(source: Path, text: str) -> Iterator[Item]:
    items = _parse(str(source), text, "use .jsonl if each line is an object of its own")
    if not isinstance(items, list):
        held = ""
        if isinstance(items, dict):
            lists = [name for name, value in items.items() if isinstance(value, list)]
            held = f" (its rows may be in {lists[0]!r})" if lists else ""
        raise DataError(
            f"{source} must hold a JSON list of strings or of objects, not {kind_of(items)}{held}: put it "
            "into [ ]."
        )
    for number, item in enumerate(items, start=1):
        yield f"{source} item {number}", item


def kind_of(item: Any) -> str:
    """What a JSON value is, for an error."""
    names = {dict: "an object", list: "a list", bool: "a boolean", str: "a string", type(None): "null"}
    return names.get(type(item), "a number")


class _Unreadable(ValueError):
    """JSON that Python would read, but not as it was meant."""


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Unreadable(
                f"the key '{key}' stands twice in one object, so one of its values would be lost"
            )
        found[key] = value
    return found


def _parse(where: str, text: str, fix: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        # A list is one text, so the line is told; a row of JSON lines has it in its name.
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        before = text[: error.pos].rstrip()
        is_comma = before.endswith(",") or text[error.pos : error.pos + 1] == ","
        hint = (
            "remove the comma that nothing follows"
            if is_comma and not text[error.pos :].strip(" ,]}\n")
            else fix
        )
        raise DataError(
            f"{where}: not valid JSON ({error.msg} at {line}column {error.colno}); {hint}."
        ) from None
    except _Unreadable as error:
        raise DataError(f"{where}: {error}; mend this row.") from None
    except (RecursionError, ValueError) as error:  # nested too deeply; an integer of thousands of digits
        raise DataError(f"{where}: not readable as JSON ({type(error).__name__}); mend this row.") from None
