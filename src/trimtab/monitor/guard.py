"""The guard: asked before each optimizer step and after each log.

``observe`` reports and does nothing; ``protect`` keeps numbers that are not finite away from the weights;
``heal`` also answers alarms (``healing.py``). On weights that are not finite no run goes on, in any mode.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from trimtab.config import GuardMode, MonitorConfig, Remedy
from trimtab.errors import ConfigError
from trimtab.monitor.gaps import GapTracker, Measure
from trimtab.monitor.healing import Healer
from trimtab.monitor.policy import policy_of
from trimtab.monitor.signals import Alarm
from trimtab.monitor.watch import Watch

Verdict = Literal["proceed", "observe", "skip_update", "rollback", "stop"]
GUARD_MODES: tuple[str, ...] = get_args(GuardMode)


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict and the sentence that gives its reason; the reason of ``proceed`` is empty.

    ``observe`` lets the update through, and ``would`` is the verdict in its place of a guard that protects.
    """

    verdict: Verdict
    reason: str = ""
    would: Verdict | None = None

    @property
    def is_applied(self) -> bool:
        """Whether the update reaches the weights."""
        return self.verdict in ("proceed", "observe")


class Guard:
    """Keeps numbers that are not finite away from the weights, and raises alarms.

    ``max_skips`` updates in a row may be skipped; the next one stops the run, or in ``heal`` rolls it back
    where a healthy checkpoint is left. In ``observe`` it only says so. Mode, thresholds and language come
    from ``[monitor]``. An alarm that persists is raised again after every ``window`` logs. ``healer`` is None
    but in ``heal``.

    Raises:
        ConfigError: an unknown mode.

    Example:
        >>> Guard().before_update({"loss/total": float("nan"), "train/grad_norm": 1.0}).verdict
        'skip_update'
    """

    def __init__(
        self, mode: str | None = None, max_skips: int = 3, config: MonitorConfig | None = None
    ) -> None:
        self.max_skips, self.config = max_skips, config or MonitorConfig()
        self.mode = mode or self.config.guard
        if self.mode not in GUARD_MODES:
            raise ConfigError(f"Guard mode '{mode}' is unknown; take one of {', '.join(GUARD_MODES)}.")
        self.healer = Healer(self.config) if self.mode == "heal" else None
        self.skips = 0  # updates skipped in a row
        self.gaps = GapTracker(self.config)
        self.watch = Watch(self.config)

    @property
    def language(self) -> str:
        """Language of the messages: en or zh."""
        return self.config.language

    def before_update(self, metrics: Mapping[str, float]) -> Decision:
        """Decide on an update from the figures that it depends on: loss, gradient norm, log-probabilities …

        Any figure that is NaN or infinite gives ``skip_update``, and ``stop`` after too many in a row, or
        ``rollback``, which the loop does at the end of its step. In ``observe`` the update goes through.
        """
        bad = [f"{name} is {value}" for name, value in metrics.items() if not math.isfinite(value)]
        if not bad:
            self.skips = 0
            return Decision("proceed")
        self.skips += 1
        reason = ", ".join(bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
        if self.mode == "observe":
            would: Verdict = "skip_update" if self.skips <= self.max_skips else "stop"
            return Decision("observe", f"{reason}; the update is applied, protect would say {would}", would)
        if self.skips > self.max_skips:
            reason += f"; {self.max_skips} updates in a row were skipped before"
            if self.healer is None or not self.healer.catch(reason):
                return Decision("stop", reason)
            self.skips = 0
            return Decision("rollback", reason)
        return Decision("skip_update", f"{reason}; the weights stay as they are")

    def on_broken_state(self, site: str, detail: str) -> Decision:
        """Decide on NaN or infinity in what training goes on from: a weight, or the optimizer's state.

        In every mode: to skip an update would not remove it, and every later one would spread it, so the run
        ends here, or goes back to a healthy checkpoint.
        """
        reason = f"{site}: {detail}; no update can mend that, the last checkpoint is whole"
        if self.healer is not None and self.healer.catch(reason):
            return Decision("rollback", reason)
        return Decision("stop", reason)

    def would_do(self, alarm: Alarm) -> tuple[Remedy, ...]:
        """In ``observe``: the remedies that ``heal`` would try against an alarm, in order; else nothing."""
        return policy_of(self.config.heal).get(alarm.kind, ()) if self.mode == "observe" else ()

    def after_log(self, metrics: Mapping[str, float]) -> list[Alarm]:
        """Take the metrics of a finished step (our names) and return the alarms that are new."""
        alarms = self.watch.see(metrics)
        if self.healer is not None:
            self.healer.look(metrics.get("reward/mean"), self.watch.standing)
        return alarms

    def after_evaluation(self, measures: Mapping[str, Measure]) -> tuple[dict[str, float], list[Alarm]]:
        """Take the measures of an evaluation; return its figures, gaps included, and the new alarms."""
        figures, alarms = self.gaps.evaluate(measures)
        return figures, self.watch.fresh(alarms)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold: plain numbers and lists."""
        return {
            "skips": self.skips,
            "watch": self.watch.state(),
            "gaps": self.gaps.state(),
            "healer": None if self.healer is None else self.healer.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.skips = int(state["skips"])
        self.watch.load_state(state["watch"])
        self.gaps.load_state(state["gaps"])
        if self.healer is not None and state.get("healer"):
            self.healer.load_state(state["healer"])

    def rewind(self, state: Mapping[str, Any]) -> None:
        """After a rollback, know of the numbers what :meth:`state` knew then; actions since stay known.

        Else the detectors would still see the numbers of the steps that were undone.
        """
        healer = None if self.healer is None else self.healer.state()
        self.load_state({**state, "skips": 0, "healer": healer})
