"""The settings that the guard may move while a run goes on, and the one place where they are moved.

Each knob stands at a whole number of notches from the recipe's value, 0 to ``max_notches``, always on the
safe side of it. So totals are bounded, and notch 0 is the recipe's value exactly, not one after rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from trimtab.config import HealConfig, RLConfig

Knob = Literal["learning_rate", "kl_coef", "clip", "entropy_coef", "temperature"]
KNOBS: tuple[Knob, ...] = ("learning_rate", "kl_coef", "clip", "entropy_coef", "temperature")


class Controls:
    """How many notches each knob is away from the recipe.

    Example:
        >>> controls = Controls()
        >>> controls.push("temperature"), controls.notches["temperature"]
        (True, 1)
    """

    def __init__(self, config: HealConfig | None = None) -> None:
        self.config = config or HealConfig()
        self.notches: dict[Knob, int] = dict.fromkeys(KNOBS, 0)

    @property
    def is_neutral(self) -> bool:
        """Whether every setting is the recipe's."""
        return not any(self.notches.values())

    def push(self, knob: Knob) -> bool:
        """Move a knob one notch away from the recipe; False where it stands at its last one."""
        if self.notches[knob] >= self.config.max_notches:
            return False
        self.notches[knob] += 1
        return True

    def relax(self, knob: Knob) -> bool:
        """Move a knob one notch back; False where it stands at the recipe's value."""
        if not self.notches[knob]:
            return False
        self.notches[knob] -= 1
        return True

    def kl_coef(self, coef: float, max_coef: float) -> float:
        """The KL coefficient in force, where the controller says ``coef``; raised to ``max_coef`` at most."""
        notches = self.notches["kl_coef"]
        if not notches:
            return coef
        raised = (coef or self.config.kl_start) * self.config.kl_factor**notches
        return max(coef, min(raised, max_coef))

    def settings(self, rl: RLConfig) -> RLConfig:
        """The recipe's settings with what was moved; the same object where nothing was."""
        if self.is_neutral:
            return rl
        found: dict[str, Any] = {
            "temperature": rl.temperature * self._factor("temperature"),
            "entropy_coef": rl.entropy_coef + self.notches["entropy_coef"] * self.config.entropy_step,
            "learning_rate": rl.learning_rate * self._factor("learning_rate"),
            "clip": rl.clip.model_copy(update=self._clip(rl)),
            "ppo": rl.ppo.model_copy(update=self._ppo(rl)),
        }
        if (
            rl.kl.placement == "loss"
            and self.notches["kl_coef"]
            and rl.kl.estimator not in ("k2", "k3", "mse")
        ):
            # A recipe with coefficient 0 may name an estimator whose gradient is wrong in the loss (trap 1).
            found["kl"] = rl.kl.model_copy(update={"estimator": "k3"})
        return rl.model_copy(update=found)

    def values(self, rl: RLConfig, coef: float) -> dict[Knob, float]:
        """Every setting in force, as the record of an action shows it."""
        now = self.settings(rl)
        return {
            "learning_rate": now.ppo.policy_learning_rate or now.learning_rate,
            "kl_coef": self.kl_coef(coef, rl.kl.max_coef),
            "clip": now.clip.ratio or now.clip.high,
            "entropy_coef": now.entropy_coef,
            "temperature": now.temperature,
        }

    def state(self) -> dict[str, int]:
        """What a checkpoint must hold."""
        return {str(knob): notches for knob, notches in self.notches.items()}

    def load_state(self, state: Mapping[str, int]) -> None:
        """Go on from :meth:`state`."""
        self.notches = {knob: int(state.get(knob, 0)) for knob in KNOBS}

    def _factor(self, knob: Knob) -> float:
        factors: Mapping[Knob, float] = {
            "learning_rate": self.config.lr_factor,
            "clip": self.config.clip_factor,
            "temperature": self.config.temperature_factor,
        }
        return float(factors[knob] ** self.notches[knob])

    def _clip(self, rl: RLConfig) -> dict[str, float | None]:
        share, clip = self._factor("clip"), rl.clip
        return {
            "low": clip.low * share,
            "high": clip.high * share,
            "ratio": None if clip.ratio is None else clip.ratio**share,
            "ratio_max": clip.ratio_max**share,
        }

    def _ppo(self, rl: RLConfig) -> dict[str, float | None]:
        share = self._factor("learning_rate")
        rates = {name: getattr(rl.ppo, name) for name in ("policy_learning_rate", "critic_learning_rate")}
        return {name: None if rate is None else rate * share for name, rate in rates.items()}
