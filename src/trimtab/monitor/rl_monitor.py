"""The health check of R18: three rules over what was logged."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.config import MonitorConfig
from trimtab.monitor.detectors import entropy_collapse, kl_too_high, non_finite, reward_falling
from trimtab.monitor.signals import Alarm

# The spelling of R17, then ours.
_KEYS: Mapping[str, tuple[str, str]] = {
    "kl": ("kl_divergence", "kl/ref"),
    "reward": ("mean_reward", "reward/mean"),
    "entropy": ("entropy", "policy/entropy"),
}


class RLMonitor:
    """Keeps the last KL, reward and entropy values and says whether the run is healthy.

    - mean of the last ``window`` KL values (of those there are, while fewer) above ``max_kl``: KL too high;
    - with more than 2 · ``window`` rewards, mean of the last ``window`` below that of the ``window`` before:
      reward falling;
    - last entropy below ``min_entropy``: too little diversity;
    - a last value that is NaN or infinite: numerical crash.

    Example:
        >>> monitor = RLMonitor()
        >>> monitor.log({"kl_divergence": 0.1, "mean_reward": 0.4, "entropy": 2.0})
        >>> monitor.check_health()
        {'healthy': True, 'issues': []}
    """

    def __init__(
        self, max_kl: float = 0.5, min_entropy: float = 0.5, window: int = 10, language: str = "en"
    ) -> None:
        self.max_kl, self.min_entropy, self.window, self.language = max_kl, min_entropy, window, language
        self._series: dict[str, deque[float]] = {name: deque(maxlen=2 * window + 1) for name in _KEYS}

    def log(self, stats: Mapping[str, Any]) -> None:
        """Take the figures of one step, spelled as in R17 or as ours; missing and None ones are skipped."""
        for name, keys in _KEYS.items():
            value = next((stats[key] for key in keys if stats.get(key) is not None), None)
            if value is not None:
                self._series[name].append(float(value))

    def check_health(self, language: str | None = None) -> dict[str, Any]:
        """Return ``{"healthy": bool, "issues": [one sentence with its remedy each]}``."""
        issues = [alarm.message(language or self.language) for alarm in self.alarms()]
        return {"healthy": not issues, "issues": issues}

    def alarms(self) -> list[Alarm]:
        """The issues as alarms, which explain themselves in both languages."""
        kl, rewards, entropy = (list(self._series[name]) for name in _KEYS)
        last = {_KEYS[name][1]: series[-1] for name, series in self._series.items() if series}
        found = (
            non_finite(last),
            kl_too_high(kl, self.max_kl, self.window),
            reward_falling(rewards, self.window),
            entropy_collapse(entropy, self.min_entropy),
        )
        return [alarm for alarm in found if alarm is not None]

    def state(self) -> dict[str, Sequence[float]]:
        """What a checkpoint must hold."""
        return {name: list(series) for name, series in self._series.items()}

    def load_state(self, state: Mapping[str, Sequence[float]]) -> None:
        """Go on from :meth:`state`."""
        for name, series in self._series.items():
            series.clear()
            series.extend(state.get(name, ()))


def build_monitor(config: MonitorConfig) -> RLMonitor:
    """Return the monitor with the thresholds of ``[monitor]``."""
    return RLMonitor(config.max_kl, config.min_entropy, config.window, config.language)
