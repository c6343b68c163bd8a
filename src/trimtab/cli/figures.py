"""Summaries as flat tables of figures, and tables as text."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any


def figures_of(tree: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return every number of a nested summary under its dotted name; booleans and texts are left out.

    Example:
        >>> figures_of({"win_rate": {"value": 0.7, "judge": "x"}, "kl": 0.1})
        {'win_rate.value': 0.7, 'kl': 0.1}
    """
    found: dict[str, float] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found |= figures_of(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found[f"{prefix}{name}"] = float(value)
    return found


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: bool = True) -> str:
    """Return rows as aligned columns: the first to the left, the others to the right (or left too)."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(width_of(cell) for cell in column) for column in columns]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(
            _pad(cell, width, left=i == 0 or not right)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def width_of(text: str) -> int:
    """Return how many terminal columns a text takes: Chinese characters take two."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _pad(cell: str, width: int, *, left: bool) -> str:
    space = " " * (width - width_of(cell))
    return cell + space if left else space + cell
