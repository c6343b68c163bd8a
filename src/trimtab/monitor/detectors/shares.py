"""Alarms about shares, from 0 to 1, that stay above a limit."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trimtab.monitor.detectors.robust import finite, mean, squared_error
from trimtab.monitor.signals import Alarm, AlarmKind


def above(
    kind: AlarmKind,
    metric: str,
    values: Sequence[float],
    limit: float,
    window: int,
    num_errors: float = 3.0,
) -> Alarm | None:
    """Alarm when the mean of a full window exceeds ``limit`` by more than ``num_errors`` standard errors."""
    recent = values[-window:]
    if len(recent) < window or not sum(recent) > limit * window:
        return None
    recent = finite(recent)
    if len(recent) < window:
        return None
    value, bound = mean(recent), limit + num_errors * math.sqrt(squared_error(recent))
    return Alarm(kind, metric, value, bound, {"window": window}) if value > bound else None


def truncation(truncated: Sequence[float], limit: float = 0.5, window: int = 10) -> Alarm | None:
    """Alarm when on average more than ``limit`` of the completions are cut, over a full ``window``."""
    return above("truncation", "completions/truncated", truncated, limit, window)


def zero_variance(share: Sequence[float], limit: float = 0.5, window: int = 10) -> Alarm | None:
    """Alarm when on average more than ``limit`` of the groups have equal rewards, over a full ``window``."""
    return above("zero_variance", "reward/zero_variance_groups", share, limit, window)


def reward_abstains(share: Sequence[float], limit: float = 0.5) -> Alarm | None:
    """Alarm when in the last step more than ``limit`` of the completions got no reward, from the first on.

    No window: a reward that is broken is so at once, and every step without it is lost.
    """
    if not share or not share[-1] > limit:
        return None
    return Alarm("reward_abstains", "reward/abstained", share[-1], limit)
