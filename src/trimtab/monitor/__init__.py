"""Floats in, verdict out: detectors, guard, health check, controllers. Imports no torch."""

from trimtab.monitor.constraint import ConstraintController
from trimtab.monitor.controls import KNOBS, Controls, Knob
from trimtab.monitor.gaps import GapTracker, Measure
from trimtab.monitor.guard import GUARD_MODES, Decision, Guard, Verdict
from trimtab.monitor.healing import Action, Healer
from trimtab.monitor.kl_controller import (
    AdaptiveKLController,
    BoundedKLController,
    ClippedKLController,
    FixedKLController,
    KLController,
    build_kl_controller,
    controlled_metric,
)
from trimtab.monitor.rl_monitor import RLMonitor, build_monitor
from trimtab.monitor.signals import SIGNALS, Alarm, AlarmKind
from trimtab.monitor.texts import Explanation
from trimtab.monitor.watch import Watch

__all__ = [
    "GUARD_MODES",
    "KNOBS",
    "SIGNALS",
    "Action",
    "AdaptiveKLController",
    "Alarm",
    "AlarmKind",
    "BoundedKLController",
    "ClippedKLController",
    "ConstraintController",
    "Controls",
    "Decision",
    "Explanation",
    "FixedKLController",
    "GapTracker",
    "Guard",
    "Healer",
    "KLController",
    "Knob",
    "Measure",
    "RLMonitor",
    "Verdict",
    "Watch",
    "build_kl_controller",
    "build_monitor",
    "controlled_metric",
]
