"""Samples as JSON for another process: values that JSON does not know are marked, nothing is pickled."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from trimtab.errors import RewardError
from trimtab.types import Prompt, Sample

_MARK = "$trimtab"
_READ: dict[str, Callable[[Any], Any]] = {
    "tuple": lambda value: tuple(decode(item) for item in value),
    "set": lambda value: {decode(item) for item in value},
    "dict": lambda value: {decode(key): decode(item) for key, item in value},
    "bytes": base64.b64decode,
    "datetime": datetime.datetime.fromisoformat,
    "date": datetime.date.fromisoformat,
    "time": datetime.time.fromisoformat,
    "Decimal": Decimal,
}


def encode(value: Any) -> Any:
    """``value`` as JSON can hold it; arrays and tensors become lists.

    Raises:
        TypeError: it is of a type that has no such form.

    Example:
        >>> decode(encode({"a": (1, b"x")}))
        {'a': (1, b'x')}
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        if _MARK not in value and all(type(key) is str for key in value):
            return {key: encode(item) for key, item in value.items()}
        return _marked("dict", [[encode(key), encode(item)] for key, item in value.items()])
    if isinstance(value, list):
        return [encode(item) for item in value]
    if isinstance(value, tuple):
        return _marked("tuple", [encode(item) for item in value])
    if isinstance(value, (set, frozenset)):
        return _marked("set", [encode(item) for item in value])
    if isinstance(value, bytes):
        return _marked("bytes", base64.b64encode(value).decode())
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        kind = "datetime" if isinstance(value, datetime.datetime) else type(value).__name__
        return _marked(kind, value.isoformat())
    if isinstance(value, Decimal):
        return _marked("Decimal", str(value))
    if callable(to_list := getattr(value, "tolist", None)):
        return encode(to_list())
    raise TypeError(type(value).__name__)


def decode(value: Any) -> Any:
    """What ``encode`` was given."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if _MARK in value:
        return _READ[value[_MARK]](value["value"])
    return {key: decode(item) for key, item in value.items()}


def encode_samples(samples: Sequence[Sample], name: str) -> list[dict[str, Any]]:
    """Samples for the process of reward ``name``.

    Raises:
        RewardError: a column holds what cannot be sent.
    """
    return [
        {
            "id": sample.prompt.id,
            "messages": [dict(message) for message in sample.prompt.messages],
            "columns": {key: _column(key, value, name) for key, value in sample.prompt.columns.items()},
            "is_conversational": sample.prompt.is_conversational,
            "completion": sample.completion,
            "token_ids": [int(token) for token in sample.token_ids],
            "finish_reason": sample.finish_reason,
        }
        for sample in samples
    ]


def decode_samples(given: Sequence[Mapping[str, Any]]) -> list[Sample]:
    """What ``encode_samples`` was given."""
    return [
        Sample(
            Prompt(
                row["id"],
                tuple(row["messages"]),
                {key: decode(value) for key, value in row["columns"].items()},
                row["is_conversational"],
            ),
            row["completion"],
            tuple(row["token_ids"]),
            row["finish_reason"],
        )
        for row in given
    ]


def _column(column: str, value: Any, name: str) -> Any:
    try:
        return encode(value)
    except TypeError as error:
        raise RewardError(
            f"Reward {name}: the column '{column}' holds a {error}, which cannot be sent to the reward's own "
            "process: leave the column out, or give the reward the option isolate = false."
        ) from None


def _marked(kind: str, value: Any) -> dict[str, Any]:
    return {_MARK: kind, "value": value}
