"""What the detectors are asked after each step: the series, the start of the run, its best, the cooldown.

The series hold a few windows each, so that a run of any length costs the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from trimtab.config import MonitorConfig
from trimtab.monitor import detectors
from trimtab.monitor.detectors.robust import mean, median
from trimtab.monitor.signals import Alarm

# Watched series; the key is what detectors and checkpoints call them.
WATCHED: Mapping[str, str] = {
    "kl": "kl/ref",
    "reward": "reward/mean",
    "entropy": "policy/entropy",
    "truncated": "completions/truncated",
    "zero_variance": "reward/zero_variance_groups",
    "abstained": "reward/abstained",
    "clipfrac": "policy/clipfrac",
    "distinct_2": "completions/distinct_2",
    "deviation": "reward/std",
    "length": "completions/mean_length",
    "tokens": "train/tokens",
    "grad_norm": "train/grad_norm",
    "explained": "critic/explained_variance",
    "engine": "kl/engine",
    "speed": "speed/tokens_per_s",
    "seconds": "time/step",
    "rate": "train/learning_rate",
}
PART = "reward/part/"
SPAN, LONG_SPAN = 4, 6  # windows that are kept; of the rewards and their components
_STARTS = (
    "entropy",
    "deviation",
    "distinct_2",
    "tokens",
    "speed",
)  # series that are compared with their start
_FLAT = 0.9  # share of groups with equal rewards from which zero_variance says what is wrong
_LATE = 10  # windows after which the form of an answer should be learnt


class Watch:
    """Keeps what the detectors need and asks them; thresholds come from ``[monitor]``.

    A detector is only asked when the step has its metric. NaN and infinity enter no series (an infinite KL
    does: it is too high); the alarm about them names them. An alarm that persists is raised again after
    every ``window`` steps.

    Example:
        >>> watch = Watch()
        >>> [alarm.kind for alarm in watch.see({"kl/ref": 0.7})]
        ['kl_too_high']
    """

    def __init__(self, config: MonitorConfig | None = None) -> None:
        self.config = config or MonitorConfig()
        self.steps = 0  # that were seen
        self._size = max(SPAN * self.config.window, self.config.window + 6)
        self._long = LONG_SPAN * self.config.window
        self._series: dict[str, list[float]] = {name: [] for name in WATCHED}
        self._parts: dict[str, list[float]] = {}
        self._first: dict[str, list[float]] = {name: [] for name in _STARTS}  # first window; entropy: 5 steps
        self._start: dict[str, float] = {}  # its median, once it is full
        self._best: dict[str, float] = {}  # highest mean (critic: median) of a window so far
        self._quiet: dict[str, int] = {}  # steps until an alarm kind may be raised again
        self.standing: list[Alarm] = []  # of the last step, those that were raised before too
        self._rules: Mapping[str, Callable[[list[float]], Iterator[Alarm | None]]] = {
            "kl": self._kl,
            "reward": self._reward,
            "entropy": self._entropy,
            "truncated": self._truncated,
            "zero_variance": self._zero_variance,
            "abstained": self._abstained,
            "clipfrac": self._clipfrac,
            "distinct_2": self._distinct_2,
            "deviation": self._deviation,
            "length": self._length,
            "grad_norm": self._grad_norm,
            "explained": self._explained,
            "engine": self._engine,
            "speed": self._speed,
            "seconds": self._seconds,
        }

    def see(self, metrics: Mapping[str, float]) -> list[Alarm]:
        """Take the metrics of a finished step (our names) and return the alarms that are new."""
        self.steps += 1
        logged = self._take(metrics)
        if self._quiet:
            self._quiet = {kind: left - 1 for kind, left in self._quiet.items() if left > 1}
        found = [detectors.non_finite(metrics)]
        for name in logged:
            if (rule := self._rules.get(name)) is not None:
                found.extend(rule(self._series[name]))
        if self.steps % max(1, self.config.window // 2) == 0:  # slow trends, and dearer to compute
            found.extend(self._trends(logged, metrics))
        self.standing = [alarm for alarm in found if alarm is not None]
        return self.fresh(self.standing)

    def fresh(self, alarms: Sequence[Alarm]) -> list[Alarm]:
        """Those of a kind that is not cooling down, one of each kind; each begins to cool down."""
        new: list[Alarm] = []
        for alarm in alarms:
            if alarm.kind not in self._quiet:
                self._quiet[alarm.kind] = self.config.window
                new.append(alarm)
        return new

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold: plain numbers and lists."""
        return {
            "steps": self.steps,
            "series": {name: list(values) for name, values in self._series.items()},
            "parts": {name: list(values) for name, values in self._parts.items()},
            "first": {name: list(values) for name, values in self._first.items()},
            "start": dict(self._start),
            "best": dict(self._best),
            "quiet": dict(self._quiet),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.steps = int(state["steps"])
        self._series = {name: list(state["series"].get(name, ())) for name in WATCHED}
        self._parts = {name: list(values) for name, values in state["parts"].items()}
        self._first = {name: list(state["first"].get(name, ())) for name in _STARTS}
        self._start, self._best = dict(state["start"]), dict(state["best"])
        self._quiet = dict(state["quiet"])

    def _take(self, metrics: Mapping[str, float]) -> list[str]:
        """Append what this step has; return the names of the series that grew."""
        logged = []
        for name, key in WATCHED.items():
            value = metrics.get(key)
            if value is not None and (math.isfinite(value) or (name == "kl" and value > 0)):
                values = self._series[name]
                values.append(float(value))
                if len(values) > (self._long if name == "reward" else self._size):
                    del values[0]
                logged.append(name)
        if len(self._start) < len(_STARTS):
            self._begin(logged)
        for key, value in metrics.items():
            if key.startswith(PART) and math.isfinite(value):
                values = self._parts.setdefault(key, [])
                values.append(float(value))
                if len(values) > self._long:
                    del values[0]
        return logged

    def _begin(self, logged: Sequence[str]) -> None:
        """Fix the start of a series, once there are enough values."""
        for name in _STARTS:
            if name not in self._start and name in logged:
                first = self._first[name]
                first.append(self._series[name][-1])
                if len(first) == (min(5, self.config.window) if name == "entropy" else self.config.window):
                    self._start[name] = median(first)

    def _kl(self, kl: list[float]) -> Iterator[Alarm | None]:
        config, window = self.config, self.config.window
        if len(kl) >= window:
            self._best["kl"] = max(self._best.get("kl", -math.inf), median(kl[-window:]))
        yield detectors.kl_too_high(kl, config.max_kl, window)
        yield detectors.kl_explosion(kl, config.thresholds.kl_growth, config.max_kl / 2, window)
        if kl[-1] < 0:
            yield detectors.kl_negative(kl, window=window)

    def _reward(self, rewards: list[float]) -> Iterator[Alarm | None]:
        window = self.config.window
        if len(rewards) < window:
            return
        best = max(self._best.get("reward", -math.inf), mean(rewards[-window:]))
        self._best["reward"] = best
        yield detectors.reward_below_best(rewards, best, self.config.thresholds.reward_fall, window)

    def _entropy(self, entropy: list[float]) -> Iterator[Alarm | None]:
        config, window, start = self.config, self.config.window, self._start.get("entropy", math.nan)
        recent, share = min(3, window), config.thresholds.entropy_share
        yield detectors.entropy_low(entropy, start, config.min_entropy, share, recent)
        yield detectors.entropy_falling(entropy, share, window, recent)
        yield detectors.entropy_explosion(
            entropy, start, config.thresholds.entropy_growth, rise=0.3, recent=recent
        )

    def _truncated(self, values: list[float]) -> Iterator[Alarm | None]:
        yield detectors.truncation(values, self.config.thresholds.truncated, self.config.window)

    def _zero_variance(self, values: list[float]) -> Iterator[Alarm | None]:
        yield detectors.zero_variance(values, self.config.thresholds.zero_variance, self.config.window)

    def _abstained(self, values: list[float]) -> Iterator[Alarm | None]:
        yield detectors.reward_abstains(values, self.config.thresholds.abstained)

    def _clipfrac(self, values: list[float]) -> Iterator[Alarm | None]:
        yield detectors.clip_saturation(values, self.config.thresholds.clipfrac, self.config.window)

    def _distinct_2(self, values: list[float]) -> Iterator[Alarm | None]:
        window = self.config.window
        tokens, tokens_start = self._series["tokens"], self._start.get("tokens", 0.0)
        growth = median(tokens[-window:]) / tokens_start if tokens and tokens_start > 0 else 1.0
        start, share = self._start.get("distinct_2", math.nan), self.config.thresholds.distinct_share
        yield detectors.repetition(values, start, share, window, growth)
        if self._series["reward"]:
            yield detectors.reward_hacking(self._series["reward"], values, window, drop=1 - math.sqrt(share))

    def _deviation(self, values: list[float]) -> Iterator[Alarm | None]:
        start = self._start.get("deviation", math.nan)
        yield detectors.reward_saturation(
            values, start, self.config.thresholds.reward_spread, self.config.window
        )

    def _length(self, values: list[float]) -> Iterator[Alarm | None]:
        yield detectors.length_drift(values, self.config.thresholds.length_growth, self.config.window, SPAN)

    def _grad_norm(self, values: list[float]) -> Iterator[Alarm | None]:
        yield detectors.gradient_spike(values, self.config.thresholds.gradient_growth, self.config.window)

    def _explained(self, values: list[float]) -> Iterator[Alarm | None]:
        window = self.config.window
        if len(values) < window:
            return
        best = max(self._best.get("explained", -math.inf), median(values[-window:]))
        self._best["explained"] = best
        limit = self.config.thresholds.explained_variance
        yield detectors.critic_collapse(values, best, limit, window=window)

    def _engine(self, values: list[float]) -> Iterator[Alarm | None]:
        yield detectors.engine_mismatch(values, self.config.thresholds.engine_kl, min(3, self.config.window))

    def _speed(self, values: list[float]) -> Iterator[Alarm | None]:
        start, share = self._start.get("speed", math.nan), self.config.thresholds.speed_share
        yield detectors.throughput_rot(values, start, share, self.config.window)

    def _seconds(self, values: list[float]) -> Iterator[Alarm | None]:
        yield detectors.stall(values, self.config.thresholds.stall_factor, window=self.config.window)

    def _trends(self, logged: Sequence[str], metrics: Mapping[str, float]) -> Iterator[Alarm | None]:
        window, limits = self.config.window, self.config.thresholds
        if "reward" not in logged:
            return
        rewards = self._series["reward"]
        if "kl" in logged:
            yield detectors.kl_drift(self._series["kl"], rewards, limits.kl_drift, window, SPAN)
            yield self._unmoved()
        if "length" in logged:
            yield detectors.reward_by_length(
                rewards, self._series["length"], limits.length_correlation, window=window
            )
        is_late = self.steps >= _LATE * window
        for total, parts in self._families(metrics):
            yield detectors.component_share(total, parts, limits.component_share, 2 * window, is_late=is_late)

    def _unmoved(self) -> Alarm | None:
        """Nothing is asked while the learning rate still warms up, or where equal rewards teach nothing."""
        window, rates, flat = self.config.window, self._series["rate"], self._series["zero_variance"]
        if rates and rates[-1] > rates[-window:][0]:
            return None
        # Groups of PPO hold one completion as a rule, so they are always equal.
        if flat and not self._series["explained"] and median(flat[-window:]) > _FLAT:
            return None
        limit, highest = self.config.thresholds.unmoved_kl, self._best.get("kl", math.inf)
        return detectors.policy_unmoved(self._series["kl"], self._series["reward"], highest, limit, window)

    def _families(self, metrics: Mapping[str, float]) -> Iterator[tuple[list[float], dict[str, list[float]]]]:
        """The reward with its components, and each component with those that it is made of itself."""
        families: dict[str, dict[str, list[float]]] = {}
        for name, values in self._parts.items():
            if name in metrics:
                families.setdefault(name.rsplit("/", 1)[0], {})[name] = values
        for parent, parts in families.items():
            total = self._series["reward"] if parent == PART[:-1] else self._parts.get(parent)
            if total is not None and len(parts) > 1:
                yield total, parts
