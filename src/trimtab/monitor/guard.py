"""The guard: asked before each optimizer step and after each log.

In every mode numbers that are not finite never reach the weights. ``observe`` and ``protect`` only warn of
the rest; ``heal`` acts on it (``healing.py``).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from trimtab.config import GuardMode, MonitorConfig
from trimtab.errors import ConfigError
from trimtab.monitor import detectors
from trimtab.monitor.gaps import GapTracker, Measure
from trimtab.monitor.healing import Healer
from trimtab.monitor.signals import Alarm

Verdict = Literal["proceed", "skip_update", "rollback", "stop"]
GUARD_MODES: tuple[str, ...] = get_args(GuardMode)

# Watched series; the key is what detectors and checkpoints call them.
_WATCHED: Mapping[str, str] = {
    "kl": "kl/ref",
    "reward": "reward/mean",
    "entropy": "policy/entropy",
    "truncated": "completions/truncated",
    "zero_variance": "reward/zero_variance_groups",
    "clipfrac": "policy/clipfrac",
    "distinct_2": "completions/distinct_2",
}


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict and the sentence that gives its reason; the reason of ``proceed`` is empty."""

    verdict: Verdict
    reason: str = ""


class Guard:
    """Keeps numbers that are not finite away from the weights, and raises alarms.

    ``max_skips`` updates in a row may be skipped; the next one stops the run, or in ``heal`` rolls it back
    where a healthy checkpoint is left. Mode, thresholds and language come from ``[monitor]``. An alarm that
    persists is raised again after every ``window`` logs. ``healer`` is None but in ``heal``.

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
        self._series: dict[str, deque[float]] = {
            name: deque(maxlen=2 * self.config.window + 1) for name in _WATCHED
        }
        self._first: list[float] = []  # distinct_2 of the first window: what repetition is measured against
        self._quiet: dict[str, int] = {}  # logs until an alarm kind may be raised again

    @property
    def language(self) -> str:
        """Language of the messages: en or zh."""
        return self.config.language

    def before_update(self, metrics: Mapping[str, float]) -> Decision:
        """Decide on an update from the figures that it depends on: loss, gradient norm, log-probabilities …

        Any figure that is NaN or infinite gives ``skip_update``, and ``stop`` after too many in a row, or
        ``rollback``, which the loop does at the end of its step.
        """
        bad = [f"{name} is {value}" for name, value in metrics.items() if not math.isfinite(value)]
        if not bad:
            self.skips = 0
            return Decision("proceed")
        self.skips += 1
        reason = ", ".join(bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
        if self.skips > self.max_skips:
            reason += f"; {self.max_skips} updates in a row were skipped before"
            if self.healer is None or not self.healer.catch(reason):
                return Decision("stop", reason)
            self.skips = 0
            return Decision("rollback", reason)
        return Decision("skip_update", f"{reason}; the weights stay as they are")

    def after_log(self, metrics: Mapping[str, float]) -> list[Alarm]:
        """Take the metrics of a finished step (our names) and return the alarms that are new."""
        for name, key in _WATCHED.items():
            if metrics.get(key) is not None:
                self._series[name].append(float(metrics[key]))
        if "completions/distinct_2" in metrics and len(self._first) < self.config.window:
            self._first.append(float(metrics["completions/distinct_2"]))
        self._quiet = {kind: left - 1 for kind, left in self._quiet.items() if left > 1}
        return self._new(self._detect(metrics))

    def after_evaluation(self, measures: Mapping[str, Measure]) -> tuple[dict[str, float], list[Alarm]]:
        """Take the measures of an evaluation; return its figures, gaps included, and the new alarms."""
        figures, alarms = self.gaps.evaluate(measures)
        return figures, self._new(alarms)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold: plain numbers and lists."""
        return {
            "skips": self.skips,
            "series": {name: list(series) for name, series in self._series.items()},
            "first": list(self._first),
            "quiet": dict(self._quiet),
            "gaps": self.gaps.state(),
            "healer": None if self.healer is None else self.healer.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.skips = int(state["skips"])
        for name, series in self._series.items():
            series.clear()
            series.extend(state["series"].get(name, ()))
        self._first = list(state["first"])
        self._quiet = dict(state["quiet"])
        self.gaps.load_state(state["gaps"])
        if self.healer is not None and state.get("healer"):
            self.healer.load_state(state["healer"])

    def rewind(self, state: Mapping[str, Any]) -> None:
        """After a rollback, know of the numbers what :meth:`state` knew then; actions since stay known.

        Else the detectors would still see the numbers of the steps that were undone.
        """
        healer = None if self.healer is None else self.healer.state()
        self.load_state({**state, "skips": 0, "healer": healer})

    def _new(self, alarms: list[Alarm]) -> list[Alarm]:
        found = [alarm for alarm in alarms if alarm.kind not in self._quiet]
        self._quiet |= {alarm.kind: self.config.window for alarm in found}
        return found

    def _detect(self, metrics: Mapping[str, float]) -> list[Alarm]:
        """Ask every detector whose metric this step has."""
        window = self.config.window
        logged = {name for name, key in _WATCHED.items() if metrics.get(key) is not None}
        series = {name: list(values) if name in logged else [] for name, values in self._series.items()}
        found = [
            detectors.non_finite(metrics),
            detectors.kl_too_high(series["kl"], self.config.max_kl, window),
            detectors.reward_falling(series["reward"], window, num_errors=2.0),
            detectors.entropy_collapse(series["entropy"], self.config.min_entropy),
            detectors.reward_hacking(series["reward"], series["distinct_2"], window),
            detectors.truncation(series["truncated"], window=window),
            detectors.zero_variance(series["zero_variance"], window=window),
            detectors.clip_saturation(series["clipfrac"], window=window),
        ]
        if len(self._first) == window:
            found.append(detectors.repetition(series["distinct_2"], sum(self._first) / window, window=window))
        return [alarm for alarm in found if alarm is not None]
