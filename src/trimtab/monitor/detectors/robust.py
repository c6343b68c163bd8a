"""The statistics that the detectors share: small, over short windows, with no surprise from an outlier.

A window of ten has a breakdown point of five: up to four wild values do not move its median.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

SIGMA = 1.4826  # standard deviation of a normal distribution over its median absolute deviation (MAD)


def finite(values: Sequence[float]) -> list[float]:
    """The values that are neither NaN nor infinite, in order."""
    return [value for value in values if math.isfinite(value)]


def mean(values: Sequence[float]) -> float:
    """The mean, or NaN of nothing: every comparison with it is false, so nothing alarms."""
    return sum(values) / len(values) if values else math.nan


def median(values: Sequence[float]) -> float:
    """The median, or NaN of nothing."""
    size = len(values)
    if not size:
        return math.nan
    ordered = sorted(values)
    half = size // 2
    return ordered[half] if size % 2 else 0.5 * (ordered[half - 1] + ordered[half])


def spread(values: Sequence[float]) -> float:
    """Robust standard deviation: 1.4826 times the median distance from the median; NaN of nothing."""
    centre = median(values)
    return SIGMA * median([abs(value - centre) for value in values])


def noise(values: Sequence[float]) -> float:
    """Robust standard deviation from step to step, which a trend does not inflate; 0 for under two values.

    Differences of independent values have √2 times their standard deviation, hence the division.
    """
    if len(values) < 2:
        return 0.0
    steps = [abs(later - earlier) for earlier, later in pairwise(values)]
    return SIGMA / math.sqrt(2) * median(steps)


def squared_error(values: Sequence[float]) -> float:
    """Squared standard error of the mean; 0 for fewer than two values."""
    if len(values) < 2:
        return 0.0
    centre = mean(values)
    return sum((value - centre) ** 2 for value in values) / (len(values) - 1) / len(values)
