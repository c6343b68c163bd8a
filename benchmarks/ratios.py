"""What is said of repeated timings: medians, paired ratios with a bootstrap interval, exponents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import numpy as np
from scipy import stats


def paired_ratio(slow: Sequence[float], fast: Sequence[float], seed: int = 0) -> dict[str, float]:
    """Median of ``slow[i] / fast[i]`` and its 95 % interval (percentile bootstrap over the pairs).

    With one pair there is no interval: ``low`` and ``high`` are that ratio.

    Example:
        >>> paired_ratio([6.0, 6.0, 6.0], [2.0, 2.0, 2.0])
        {'median': 3.0, 'low': 3.0, 'high': 3.0, 'pairs': 3}
    """
    ratios = np.array([a / b for a, b in zip(slow, fast, strict=True)])
    low = high = float(ratios[0])
    if len(set(ratios.tolist())) > 1:
        found = stats.bootstrap(
            (ratios,),
            np.median,
            method="percentile",
            n_resamples=5000,
            rng=np.random.default_rng(seed),
        ).confidence_interval
        low, high = float(found.low), float(found.high)
    return {"median": float(np.median(ratios)), "low": low, "high": high, "pairs": len(ratios)}


def exponent(sizes: Sequence[float], values: Sequence[float]) -> dict[str, float]:
    """The slope of log(value) against log(size), and its standard error: 1 is linear, 2 quadratic."""
    line = stats.linregress([math.log(s) for s in sizes], [math.log(v) for v in values])
    return {"exponent": float(line.slope), "error": float(line.stderr)}


def middle(values: Sequence[float]) -> float:
    """The median."""
    return float(median(values))
