"""pass@k: the chance that at least one of k samples is right (Chen et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Unbiased estimate for one problem from n samples of which c are right: 1 − C(n−c, k) / C(n, k).

    Raises:
        ValueError: not 0 <= c <= n, or not 1 <= k <= n.

    Example:
        >>> pass_at_k(4, 1, 2)
        0.5
    """
    if not 0 <= num_correct <= num_samples:
        raise ValueError(f"pass_at_k: {num_correct} right of {num_samples} samples is not possible")
    if not 1 <= k <= num_samples:
        raise ValueError(f"pass_at_k: k = {k} needs 1 to {num_samples} samples")
    return 1.0 - comb(num_samples - num_correct, k) / comb(num_samples, k)


def mean_pass_at_k(groups: Sequence[Sequence[bool]], k: int) -> float:
    """Mean of :func:`pass_at_k` over problems, each given as which of its samples are right.

    Problems with fewer than ``k`` samples (where some abstained) are left out; 0 when none is left.
    """
    usable = [group for group in groups if len(group) >= k]
    return sum(pass_at_k(len(g), sum(g), k) for g in usable) / len(usable) if usable else 0.0
