"""Detectors: plain floats in, an alarm or None out; no state, no configuration, no logging.

Series are in order of time. A non-finite number never makes a trend: that is :func:`non_finite`'s business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from trimtab.monitor.signals import Alarm, AlarmKind


def non_finite(metrics: Mapping[str, float]) -> Alarm | None:
    """Alarm at the first metric, in order of name, that is NaN or infinite."""
    for name in sorted(metrics):
        if not math.isfinite(metrics[name]):
            return Alarm("non_finite", name, metrics[name], math.inf)
    return None


def kl_too_high(kl: Sequence[float], limit: float = 0.5, window: int = 10) -> Alarm | None:
    """Alarm when the mean of the last ``window`` values (of those there are, while fewer) exceeds ``limit``.

    ``kl`` is in nats per token. An infinite value counts; NaN is left out.
    """
    mean = _mean([value for value in kl[-window:] if not math.isnan(value)])
    return Alarm("kl_too_high", "kl/ref", mean, limit) if mean > limit else None


def reward_falling(rewards: Sequence[float], window: int = 10, num_errors: float = 0.0) -> Alarm | None:
    """With more than 2 · ``window`` rewards, alarm when the last ``window`` average less than those before.

    With ``num_errors`` only when the fall exceeds so many standard errors of the difference of the means.
    """
    if len(rewards) <= 2 * window:
        return None
    recent, earlier = _finite(rewards[-window:]), _finite(rewards[-2 * window : -window])
    last, before = _mean(recent), _mean(earlier)
    limit = before - num_errors * math.sqrt(_squared_error(recent) + _squared_error(earlier))
    return Alarm("reward_falling", "reward/mean", last, limit) if last < limit else None


def entropy_collapse(entropy: Sequence[float], limit: float = 0.5) -> Alarm | None:
    """Alarm when the last value, in nats per token, is below ``limit``."""
    if not entropy or not entropy[-1] < limit:
        return None
    return Alarm("entropy_collapse", "policy/entropy", entropy[-1], limit)


def reward_hacking(
    rewards: Sequence[float],
    quality: Sequence[float],
    window: int = 10,
    drop: float = 0.1,
    metric: str = "completions/distinct_2",
) -> Alarm | None:
    """Alarm when the reward rises and a quality that is not rewarded falls.

    Both series have one value per step; means of the last ``window`` are compared with those of the
    ``window`` before. ``metric`` names the quality; ``drop`` is its relative fall that is tolerated.
    """
    if min(len(rewards), len(quality)) < 2 * window:
        return None
    gain = _mean(_finite(rewards[-window:])) - _mean(_finite(rewards[-2 * window : -window]))
    last, before = _mean(_finite(quality[-window:])), _mean(_finite(quality[-2 * window : -window]))
    limit = before - drop * abs(before)
    return Alarm("reward_hacking", metric, last, limit) if gain > 0 and last < limit else None


def truncation(truncated: Sequence[float], limit: float = 0.5, window: int = 10) -> Alarm | None:
    """Alarm when on average more than ``limit`` of the completions are cut, over a full ``window``."""
    return _above("truncation", "completions/truncated", truncated, limit, window)


def zero_variance(share: Sequence[float], limit: float = 0.5, window: int = 10) -> Alarm | None:
    """Alarm when on average more than ``limit`` of the groups have equal rewards, over a full ``window``."""
    return _above("zero_variance", "reward/zero_variance_groups", share, limit, window)


def clip_saturation(clipfrac: Sequence[float], limit: float = 0.3, window: int = 10) -> Alarm | None:
    """Alarm when on average more than ``limit`` of the tokens are clipped, over a full ``window``."""
    return _above("clip_saturation", "policy/clipfrac", clipfrac, limit, window)


def repetition(
    distinct_2: Sequence[float], baseline: float, share: float = 0.7, window: int = 10
) -> Alarm | None:
    """Alarm when the mean of a full ``window`` is below ``share`` of ``baseline`` (the first window's)."""
    values = _finite(distinct_2[-window:])
    if len(values) < window or not math.isfinite(baseline):
        return None
    mean, limit = _mean(values), share * baseline
    return Alarm("repetition", "completions/distinct_2", mean, limit) if mean < limit else None


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
    by more than ``num_errors`` standard errors of the difference, and the training rate must have risen.
    """
    if min(len(train), len(hidden), len(errors)) < 2 * window:
        return None
    before, last = slice(window), slice(-window, None)
    gap = _mean(train[last]) - _mean(hidden[last])
    gap_before = _mean(train[before]) - _mean(hidden[before])
    error = math.hypot(_error_of_mean(errors[before]), _error_of_mean(errors[last]))
    threshold = gap_before + max(limit, num_errors * error)
    if not (gap > threshold and _mean(train[last]) > _mean(train[before])):
        return None
    evidence = {
        "train": _mean(train[last]),
        "hidden": _mean(hidden[last]),
        "train_before": _mean(train[before]),
        "hidden_before": _mean(hidden[before]),
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
    best = max(starts, key=lambda start: _mean([mean for mean, _ in other[start : start + window]]))
    for start in dict.fromkeys((0, best)):
        before = slice(start, start + window)
        rise, rise_error = _change(trained, before, last)
        change, error = _change(other, before, last)
        allowed = max(limit, num_errors * error)
        if rise > num_errors * rise_error and -change > allowed:
            evidence = {
                "trained_rise": rise,
                "gap": rise - change,
                "trend": (rise - change) / (len(other) - window - start),  # per evaluation
                "error": error,
            }
            return Alarm("quality_gap", metric, change, -allowed, evidence)
    return None


def _change(series: Sequence[tuple[float, float]], before: slice, last: slice) -> tuple[float, float]:
    """How much the mean moved between two windows, and the standard error of that."""
    means = _mean([mean for mean, _ in series[last]]) - _mean([mean for mean, _ in series[before]])
    errors = [_error_of_mean([error for _, error in series[part]]) for part in (before, last)]
    return means, math.hypot(*errors)


def _error_of_mean(errors: Sequence[float]) -> float:
    """Standard error of the mean of independent values with these standard errors."""
    return math.sqrt(sum(error * error for error in errors)) / len(errors)


def _above(kind: AlarmKind, metric: str, values: Sequence[float], limit: float, window: int) -> Alarm | None:
    recent = _finite(values[-window:])
    if len(recent) < window:
        return None
    mean = _mean(recent)
    return Alarm(kind, metric, mean, limit) if mean > limit else None


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _mean(values: Sequence[float]) -> float:
    """The mean, or NaN of nothing: every comparison with it is false, so nothing alarms."""
    return sum(values) / len(values) if values else math.nan


def _squared_error(values: Sequence[float]) -> float:
    """Squared standard error of the mean; 0 for fewer than two values."""
    if len(values) < 2:
        return 0.0
    mean = _mean(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values)
