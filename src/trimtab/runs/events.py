"""The event: one line of ``events.jsonl``, and its way to JSON and back.

JSON has no NaN or infinity, and a run that goes bad must still leave a readable record: non-finite floats are
written as the strings "nan", "inf" and "-inf", and come back as floats in ``metrics`` events.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from os import PathLike, fspath
from typing import Any, Literal, get_args

EventKind = Literal[
    "stage_started",
    "stage_finished",
    "metrics",
    "alarm",
    "verdict",
    "action",
    "kl_changed",
    "constraint_changed",
    "prompts_refreshed",
    "checkpoint",
    "resumed",
    "restart",
    "warning",
    "evaluation",
    "sample",
    "stall",
    "out_of_memory",
    "note",
]
EVENT_KINDS: tuple[str, ...] = get_args(EventKind)

_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a run. ``time``: seconds since 1970.

    ``step`` counts from 1 in each stage; 0 is before the first step. A checkpoint of step N was taken right
    after it.

    Example:
        >>> Event(0.0, "rl", "metrics", 3, {"reward/mean": 0.5}).to_line()
        '{"time": 0.0, "stage": "rl", "kind": "metrics", "step": 3, "data": {"reward/mean": 0.5}}'
    """

    time: float
    stage: str
    kind: EventKind
    step: int
    data: Mapping[str, Any] = field(default_factory=dict)

    def to_line(self) -> str:
        """Return the event as one line of valid JSON, without the line break."""
        record = {
            "time": self.time,
            "stage": self.stage,
            "kind": self.kind,
            "step": self.step,
            "data": to_plain(self.data),
        }
        return json.dumps(record, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_line(cls, line: str | bytes) -> Event:
        """Return the event of one line.

        Raises:
            ValueError: the line is not JSON, or not an event.
        """
        record = json.loads(line)
        if not isinstance(record, dict) or set(record) != {"time", "stage", "kind", "step", "data"}:
            raise ValueError("not an event: expected the keys time, stage, kind, step and data")
        if not isinstance(record["data"], dict) or record["kind"] not in EVENT_KINDS:
            raise ValueError("not an event: data must be an object and kind a known one")
        if record["kind"] == "metrics":
            record["data"] = {name: from_plain(value) for name, value in record["data"].items()}
        return cls(**record)


def to_plain(value: Any) -> Any:
    """Return ``value`` as what JSON can hold: non-finite floats as strings, arrays as lists, paths as text.

    Raises:
        TypeError: the value, or something inside it, has no plain form.
    """
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (Sequence, AbstractSet)) and not isinstance(value, (bytes, bytearray)):
        return [to_plain(item) for item in value]
    if isinstance(value, PathLike):
        return fspath(value)
    if hasattr(value, "tolist"):  # arrays and tensors, without importing their libraries
        return to_plain(value.tolist())
    raise TypeError(f"an event cannot hold a {type(value).__name__}")


def from_plain(value: Any) -> Any:
    """Return the float that :func:`to_plain` wrote as a string; anything else as it is."""
    return _NON_FINITE.get(value, value) if isinstance(value, str) else value
