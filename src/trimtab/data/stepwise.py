"""Solutions whose steps are labelled: what a process reward model learns from (stepwise supervision)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab.data.columns import shaped_rows
from trimtab.data.mapping import Columns
from trimtab.data.messages import as_prompt, as_text
from trimtab.data.sources import Row
from trimtab.data.system import with_system
from trimtab.errors import DataError
from trimtab.types import Message

_COLUMNS = ("prompt", "completions", "labels")


@dataclass(frozen=True, slots=True)
class Stepwise:
    """One solution: the prompt, its steps in order, and of each step the probability that it is right."""

    prompt: tuple[Message, ...]
    steps: tuple[str, ...]
    labels: tuple[float, ...]  # 1 right, 0 wrong; a number between where the labeller is not certain
    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def first_error(self) -> int | None:
        """The number of the first step that is wrong (label below 0.5), from 0; None when all are right."""
        return next((number for number, label in enumerate(self.labels) if label < 0.5), None)


def load_stepwise(
    path: str | Path, *, columns: Columns | None = None, limit: int | None = None
) -> list[Stepwise]:
    """Return the solutions of a data set with the columns ``prompt``, ``completions`` and ``labels``.

    ``completions`` is a list of steps, ``labels`` a list of as many booleans or numbers from 0 to 1.

    Raises:
        DataError: the data set cannot be read, or a row is not usable; names the row and the fix.
    """
    _, rows = shaped_rows(path, "steps", limit, columns)
    return [stepwise_of(row) for row in rows]


def stepwise_of(row: Row) -> Stepwise:
    """Return the solution that a row holds; see :func:`load_stepwise` for the errors."""
    values, where = row.values, row.where
    steps = _items(values["completions"], where, "completions", "steps")
    labels = _items(values["labels"], where, "labels", "booleans or numbers from 0 to 1")
    if len(steps) != len(labels):
        raise DataError(
            f"{where}: 'completions' has {len(steps)} step(s) but 'labels' has {len(labels)}; "
            "give one label per step."
        )
    return Stepwise(
        prompt=with_system(as_prompt(values["prompt"], where), row),
        steps=tuple(as_text(step, where, f"completions[{n}]") for n, step in enumerate(steps)),
        labels=tuple(_label(label, f"{where}: 'labels[{n}]'") for n, label in enumerate(labels)),
        columns={name: value for name, value in values.items() if name not in _COLUMNS},
    )


def _items(value: Any, where: str, column: str, what: str) -> Sequence[Any]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise DataError(f"{where}: '{column}' must be a non-empty list of {what}; mend this row.")
    return value


def _label(value: Any, place: str) -> float:
    if isinstance(value, bool):
        return float(value)
    if not isinstance(value, (int, float)) or not math.isfinite(value) or not 0 <= value <= 1:
        raise DataError(f"{place} is {value!r:.40}, but must be true, false or from 0 to 1; mend it.")
    return float(value)
