"""Training against hidden (R21): what the evaluations of a run measured, side by side, and how far apart.

Two gaps are followed. One compares the pass rates on training and on hidden prompts: it widens when the
policy learns the training prompts instead of the task. The other compares, on the same hidden answers, the
reward that is trained with a measure that is not (a judge, a hidden reward): it widens when the reward is
gamed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.config import MonitorConfig
from trimtab.monitor import detectors
from trimtab.monitor.signals import Alarm

TRAIN, HIDDEN, TRAINED = "train/pass_rate", "eval/pass_rate", "eval/reward"
JUDGE, HIDDEN_REWARD = "eval/judge", "eval/hidden_reward/"
GAP, QUALITY_GAP = "eval/gap", "eval/quality_gap/"


@dataclass(frozen=True, slots=True)
class Measure:
    """A mean over prompts: ``spread`` is the standard deviation between prompts, ``count`` how many.

    Example:
        >>> Measure.of([0.0, 1.0, 1.0, 0.0]).mean
        0.5
    """

    mean: float
    spread: float
    count: int
    cause: str = ""  # why nothing was measured, where the count is 0

    @classmethod
    def of(cls, values: Sequence[float]) -> Measure:
        """Of one value per prompt (the mean of its completions); NaN of nothing."""
        return cls.of_sums(len(values), sum(values), sum(value * value for value in values))

    @classmethod
    def of_sums(cls, count: int, total: float, squares: float) -> Measure:
        """Of the number of values, their sum and the sum of their squares."""
        if not count:
            return cls(math.nan, math.nan, 0)
        mean = total / count
        variance = max(0.0, squares - count * mean * mean) / (count - 1) if count > 1 else 0.0
        return cls(mean, math.sqrt(variance), count)

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return self.spread / math.sqrt(self.count) if self.count else math.nan

    @property
    def rate_error(self) -> float:
        """Standard error of a mean of shares: never 0, also where all prompts passed or none did.

        Then it is that of one more pass and one more failure (Agresti and Coull 1998 in its simplest form).
        """
        if self.spread > 0 or not self.count:
            return self.error
        share = (self.mean * self.count + 1) / (self.count + 2)
        return math.sqrt(share * (1 - share) / self.count)


class GapTracker:
    """Keeps the evaluations of a run and raises ``hidden_gap`` and ``quality_gap``.

    Example:
        >>> tracker = GapTracker()
        >>> tracker.observe([1.0, 0.5])
        >>> figures, alarms = tracker.evaluate({"eval/pass_rate": Measure.of([0.0, 1.0])})
        >>> figures["eval/gap"], alarms
        (0.25, [])
    """

    def __init__(self, config: MonitorConfig | None = None) -> None:
        self.config = config or MonitorConfig()
        self._recent = [0.0, 0.0, 0.0]  # since the last evaluation: prompts, sum and squares of their shares
        self._series: dict[str, list[Measure]] = {}

    def observe(self, passed: Sequence[float]) -> None:
        """Take the share of completions that passed, of each training prompt of a step."""
        self._recent[0] += len(passed)
        self._recent[1] += sum(passed)
        self._recent[2] += sum(share * share for share in passed)

    def evaluate(self, measures: Mapping[str, Measure]) -> tuple[dict[str, float], list[Alarm]]:
        """Take the measures of an evaluation; return every figure of it, gaps included, and the alarms."""
        count, total, squares = self._recent
        found = {name: measure for name, measure in measures.items() if measure.count}
        if count:
            found[TRAIN] = Measure.of_sums(int(count), total, squares)
        self._recent = [0.0, 0.0, 0.0]
        for name, measure in found.items():
            self._series.setdefault(name, []).append(measure)
        figures = {name: measure.mean for name, measure in found.items()}
        if TRAIN in found and HIDDEN in found:
            figures[GAP] = found[TRAIN].mean - found[HIDDEN].mean
        alarms = [self._hidden_gap()] if GAP in figures else []
        for name, measure in measures.items():
            if not measure.count:
                limit = self.config.thresholds.abstained
                alarms.append(Alarm("reward_abstains", name, 1.0, limit, detail=measure.cause))
        for name in sorted(found):
            if TRAINED in found and (name == JUDGE or name.startswith(HIDDEN_REWARD)):
                figures |= self._quality_figures(name)
                alarms.append(self._quality_gap(name))
        return figures, [alarm for alarm in alarms if alarm is not None]

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold: plain numbers and lists."""
        series = {name: [[m.mean, m.spread, m.count] for m in found] for name, found in self._series.items()}
        return {"recent": list(self._recent), "series": series}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self._recent = list(state["recent"])
        self._series = {
            name: [Measure(mean, spread, int(count)) for mean, spread, count in found]
            for name, found in state["series"].items()
        }

    def _hidden_gap(self) -> Alarm | None:
        train, hidden = self._pair(TRAIN, HIDDEN)
        errors = [math.hypot(a.rate_error, b.rate_error) for a, b in zip(train, hidden, strict=True)]
        return detectors.hidden_gap(
            [m.mean for m in train],
            [m.mean for m in hidden],
            errors,
            limit=self.config.max_gap,
            window=self.config.gap_window,
            num_errors=self.config.gap_errors,
        )

    def _quality_gap(self, name: str) -> Alarm | None:
        trained, other = self._pair(TRAINED, name)
        return detectors.quality_gap(
            self._normalised(trained),
            self._normalised(other),
            metric=name,
            limit=self.config.max_quality_fall,
            window=self.config.gap_window,
            num_errors=self.config.gap_errors,
        )

    def _quality_figures(self, name: str) -> dict[str, float]:
        trained, other = self._pair(TRAINED, name)
        if len(other) < self.config.gap_window:
            return {}
        key = QUALITY_GAP + name.removeprefix(HIDDEN_REWARD).removeprefix("eval/")
        return {key: self._normalised(trained)[-1][0] - self._normalised(other)[-1][0]}

    def _pair(self, one: str, other: str) -> tuple[list[Measure], list[Measure]]:
        """Two series cut to the same evaluations: a measure may have begun later, or failed at some."""
        a, b = self._series.get(one, []), self._series.get(other, [])
        size = min(len(a), len(b))
        return a[len(a) - size :], b[len(b) - size :]

    def _normalised(self, series: Sequence[Measure]) -> list[tuple[float, float]]:
        """Mean and error in standard deviations of the first window, from its mean."""
        first = series[: self.config.gap_window]
        centre = sum(m.mean for m in first) / len(first)
        scale = next((m.spread for m in series if m.spread > 0), 1.0)
        return [((m.mean - centre) / scale, m.error / scale) for m in series]
