"""Alarms about time: the run slows down, or hangs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trimtab.monitor.detectors.robust import median
from trimtab.monitor.signals import Alarm


def throughput_rot(
    speeds: Sequence[float], start: float, share: float = 0.5, window: int = 10
) -> Alarm | None:
    """Alarm when the median tokens per second of a full window are below ``share`` of the start's."""
    if len(speeds) < window or not math.isfinite(start):
        return None
    value, limit = median(speeds[-window:]), share * start
    evidence = {"window": window, "baseline": start}
    return Alarm("throughput_rot", "speed/tokens_per_s", value, limit, evidence) if value < limit else None


def stall(
    seconds: Sequence[float], factor: float = 10.0, least: float = 10.0, window: int = 10
) -> Alarm | None:
    """Alarm when the last step took ``factor`` times the median of those before, and ``least`` seconds more.

    A step that never ends is the watchdog's business: this one has ended, and is on record.
    """
    if len(seconds) <= window:
        return None
    if not seconds[-1] > least:
        return None
    before = median(seconds[:-1])
    limit = max(factor * before, before + least)
    evidence = {"window": len(seconds) - 1, "baseline": before}
    return Alarm("stall", "time/step", seconds[-1], limit, evidence) if seconds[-1] > limit else None
