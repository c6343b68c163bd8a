"""Alarms about divergences: from the reference, and between sampler and learner. Nats per token."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trimtab.monitor.detectors.robust import finite, mean, median, noise, squared_error
from trimtab.monitor.signals import Alarm


def kl_too_high(kl: Sequence[float], limit: float = 0.5, window: int = 10) -> Alarm | None:
    """Alarm when the mean of the last ``window`` values (of those there are, while fewer) exceeds ``limit``.

    An infinite value counts; NaN is left out (R18).
    """
    recent = [value for value in kl[-window:] if not math.isnan(value)]
    value = mean(recent)
    evidence = {"window": window, "recent": median(recent[-3:])}
    return Alarm("kl_too_high", "kl/ref", value, limit, evidence) if value > limit else None


def kl_explosion(
    kl: Sequence[float], growth: float = 3.0, floor: float = 0.25, window: int = 10, recent: int = 3
) -> Alarm | None:
    """Alarm when the median of the last ``recent`` values is ``growth`` times that of the ``window`` before.

    Under ``floor`` nothing alarms: the KL starts at 0, so that it multiplies while it is still harmless.
    """
    if len(kl) < window + recent:
        return None
    now = median(kl[-recent:])
    if not now > floor:
        return None
    before = median(kl[-window - recent : -recent])
    limit = max(floor, growth * before)
    evidence = {"window": window, "baseline": before}
    return Alarm("kl_explosion", "kl/ref", now, limit, evidence) if now > limit else None


def kl_negative(
    kl: Sequence[float], limit: float = -0.01, window: int = 10, num_errors: float = 3.0
) -> Alarm | None:
    """Alarm when the mean of a full window is below ``limit`` and 0 by more than its own noise.

    A divergence is never negative; a single estimate (k1) may be, the mean of many may not.
    """
    values = finite(kl[-window:])
    value = mean(values)
    if len(values) < window or not value < limit:
        return None
    bound = min(limit, -num_errors * math.sqrt(squared_error(values)))
    return Alarm("kl_negative", "kl/ref", value, bound, {"window": window}) if value < bound else None


def kl_drift(
    kl: Sequence[float], rewards: Sequence[float], limit: float = 0.15, window: int = 10, span: int = 4
) -> Alarm | None:
    """Alarm when over ``span`` windows the KL rises steadily by ``limit`` and the reward does not.

    Steadily: the Theil–Sen slope over the span (Sen 1968), and its 95 % interval, agree with the rise of the
    medians. The reward counts as risen above its noise from step to step: twice the standard error of what is
    compared, which are medians of ten.
    """
    size = span * window
    if min(len(kl), len(rewards)) < size:
        return None
    kl, rewards = kl[-size:], rewards[-size:]
    before = median(kl[:window])
    rise = median(kl[-window:]) - before
    gain = median(rewards[-window:]) - median(rewards[:window])
    if not (rise > limit and gain <= noise(rewards)) or not all(map(math.isfinite, kl)):
        return None
    from scipy.stats import theilslopes  # slow to import, and rarely reached

    slope, _, low, _ = theilslopes(kl)
    if not (low > 0 and slope * (size - window) > limit / 2):
        return None
    evidence = {"window": size, "baseline": before, "slope": float(slope), "reward_gain": gain}
    return Alarm("kl_drift", "kl/ref", rise, limit, evidence)


def engine_mismatch(kl: Sequence[float], limit: float = 0.01, recent: int = 3) -> Alarm | None:
    """Alarm when the median of the last ``recent`` KLs of sampler against learner is above ``limit``."""
    if len(kl) < recent:
        return None
    value = abs(median(kl[-recent:]))
    return Alarm("engine_mismatch", "kl/engine", value, limit, {"window": recent}) if value > limit else None
