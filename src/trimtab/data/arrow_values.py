"""Values of Parquet and of hub data sets as plain data: text, numbers, lists, objects, as JSON has them."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

from trimtab.errors import DataError

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def read_parquet(source: Path) -> Iterator[tuple[str, Any]]:
    """Yield the rows of a Parquet file as plain data; see :func:`plain`.

    Raises:
        DataError: it is not a readable Parquet file.
    """
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(source) as file:
            for batch in file.iter_batches():
                columns = {name: _values(batch.column(i)) for i, name in enumerate(batch.schema.names)}
                for index in range(batch.num_rows):
                    number += 1
                    row = {name: plain(values[index]) for name, values in columns.items()}
                    yield f"{source} row {number}", row
    except pyarrow.ArrowException as error:
        first = str(error).splitlines()[0].rstrip(". ")
        raise DataError(f"{source} is not a readable Parquet file ({first}): write it again.") from None


def plain(value: Any) -> Any:
    """Return a value as JSON would hold it, so that a row is the same from Parquet as from JSON.

    Times become ISO 8601 text (with a zone in UTC), decimals and identifiers their exact text, bytes text
    where they are UTF-8. Keys of a struct that are null are left out: a column of structs has every key of
    every row, so a null there means that this row does not have it. What has no such form is kept.

    Example:
        >>> plain({"style": "rule", "ground_truth": Decimal("4.50"), "tools": None})
        {'style': 'rule', 'ground_truth': '4.50'}
    """
    if value is None or (isinstance(value, (bool, int, float, str)) and not isinstance(value, Enum)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        micros = value // datetime.timedelta(microseconds=1)
        return str(Decimal(micros) / _PER_SECOND["us"])
    if isinstance(value, (Decimal, UUID)):
        return str(value)
    if isinstance(value, (bytes, bytearray)):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return bytes(value)
    to_list = getattr(value, "tolist", None)  # arrays of numpy
    return plain(to_list()) if callable(to_list) else value


def _values(column: Any) -> list[Any]:
    if not _is_temporal(column.type):
        return list(column.to_pylist(maps_as_pydicts="lossy"))
    return [_scalar(value) for value in column]


def _is_temporal(kind: Any) -> bool:
    """Whether a time is somewhere in this type: as_py refuses nanoseconds and zones that it does not know."""
    import pyarrow.types as types

    if types.is_temporal(kind):
        return not types.is_date(kind)
    if types.is_dictionary(kind):
        return _is_temporal(kind.value_type)
    return any(_is_temporal(kind.field(index).type) for index in range(kind.num_fields))


def _scalar(value: Any) -> Any:
    """A scalar of any nesting as Python data, its times as text."""
    import pyarrow
    import pyarrow.types as types

    kind = value.type
    if not value.is_valid or not _is_temporal(kind):
        return value.as_py()
    if types.is_dictionary(kind):
        return _scalar(value.value)
    if types.is_struct(kind):
        return {kind.field(index).name: _scalar(value[index]) for index in range(kind.num_fields)}
    if types.is_map(kind):
        return {str(_scalar(pair[0])): _scalar(pair[1]) for pair in value.values}
    if types.is_nested(kind):
        return [_scalar(item) for item in value.values]
    count = int(value.cast(pyarrow.int32() if kind.bit_width == 32 else pyarrow.int64()).as_py())
    unit = getattr(kind, "unit", "us")
    if types.is_timestamp(kind):
        return _timestamp(count, unit, kind.tz is not None)
    seconds = Decimal(count) / _PER_SECOND[unit]
    return str(seconds) if types.is_duration(kind) else _time(count, unit)


def _timestamp(count: int, unit: str, has_zone: bool) -> str:
    seconds, rest = divmod(count, _PER_SECOND[unit])
    try:
        moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)
    except OverflowError:
        return f"{count} {unit} since 1970"
    return f"{moment.isoformat()}{_fraction(rest, unit)}{'+00:00' if has_zone else ''}"


def _time(count: int, unit: str) -> str:
    seconds, rest = divmod(count, _PER_SECOND[unit])
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{_fraction(rest, unit)}"


def _fraction(rest: int, unit: str) -> str:
    """Digits after the second: none, six where that is exact, else nine, as isoformat writes them."""
    if not rest:
        return ""
    nanos = rest * (_PER_SECOND["ns"] // _PER_SECOND[unit])
    return f".{nanos // 1000:06}" if nanos % 1000 == 0 else f".{nanos:09}"
