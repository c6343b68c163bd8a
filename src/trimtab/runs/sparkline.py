"""A trend in a few characters."""

from __future__ import annotations

import math
from collections.abc import Sequence

_BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """Return the last ``width`` values as bars between their lowest and highest; ``·`` for non-finite ones.

    Example:
        >>> sparkline([0.0, 0.5, 1.0])
        '▁▅█'
    """
    shown = list(values)[-width:]
    finite = [value for value in shown if math.isfinite(value)]
    if not finite:
        return "·" * len(shown)
    low, span = min(finite), max(finite) - min(finite)
    return "".join(_bar(value, low, span) for value in shown)


def _bar(value: float, low: float, span: float) -> str:
    if not math.isfinite(value):
        return "·"
    share = (value - low) / span if span > 0 and math.isfinite(span) else 0.5
    return _BARS[min(len(_BARS) - 1, int(share * len(_BARS)))]
