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


def repeated_share(sequence: Sequence[Hashable], n: int) -> float:
    """Share of the n-grams of one sequence that occurred in it before, in 0..1; 0 when there are none.

    Raises:
        ValueError: ``n`` is below 1.

    Example:
        >>> repeated_share("abab", 2)   # ab, ba, ab
        0.3333333333333333
    """
    _check_n("repeated_share", n)
    total = len(sequence) - n + 1
    return 1.0 - len(_ngrams(sequence, n)) / total if total > 0 else 0.0


def shared_shares(sequences: Sequence[Sequence[Hashable]], n: int) -> list[float]:
    """Of each sequence: the share of its different n-grams that another has too, averaged over the others.

    In 0..1. A relative of self-BLEU (Zhu et al. 2018) without lengths and clipping. It is not symmetric: a
    piece of a longer text shares all it has. A sequence shorter than ``n`` counts as one n-gram; an empty one
    shares everything, since it says nothing of its own.

    Raises:
        ValueError: fewer than two sequences, or ``n`` is below 1.

    Example:
        >>> shared_shares(["abc", "abd"], 2)   # ab of ab, bc; ab of ab, bd
        [0.5, 0.5]
    """
    _check_n("shared_shares", n)
    if len(sequences) < 2:
        raise ValueError(
            f"shared_shares: {len(sequences)} sequence has nothing to be compared with; give two"
        )
    sets = [_ngrams(sequence, n) or ({tuple(sequence)} if len(sequence) else set()) for sequence in sequences]
    shares = []
    for index, own in enumerate(sets):
        others = [other for place, other in enumerate(sets) if place != index]
        found = [len(own & other) / len(own) if own else 1.0 for other in others]
        shares.append(sum(found) / len(found))
    return shares


def _ngrams(sequence: Sequence[Hashable], n: int) -> set[tuple[Hashable, ...]]:
    return {tuple(sequence[start : start + n]) for start in range(len(sequence) - n + 1)}


def _check_n(function: str, n: int) -> None:
    if n < 1:
        raise ValueError(f"{function}: n = {n} must be at least 1")
