"""What the healer remembers: of each kind of alarm, and of each setting that it has moved."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from trimtab.monitor.signals import Alarm

Trend = Literal["better", "steady", "worse"]
BETTER = 0.8  # an excess that has shrunk to this is on its way back


@dataclass
class Case:
    """What is known of one kind of alarm: steps, actions against it in the run, the remedy that is next,
    and how far beyond its limit the figure was when the alarm was raised last."""

    last_alarm: int
    last_action: int | None = None
    actions: int = 0
    position: int = 0
    excess: float | None = None


def trend_of(case: Case, alarm: Alarm) -> Trend:
    """Where the figure has gone since its last alarm; by its ``recent`` values, where the alarm has them."""
    value = alarm.evidence.get("recent", alarm.value)
    excess = value - alarm.threshold if alarm.value > alarm.threshold else alarm.threshold - value
    before, case.excess = case.excess, max(0.0, excess) if math.isfinite(excess) else None
    if before is None or case.excess is None:
        return "worse"
    if case.excess <= BETTER * before:
        return "better"
    return "worse" if BETTER * case.excess > before else "steady"


@dataclass
class Hold:
    """Why a knob is away from the recipe, since when, how long it is held, and the notches that are kept."""

    kinds: list[str] = field(default_factory=list)
    pushed: int | None = None
    relaxed: int | None = None
    patience: int = 1
    floor: int = 0
