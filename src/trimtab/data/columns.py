"""Recognise a data set by its columns (R31): TRL's, verl's and Alpaca's shapes, and a JSON list of strings.

TRL's shapes: https://huggingface.co/docs/trl/dataset_formats. Each may be plain text or conversational
(lists of messages). verl's: a list of messages in `prompt`, with `data_source`, `reward_model`, `extra_info`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from trimtab.data.sources import Row, read_rows
from trimtab.errors import DataError, nearest


@dataclass(frozen=True, slots=True)
class Shape:
    """A named set of columns, and its uses: ``prompts``, ``pairs``, ``preferences``, ``steps``."""

    name: str
    columns: tuple[str, ...]
    uses: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(self.columns)})"


# The first shape whose columns are all there wins, so the fuller ones come first.
SHAPES: tuple[Shape, ...] = (
    Shape("stepwise supervision", ("prompt", "completions", "labels"), ("prompts", "steps")),
    Shape("unpaired preference", ("prompt", "completion", "label"), ("prompts", "pairs", "preferences")),
    Shape("preference", ("prompt", "chosen", "rejected"), ("prompts", "preferences")),
    Shape("verl", ("prompt", "data_source", "reward_model"), ("prompts",)),
    Shape("prompt-completion", ("prompt", "completion"), ("prompts", "pairs")),
    Shape("implicit preference", ("chosen", "rejected"), ("prompts", "preferences")),
    Shape("prompt-only", ("prompt",), ("prompts",)),
    Shape("Alpaca", ("instruction", "output"), ("prompts", "pairs")),
    Shape("messages", ("messages",), ("prompts", "pairs")),
    Shape("language modelling", ("text",), ("pairs",)),
)
_NOUNS = {
    "prompts": "prompts",
    "pairs": "pairs for SFT",
    "preferences": "preference pairs",
    "steps": "labelled steps",
}


def recognise(columns: Collection[str]) -> Shape | None:
    """Return the shape that these columns have, or None.

    Example:
        >>> recognise({"prompt", "chosen", "rejected", "source"}).name
        'preference'
    """
    return next((shape for shape in SHAPES if set(shape.columns) <= set(columns)), None)


def shaped_rows(path: str | Path, use: str, limit: int | None = None) -> tuple[Shape, list[Row]]:
    """Return the shape of a data set that is to be used as one of ``uses``.

    Raises:
        DataError: the columns fit no shape, the shape cannot be used so, or a later row lacks a column.
    """
    rows = read_rows(path, limit=limit)
    shape = recognise(rows[0].values)
    if shape is None:
        raise DataError(_unknown(path, rows[0], use))
    if use not in shape.uses:
        raise DataError(
            f"{path} has the shape {shape}, which does not hold {_NOUNS[use]}"
            f"{_hint(rows[0], use) or ': give one of ' + _accepted(use)}."
        )
    for row in rows:
        missing = [column for column in shape.columns if column not in row.values]
        if missing:
            raise DataError(
                f"{row.where}: the column '{missing[0]}' is missing, though the first row has the shape "
                f"{shape}{_close(missing[0], row.values)}; add it or remove the row."
            )
    return shape, rows


def _unknown(path: str | Path, row: Row, use: str) -> str:
    found = ", ".join(list(row.values)[:12])
    return (
        f"{path} has the columns ({found}), which fit no shape of {_NOUNS[use]}{_hint(row, use)}; "
        f"accepted: {_accepted(use)}."
    )


def _hint(row: Row, use: str) -> str:
    """Say which column looks like a misspelt one that is missing, if one does."""
    wanted = {name for shape in SHAPES if use in shape.uses for name in shape.columns}
    strange = [name for name in row.values if name not in wanted]
    for name in strange:
        close = get_close_matches(name, sorted(wanted - set(row.values)), n=1, cutoff=0.7)
        if close:
            return f": rename '{name}' (did you mean '{close[0]}'?)"
    return ""


def _close(name: str, known: Collection[str]) -> str:
    guess = nearest(name, known)
    return guess if "did you mean" in guess else ""


def _accepted(use: str) -> str:
    shapes: Sequence[Shape] = [shape for shape in SHAPES if use in shape.uses]
    return "; ".join(str(shape) for shape in shapes)
