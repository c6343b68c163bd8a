"""Alarms about the reward: it falls, it saturates, or it is paid for something else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from trimtab.monitor.detectors.robust import finite, mean, median, noise, squared_error
from trimtab.monitor.signals import Alarm


def reward_falling(rewards: Sequence[float], window: int = 10, num_errors: float = 0.0) -> Alarm | None:
    """With more than 2 · ``window`` rewards, alarm when the last ``window`` average less than those before.

    With ``num_errors`` only when the fall exceeds so many standard errors of the difference (R18).
    """
    if len(rewards) <= 2 * window:
        return None
    recent, earlier = finite(rewards[-window:]), finite(rewards[-2 * window : -window])
    last, before = mean(recent), mean(earlier)
    limit = before - num_errors * math.sqrt(squared_error(recent) + squared_error(earlier))
    evidence = {"window": window, "baseline": before}
    return Alarm("reward_falling", "reward/mean", last, limit, evidence) if last < limit else None


def reward_below_best(
    rewards: Sequence[float], best: float, fall: float = 5.0, window: int = 10, least: float = 0.05
) -> Alarm | None:
    """Alarm when the mean of the last window has fallen from ``best``, the highest mean of a window so far.

    The fall must exceed ``fall`` times the noise from step to step, and the share ``least`` of the best.
    """
    if len(rewards) <= 2 * window:
        return None
    last = mean(rewards[-window:])
    if not last < best - least * abs(best):
        return None
    limit = best - max(least * abs(best), fall * noise(rewards))
    evidence = {"window": window, "baseline": best}
    return Alarm("reward_falling", "reward/mean", last, limit, evidence) if last < limit else None


def reward_saturation(
    deviations: Sequence[float], start: float, share: float = 0.1, window: int = 10
) -> Alarm | None:
    """Alarm when the standard deviation of the rewards, over a window, is below ``share`` of the start's.

    ``start`` is the median of the first window. Where it was 0, nothing is compared.
    """
    values = finite(deviations[-window:])
    if len(values) < window or not start > 0:
        return None
    value, limit = mean(values), share * start
    evidence = {"window": window, "baseline": start}
    return Alarm("reward_saturation", "reward/std", value, limit, evidence) if value < limit else None


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
    last, before = mean(finite(quality[-window:])), mean(finite(quality[-2 * window : -window]))
    limit = before - drop * abs(before)
    if not last < limit:
        return None
    gain = mean(finite(rewards[-window:])) - mean(finite(rewards[-2 * window : -window]))
    evidence = {"window": window, "baseline": before, "reward_gain": gain}
    return Alarm("reward_hacking", metric, last, limit, evidence) if gain > 0 else None


def component_share(
    total: Sequence[float],
    parts: Mapping[str, Sequence[float]],
    limit: float = 0.8,
    window: int = 10,
    num_errors: float = 3.5,
    is_late: bool = False,
) -> Alarm | None:
    """Alarm when one reward component takes the gain of ``total`` and another one pays for it.

    ``parts`` are the components by metric name, one value per step like ``total``. Their weights, negative
    ones too, are those of the least squares fit over the series; where the fit leaves more than a tenth of
    the variance (gates, clipping), nothing is said. A contribution is weight times the change from the
    first to the last window, a share is one contribution over the sum of the positive ones. It must exceed
    ``limit``, and another contribution must be negative, a tenth of it at least; every change above
    ``num_errors`` standard errors. Late in a run, a component with ``format`` in its name needs no victim
    when nothing else has risen: a policy that only learns the form learns nothing.
    """
    size = len(total)
    if len(parts) < 2 or size < 3 * window or any(len(values) != size for values in parts.values()):
        return None
    if not mean(total[-window:]) - mean(total[:window]) > num_errors * _error(total, window):
        return None
    names = list(parts)
    weights = _weights(total, [parts[name] for name in names])
    if weights is None:
        return None
    change = {
        name: weight * (mean(parts[name][-window:]) - mean(parts[name][:window]))
        for name, weight in zip(names, weights, strict=True)
    }
    error = {name: abs(w) * _error(parts[name], window) for name, w in zip(names, weights, strict=True)}
    winner, loser = max(names, key=lambda name: change[name]), min(names, key=lambda name: change[name])
    gain = sum(rise for rise in change.values() if rise > 0)
    if not (change[winner] > limit * gain > 0 and change[winner] > num_errors * error[winner]):
        return None
    is_paid_for = change[loser] < -max(num_errors * error[loser], 0.1 * change[winner])
    others = [name for name in names if name != winner]
    is_form = is_late and "format" in winner and all(change[o] <= num_errors * error[o] for o in others)
    if not (is_paid_for or is_form):
        return None
    evidence = {"window": size, "baseline": mean(parts[winner][:window]), "rise": change[winner]}
    return Alarm(
        "component_share", winner, change[winner] / gain, limit, evidence | {"fall": min(0.0, change[loser])}
    )


def _weights(total: Sequence[float], parts: Sequence[Sequence[float]]) -> list[float] | None:
    """Weights with which the parts make up the total, or None where they do not."""
    import numpy  # slow to import, and rarely reached

    columns = numpy.asarray(parts, dtype=float).T
    columns = columns - columns.mean(axis=0)
    target = numpy.asarray(total, dtype=float)
    target = target - target.mean()
    variance = float(target @ target)
    if not (math.isfinite(variance) and variance > 0 and bool(numpy.isfinite(columns).all())):
        return None
    weights = numpy.linalg.lstsq(columns, target, rcond=None)[0]
    left = target - columns @ weights
    return [float(weight) for weight in weights] if float(left @ left) < 0.1 * variance else None


def reward_by_length(
    rewards: Sequence[float],
    lengths: Sequence[float],
    limit: float = 0.7,
    growth: float = 1.2,
    window: int = 10,
) -> Alarm | None:
    """Alarm when completions grow and the reward follows their length, up and down, from step to step.

    Growth compares the medians of the last and the first window of the series (four windows at least). The
    rank correlation (Spearman 1904) is of the changes between steps, so that two trends alone give none.
    """
    size = min(len(rewards), len(lengths))
    if size < 4 * window:
        return None
    rewards, lengths = rewards[-size:], lengths[-size:]
    before = median(lengths[:window])
    now = median(lengths[-window:])
    if not now > growth * before or not mean(rewards[-window:]) > mean(rewards[:window]):
        return None
    from scipy.stats import spearmanr  # slow to import, and rarely reached

    moved = [[b - a for a, b in pairwise(values)] for values in (rewards, lengths)]
    correlation = float(spearmanr(moved[0], moved[1]).statistic)
    evidence = {"window": size, "baseline": before, "length": now}
    if not correlation > limit:
        return None
    return Alarm("reward_by_length", "completions/mean_length", correlation, limit, evidence)


def _error(values: Sequence[float], window: int) -> float:
    """Standard error of the change between the first and the last window."""
    return math.sqrt(squared_error(values[:window]) + squared_error(values[-window:]))
