"""Controllers of the KL coefficient: fixed, adaptive, and clipped (R15).

The KL that they are given and its target are in the **same unit**: nats **per token**
(``rl.kl.target_per_token``), or nats **per sequence** (``rl.kl.target_per_sequence``), which the literature's
targets of about 6 are. The coefficient weighs the KL in the reward or in the loss alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

from trimtab.config import KLConfig
from trimtab.errors import ConfigError

FLOOR = 1e-4  # the adaptive coefficient never goes under this
MAX_ERROR = 0.2  # the clipped controller's error stays within ± this


class KLController(Protocol):
    """What decides the coefficient of the KL penalty. ``kl_coef`` is the one in force."""

    kl_coef: float

    def update(self, current_kl: float, num_samples: int = 1) -> float:
        """Take the KL measured over ``num_samples`` completions and return the new coefficient."""

    def state(self) -> dict[str, float]:
        """What a checkpoint must hold."""

    def load_state(self, state: Mapping[str, float]) -> None:
        """Go on from :meth:`state`."""


class FixedKLController:
    """The coefficient stays as it is."""

    def __init__(self, init_kl_coef: float = 0.001) -> None:
        self.kl_coef = _checked(init_kl_coef)

    def update(self, current_kl: float, num_samples: int = 1) -> float:
        """Return the coefficient, unchanged."""
        return self.kl_coef

    def state(self) -> dict[str, float]:
        """What a checkpoint must hold."""
        return {"kl_coef": self.kl_coef}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Go on from :meth:`state`."""
        self.kl_coef = float(state["kl_coef"])


class AdaptiveKLController:
    """Each update multiplies the coefficient by 1 + (KL / target − 1) / horizon, never going under 1e-4.

    ``target_kl`` has the unit of the KL that :meth:`update` is given (per token, see above). The number of
    samples plays no part.

    Raises:
        ConfigError: target or horizon not positive, or coefficient negative or not finite.

    Example:
        >>> AdaptiveKLController(init_kl_coef=0.001, target_kl=0.1, horizon=10).update(0.2)
        0.0011
    """

    def __init__(self, init_kl_coef: float = 0.001, target_kl: float = 0.1, horizon: int = 10_000) -> None:
        self.kl_coef = _checked(init_kl_coef, target_kl, horizon)
        self.target_kl = target_kl
        self.horizon = horizon

    def update(self, current_kl: float, num_samples: int = 1) -> float:
        """Return the new coefficient; a KL that is not finite leaves it unchanged."""
        coef = self.kl_coef * (1 + (current_kl / self.target_kl - 1) / self.horizon)
        if math.isfinite(coef):
            self.kl_coef = max(FLOOR, coef)
        return self.kl_coef

    def state(self) -> dict[str, float]:
        """What a checkpoint must hold."""
        return {"kl_coef": self.kl_coef}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Go on from :meth:`state`."""
        self.kl_coef = float(state["kl_coef"])


class ClippedKLController:
    """Multiply by 1 + clip(KL / target − 1, ±0.2) · num_samples / horizon (Ziegler et al. 2019).

    ``horizon`` is in samples: a step of 32 completions moves the coefficient 32 times as far as one of 1, so
    that the pace does not depend on the batch size. A step of more samples than the horizon counts as one
    horizon, which keeps the coefficient positive.

    Raises:
        ConfigError: target or horizon not positive, or coefficient negative or not finite.

    Example:
        >>> ClippedKLController(init_kl_coef=0.1, target_kl=0.1, horizon=100).update(5.0, num_samples=50)
        0.11000000000000001
    """

    def __init__(self, init_kl_coef: float = 0.001, target_kl: float = 0.1, horizon: int = 10_000) -> None:
        self.kl_coef = _checked(init_kl_coef, target_kl, horizon)
        self.target_kl = target_kl
        self.horizon = horizon

    def update(self, current_kl: float, num_samples: int = 1) -> float:
        """Return the new coefficient; a KL that is not finite leaves it unchanged."""
        if math.isfinite(current_kl):
            error = min(MAX_ERROR, max(-MAX_ERROR, current_kl / self.target_kl - 1))
            self.kl_coef *= 1 + error * min(1.0, num_samples / self.horizon)
        return self.kl_coef

    def state(self) -> dict[str, float]:
        """What a checkpoint must hold."""
        return {"kl_coef": self.kl_coef}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Go on from :meth:`state`."""
        self.kl_coef = float(state["kl_coef"])


