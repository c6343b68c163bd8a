"""Diversity of two sets of completions, compared fairly.

Plain distinct-n falls with the number of n-grams, so a model that writes more looks more repetitive. Both
sets are therefore rarefied to the same number of n-grams m, that of the smaller set: the expected number of
different n-grams among m that are drawn without replacement, divided by m (Hurlbert 1971, for species
counts). It is exact, needs no random draw, and equals distinct-n for the smaller set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from math import exp, lgamma

Sequences = Iterable[Sequence[Hashable]]


def count_ngrams(sequences: Sequences, n: int) -> Counter[tuple[Hashable, ...]]:
    """How often each n-gram occurs in all sequences together."""
    return Counter(
        tuple(sequence[start : start + n]) for sequence in sequences for start in range(len(sequence) - n + 1)
    )


def rarefied_distinct(counts: Counter[tuple[Hashable, ...]], size: int) -> float:
    """Expected share of different n-grams among ``size`` drawn without replacement; 0 for none.

    Example:
        >>> round(rarefied_distinct(Counter({("a",): 2, ("b",): 2}), 2), 3)   # 4 of the 6 pairs hold both
        0.833
    """
    total = sum(counts.values())
    size = min(size, total)
    if size == 0:
        return 0.0
    by_count = Counter(counts.values())
    return sum(kinds * (1.0 - _missed(total, count, size)) for count, kinds in by_count.items()) / size


def compare_distinct(first: Sequences, second: Sequences, n: int = 2) -> tuple[float, float]:
    """Return distinct-n of both sets at the size of the smaller one, each in 0..1."""
    counts = count_ngrams(first, n), count_ngrams(second, n)
    size = min(sum(c.values()) for c in counts)
    return rarefied_distinct(counts[0], size), rarefied_distinct(counts[1], size)


def _missed(total: int, count: int, size: int) -> float:
    """Chance that none of ``count`` equal n-grams is among ``size`` drawn: C(N−c, m) / C(N, m)."""
    if total - count < size:
        return 0.0
    log = lgamma(total - count + 1) - lgamma(total - count - size + 1)
    return exp(log + lgamma(total - size + 1) - lgamma(total + 1))
