"""Rows that a model can read: what is beyond its context is left out, and said."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from trimtab.models.context import context_length
from trimtab.trainers.stage import Stage

T = TypeVar("T")
_END = 64  # tokens after an answer, with room to spare


def most_tokens(texts: Iterable[str], max_length: int) -> int:
    """An upper bound of the tokens of a row with this answer whose prompt is cut at ``max_length``.

    No tokenizer makes more tokens than bytes, except where it rewrites letters: twice is safe.
    """
    return max(max_length, sum(2 * len(text.encode()) + _END for text in texts))


def readable(
    rows: Sequence[T],
    model: Any,
    bound_of: Callable[[T], int],
    length_of: Callable[[T], int],
    stage: Stage,
) -> list[T]:
    """Return the rows of at most the model's context in tokens; the others are an event and a note.

    Their answers alone are too long: a prompt was cut already. ``bound_of`` is quick and never less than
    ``length_of``, which counts a row's tokens.
    """
    limit = context_length(model)
    if limit is None:
        return list(rows)
    kept = [row for row in rows if bound_of(row) <= limit or length_of(row) <= limit]
    if len(kept) < len(rows):
        text = (
            f"{len(rows) - len(kept)} of {len(rows)} rows have an answer that is longer than the {limit} "
            "tokens that the model reads: left out"
        )
        stage.tell_warning(text)
    return kept
