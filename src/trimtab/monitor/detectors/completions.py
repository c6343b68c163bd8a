"""Alarms about the completions: their length and their variety."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trimtab.monitor.detectors.robust import finite, mean, median
from trimtab.monitor.signals import Alarm


def length_drift(
    lengths: Sequence[float], factor: float = 2.0, window: int = 10, span: int = 4
) -> Alarm | None:
    """Alarm when within ``span`` windows the median length grows or shrinks by more than ``factor``.

    Lengths may grow in a healthy run, but over hundreds of steps.
    """
    if len(lengths) < 2 * window:
        return None
    now, before = median(lengths[-window:]), median(lengths[-span * window :][:window])
    evidence = {"window": window, "baseline": before}
    name = "completions/mean_length"
    if now > factor * before:
        return Alarm("length_drift", name, now, factor * before, evidence)
    return Alarm("length_drift", name, now, before / factor, evidence) if now < before / factor else None


def repetition(
    distinct_2: Sequence[float],
    baseline: float,
    share: float = 0.7,
    window: int = 10,
    growth: float = 1.0,
) -> Alarm | None:
    """Alarm when the mean of a full ``window`` is below ``share`` of ``baseline`` (the first window's).

    ``growth`` is how many times more tokens a step has than at the start. More text has fewer new pairs in
    it: different pairs grow about as the square root of the tokens (Heaps 1978), so the limit falls so much.
    """
    values = finite(distinct_2[-window:])
    if len(values) < window or not math.isfinite(baseline):
        return None
    value, limit = mean(values), share * baseline / math.sqrt(max(1.0, growth))
    evidence = {"window": window, "baseline": baseline}
    return Alarm("repetition", "completions/distinct_2", value, limit, evidence) if value < limit else None
