"""Statistics of sampled sequences; no torch."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence


def distinct_n(sequences: Iterable[Sequence[Hashable]], n: int) -> float:
    """Share of different n-grams among all of the corpus, in 0..1 (Li et al. 2016); 0 when there are none.

    ``sequences`` are lists of token ids (or of characters or words). The share is of the whole corpus, so
    many copies of one varied text score low; it falls with corpus size: compare only corpora of equal size.

    Raises:
        ValueError: ``n`` is below 1.

    Example:
        >>> distinct_n([[1, 2, 1, 2]], 2)
        0.6666666666666666
    """
    if n < 1:
        raise ValueError(f"distinct_n: n = {n} must be at least 1")
    total, different = 0, set()
    for sequence in sequences:
        for start in range(len(sequence) - n + 1):
            different.add(tuple(sequence[start : start + n]))
            total += 1
    return len(different) / total if total else 0.0