class BoundedKLController:
    """A controller that sees a moving average of the KL, and whose coefficient stays within bounds.

    The average is that of Adam's moments: m ← s·m + (1 − s)·KL, divided by 1 − sⁿ, so that its start does
    not count as KL 0. A KL that is not finite leaves all as it is.

    Raises:
        ConfigError: ``smoothing`` outside [0, 1), or the bounds are the wrong way round.

    Example:
        >>> inner = AdaptiveKLController(init_kl_coef=0.01, target_kl=0.1, horizon=10)
        >>> BoundedKLController(inner, smoothing=0.5, high=0.012).update(1.0)
        0.012
    """

    def __init__(
        self, inner: KLController, smoothing: float = 0.0, low: float = 0.0, high: float = math.inf
    ) -> None:
        if not 0 <= smoothing < 1:
            raise ConfigError(f"smoothing = {smoothing} must be at least 0 and below 1; try 0.5.")
        if not 0 <= low <= high:
            raise ConfigError(
                f"the bounds {low} and {high} of the KL coefficient must be in order, 0 or more."
            )
        self.inner, self.smoothing, self.low, self.high = inner, smoothing, low, high
        self.kl_coef = inner.kl_coef
        self._sum, self._weight = 0.0, 0.0

    def update(self, current_kl: float, num_samples: int = 1) -> float:
        """Return the new coefficient."""
        if math.isfinite(current_kl):
            self._sum = self.smoothing * self._sum + (1 - self.smoothing) * current_kl
            self._weight = self.smoothing * self._weight + (1 - self.smoothing)
            coef = self.inner.update(self._sum / self._weight, num_samples)
            self.kl_coef = self.inner.kl_coef = min(self.high, max(self.low, coef))
        return self.kl_coef

    def state(self) -> dict[str, float]:
        """What a checkpoint must hold."""
        return {**self.inner.state(), "sum": self._sum, "weight": self._weight}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Go on from :meth:`state`."""
        self.inner.load_state(state)
        self.kl_coef = self.inner.kl_coef
        # A run that had a fixed coefficient until now has no average yet.
        self._sum, self._weight = float(state.get("sum", 0.0)), float(state.get("weight", 0.0))


def build_kl_controller(config: KLConfig) -> KLController:
    """Return the controller that ``rl.kl.controller`` names, with the recipe's smoothing and bounds.

    Its target is ``rl.kl.target_per_sequence`` where that is given, else ``rl.kl.target_per_token``: give it
    the KL in that unit (:func:`controlled_metric`).

    Raises:
        ConfigError: ``clipped`` with a coefficient of 0, which no factor can move.
    """
    if config.controller == "fixed":
        return FixedKLController(config.coef)
    if config.controller == "clipped" and config.coef == 0:
        raise ConfigError(
            'rl.kl.controller = "clipped" can never move rl.kl.coef = 0; start it at 0.001, '
            'or take controller = "fixed".'
        )
    kind = AdaptiveKLController if config.controller == "adaptive" else ClippedKLController
    target = config.target_per_sequence or config.target_per_token
    inner = kind(config.coef, target, config.horizon)
    return BoundedKLController(inner, config.smoothing, config.min_coef, config.max_coef)


def controlled_metric(config: KLConfig) -> str:
    """The metric that the controller follows: the KL in the unit of its target."""
    return "kl/ref" if config.target_per_sequence is None else "kl/ref_sequence"


def _checked(init_kl_coef: float, target_kl: float = 1.0, horizon: float = 1.0) -> float:
    if not (math.isfinite(init_kl_coef) and init_kl_coef >= 0):
        raise ConfigError(f"init_kl_coef = {init_kl_coef} must be a number that is at least 0; try 0.001.")
    if not (math.isfinite(target_kl) and target_kl > 0):
        raise ConfigError(f"target_kl = {target_kl} must be above 0 nats per token; try 0.1.")
    if not (math.isfinite(horizon) and horizon > 0):
        raise ConfigError(f"horizon = {horizon} must be above 0; try 10000.")
    return init_kl_coef
