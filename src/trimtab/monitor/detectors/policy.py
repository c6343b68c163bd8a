"""Alarms about the policy and its updates: numbers, entropy, clipping, gradient, critic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from trimtab.monitor.detectors.robust import finite, mean, median, noise, spread, squared_error
from trimtab.monitor.detectors.shares import above
from trimtab.monitor.signals import Alarm


def non_finite(metrics: Mapping[str, float]) -> Alarm | None:
    """Alarm at the first metric, in order of name, that is NaN or infinite."""
    if all(map(math.isfinite, metrics.values())):
        return None
    name = min(name for name, value in metrics.items() if not math.isfinite(value))
    return Alarm("non_finite", name, metrics[name], math.inf)


def entropy_collapse(entropy: Sequence[float], limit: float = 0.5) -> Alarm | None:
    """Alarm when the last value, in nats per token, is below ``limit`` (R18)."""
    if not entropy or not entropy[-1] < limit:
        return None
    return Alarm("entropy_collapse", "policy/entropy", entropy[-1], limit)


def entropy_low(
    entropy: Sequence[float], start: float, limit: float = 0.5, share: float = 0.5, recent: int = 3
) -> Alarm | None:
    """:func:`entropy_collapse` for tasks of any entropy: ``start`` is the median of the run's first window.

    The median of the last ``recent`` values must be below the limit and below ``share`` of the start: where
    a run begins with little entropy, as in arithmetic, little is no collapse.
    """
    if len(entropy) < recent or not math.isfinite(start):
        return None
    bound = min(limit, share * start)
    value = median(entropy[-recent:])
    evidence = {"window": recent, "baseline": start}
    return Alarm("entropy_collapse", "policy/entropy", value, bound, evidence) if value < bound else None


def entropy_falling(
    entropy: Sequence[float], share: float = 0.5, window: int = 10, recent: int = 3
) -> Alarm | None:
    """Alarm when the last values are below ``share`` of the window before, by over six times its noise."""
    if len(entropy) < window + recent:
        return None
    value, before = median(entropy[-recent:]), median(entropy[-window - recent : -recent])
    if not value < share * before:
        return None
    bound = min(share * before, before - 6 * noise(entropy[-window - recent : -recent]))
    evidence = {"window": window, "baseline": before}
    return Alarm("entropy_collapse", "policy/entropy", value, bound, evidence) if value < bound else None


def entropy_explosion(
    entropy: Sequence[float], start: float, factor: float = 2.0, rise: float = 0.3, recent: int = 3
) -> Alarm | None:
    """Alarm when the last values exceed ``factor`` times the start, and by ``rise`` nats at least."""
    if len(entropy) < recent or not math.isfinite(start):
        return None
    value, bound = median(entropy[-recent:]), max(factor * start, start + rise)
    evidence = {"window": recent, "baseline": start}
    return Alarm("entropy_explosion", "policy/entropy", value, bound, evidence) if value > bound else None


def policy_unmoved(
    kl: Sequence[float],
    rewards: Sequence[float],
    highest: float,
    limit: float = 1e-3,
    window: int = 10,
    num_errors: float = 3.0,
) -> Alarm | None:
    """Alarm when after two windows the KL to the reference was never above ``limit`` and the reward is where
    it was.

    ``highest`` is the highest median of a window of KLs so far. The reward has moved when the means of the
    first and the last window differ by more than ``num_errors`` standard errors; where it moved, a small KL
    is no fault: long answers need little per token.
    """
    if min(len(kl), len(rewards)) < 2 * window or not highest < limit:
        return None
    first, last = finite(rewards[:window]), finite(rewards[-window:])
    change = mean(last) - mean(first)
    if not abs(change) <= num_errors * math.sqrt(squared_error(first) + squared_error(last)):
        return None
    evidence = {"window": window, "reward_gain": change}
    return Alarm("policy_unmoved", "kl/ref", median(kl[-window:]), limit, evidence)


def clip_saturation(clipfrac: Sequence[float], limit: float = 0.3, window: int = 10) -> Alarm | None:
    """Alarm when on average more than ``limit`` of the tokens are clipped, over a full ``window``."""
    return above("clip_saturation", "policy/clipfrac", clipfrac, limit, window)


def gradient_spike(
    norms: Sequence[float], factor: float = 5.0, window: int = 10, count: int = 3, alone: float = 10.0
) -> Alarm | None:
    """Alarm when ``count`` of the last window of gradient norms, the last one too, tower over those before.

    Towering: above ``factor`` times the median of up to three windows before, and above six robust standard
    deviations of their logarithms, since norms have heavy tails. A single norm needs ``alone`` times that:
    one wild batch is normal, and clipping takes care of it.
    """
    if len(norms) < 2 * window:
        return None
    earlier = norms[-4 * window : -window]
    before = median(earlier)
    if not norms[-1] > factor * before > 0:
        return None
    scale = spread([math.log(value) for value in earlier if value > 0])
    bound = before * math.exp(max(math.log(factor), 6 * scale))
    high = sum(value > bound for value in norms[-window:])
    if not ((norms[-1] > bound and high >= count) or norms[-1] > alone * bound):
        return None
    evidence = {"window": window, "baseline": before, "count": high}
    return Alarm("gradient_spike", "train/grad_norm", norms[-1], bound, evidence)


def critic_collapse(
    explained: Sequence[float], best: float, limit: float = -0.05, fall: float = 0.5, window: int = 10
) -> Alarm | None:
    """Alarm when the critic is worse than a constant, or has lost what it knew.

    With four windows of explained variances (a critic starts from nothing): when the median of the last two
    is below ``limit`` by more than two of its standard errors, or near 0 and ``fall`` below ``best`` (the
    best window's median so far).
    """
    values = finite(explained[-2 * window :])
    if len(explained) < 4 * window or len(values) < 2 * window:
        return None
    value = median(values)
    low = limit - 2 * spread(values) / math.sqrt(len(values))
    bound = max(low, min(0.05, best - fall)) if math.isfinite(best) else low
    evidence = {"window": 2 * window, "baseline": best, "mean": mean(values)}
    name = "critic/explained_variance"
    return Alarm("critic_collapse", name, value, bound, evidence) if value < bound else None
