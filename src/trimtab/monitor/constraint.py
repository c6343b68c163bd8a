"""The weight of a constraint: a Lagrange multiplier that follows the measured rate of violations (R24).

maximise E[reward] subject to E[violation] ≤ target has the Lagrangian E[reward] − λ·(E[violation] − target).
The policy ascends it; after each step λ ascends its dual, projected onto [0, max_weight]:

    λ ← min(max_weight, max(0, λ + learning_rate · (rate − aim)))        aim = target − margin

A weight that steers at the limit itself swings about it, above it half of the time; a margin steers below it.
Sources: projected dual ascent, Bertsekas, Nonlinear Programming, ch. 6; for language models Dai et al. 2023
(Safe RLHF), who move log λ instead and can so never come back from 0. ``damping`` adds the proportional
term of Stooke et al. 2020 (PID Lagrangian), the augmented Lagrangian of Bertsekas: the weight in force is
λ + damping · (rate − aim), projected likewise. It reacts to this step's rate and leaves no memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from trimtab.config import ConstraintConfig
from trimtab.errors import ConfigError


class ConstraintController:
    """Decides what one violation costs. ``weight`` is the one in force, in units of the reward.

    Raises:
        ConfigError: a setting is not finite or out of its range.

    Example:
        >>> controller = ConstraintController(target=0.05, learning_rate=1.0)
        >>> controller.update(0.55)
        0.5
        >>> controller.update(0.0)
        0.45
    """

    def __init__(
        self,
        target: float = 0.05,
        learning_rate: float = 0.5,
        initial_weight: float = 0.0,
        max_weight: float = 10.0,
        damping: float = 0.0,
        margin: float = 0.0,
    ) -> None:
        self.target = _checked("target", target, 0.0, 1.0)
        self.margin = _checked("margin", margin, 0.0, self.target)
        self.learning_rate = _checked("learning_rate", learning_rate, 0.0)
        self.max_weight = _checked("max_weight", max_weight, 0.0)
        self.damping = _checked("damping", damping, 0.0)
        self.multiplier = _checked("initial_weight", initial_weight, 0.0, self.max_weight)
        self.weight = self.multiplier

    @classmethod
    def of(cls, config: ConstraintConfig) -> ConstraintController:
        """The controller of a recipe's ``constraint`` table."""
        return cls(**config.model_dump())

    def update(self, rate: float) -> float:
        """Take the share of violations measured over a step, in 0..1; return the new weight.

        A rate that is not finite leaves the weight unchanged; one outside 0..1 is taken to the nearer end.
        """
        if math.isfinite(rate):
            error = min(1.0, max(0.0, rate)) - (self.target - self.margin)
            self.multiplier = self._projected(self.multiplier + self.learning_rate * error)
            self.weight = self._projected(self.multiplier + self.damping * error)
        return self.weight

    def state(self) -> dict[str, float]:
        """What a checkpoint must hold."""
        return {"multiplier": self.multiplier, "weight": self.weight}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Go on from :meth:`state`."""
        self.multiplier = float(state["multiplier"])
        self.weight = float(state["weight"])

    def _projected(self, weight: float) -> float:
        return min(self.max_weight, max(0.0, weight))


def _checked(name: str, value: float, low: float, high: float = math.inf) -> float:
    if not (math.isfinite(value) and low <= value <= high):
        bounds = f"at least {low:g}" if high == math.inf else f"within {low:g} and {high:g}"
        raise ConfigError(f"constraint: {name} = {value} must be a number {bounds}.")
    return value
