"""Training against what is not trained on: the hidden prompts, the judge, the hidden reward (R20, R21)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trimtab.monitor.detectors.robust import mean
from trimtab.monitor.signals import Alarm


def hidden_gap(
    train: Sequence[float],
    hidden: Sequence[float],
    errors: Sequence[float],
    limit: float = 0.1,
    window: int = 2,
    num_errors: float = 3.0,
) -> Alarm | None:
    """Alarm when the pass rate on training prompts leaves that on hidden prompts behind (R21).

    One value per evaluation; ``errors`` are the standard errors of ``train − hidden``. The gap of the last
    ``window`` evaluations is compared with that of the first: it must have grown by more than ``limit`` and
    by more than ``num_errors`` standard errors of the difference (more after many evaluations, as each is
    another chance for noise), and the training rate must have risen.
    """
    if min(len(train), len(hidden), len(errors)) < 2 * window:
        return None
    before, last = slice(window), slice(-window, None)
    gap = mean(train[last]) - mean(hidden[last])
    gap_before = mean(train[before]) - mean(hidden[before])
    error = math.hypot(_error_ofmean(errors[before]), _error_ofmean(errors[last]))
    threshold = gap_before + max(limit, _errors_of_many(num_errors, len(train), window) * error)
    if not (gap > threshold and mean(train[last]) > mean(train[before])):
        return None
    evidence = {
        "train": mean(train[last]),
        "hidden": mean(hidden[last]),
        "train_before": mean(train[before]),
        "hidden_before": mean(hidden[before]),
        "trend": (gap - gap_before) / (len(train) - window),  # per evaluation
        "error": error,
    }
    return Alarm("hidden_gap", "eval/gap", gap, threshold, evidence)


def quality_gap(
    trained: Sequence[tuple[float, float]],
    other: Sequence[tuple[float, float]],
    *,
    metric: str = "eval/judge",
    limit: float = 0.25,
    window: int = 2,
    num_errors: float = 3.0,
) -> Alarm | None:
    """Alarm when the trained reward rises while a measure that is not trained on falls (R20, R21).

    Both are (mean, standard error) per evaluation, in standard deviations of their first window. The last
    ``window`` evaluations are compared with the first, and with those where ``other`` was best: a policy may
    improve before it finds the loophole. Both changes must exceed ``num_errors`` standard errors, and the
    fall also ``limit``.
    """
    if min(len(trained), len(other)) < 2 * window:
        return None
    last = slice(len(other) - window, None)
    starts = range(len(other) - 2 * window + 1)
    best = max(starts, key=lambda start: mean([mean for mean, _ in other[start : start + window]]))
    for start in dict.fromkeys((0, best)):
        before = slice(start, start + window)
        rise, rise_error = _change(trained, before, last)
        change, error = _change(other, before, last)
        allowed = max(limit, _errors_of_many(num_errors, len(other), window) * error)
        if rise > num_errors * rise_error and -change > allowed:
            evidence = {
                "trained_rise": rise,
                "gap": rise - change,
                "trend": (rise - change) / (len(other) - window - start),  # per evaluation
                "error": error,
            }
            return Alarm("quality_gap", metric, change, -allowed, evidence)
    return None


def _errors_of_many(num_errors: float, count: int, window: int) -> float:
    """Standard errors to ask for at the ``count``-th evaluation, so that many looks give no more chances.

    The tail of a normal distribution falls as exp(−z²/2): n looks cost as one when z² grows by 2·ln n.
    """
    return math.sqrt(num_errors**2 + 2 * math.log(max(1.0, count / (2 * window))))


def _change(series: Sequence[tuple[float, float]], before: slice, last: slice) -> tuple[float, float]:
    """How much the mean moved between two windows, and the standard error of that."""
    means = mean([mean for mean, _ in series[last]]) - mean([mean for mean, _ in series[before]])
    errors = [_error_ofmean([error for _, error in series[part]]) for part in (before, last)]
    return means, math.hypot(*errors)


def _error_ofmean(errors: Sequence[float]) -> float:
    """Standard error of the mean of independent values with these standard errors."""
    return math.sqrt(sum(error * error for error in errors)) / len(errors)
