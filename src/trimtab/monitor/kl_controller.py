"""Controllers of the KL coefficient: fixed, adaptive, and clipped (R15).

The KL that they are given and its target are in the **same unit**. In this house it is nats **per token**
(``rl.kl.target_per_token``); the literature's targets of about 6 are nats per sequence: divide those by the
response length before using them here. The coefficient weighs the KL in the reward or in the loss alike.
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


def build_kl_controller(config: KLConfig) -> KLController:
    """Return the controller that ``rl.kl.controller`` names; its target is ``rl.kl.target_per_token``.

    Raises:
        ConfigError: ``clipped`` with a coefficient of 0, which no factor can move.
    """
    if config.controller == "fixed":
        return FixedKLController(config.coef)
    if config.controller == "adaptive":
        return AdaptiveKLController(config.coef, config.target_per_token, config.horizon)
    if config.coef == 0:
        raise ConfigError(
            'rl.kl.controller = "clipped" can never move rl.kl.coef = 0; start it at 0.001, '
            'or take controller = "fixed".'
        )
    return ClippedKLController(config.coef, config.target_per_token, config.horizon)


def _checked(init_kl_coef: float, target_kl: float = 1.0, horizon: float = 1.0) -> float:
    if not (math.isfinite(init_kl_coef) and init_kl_coef >= 0):
        raise ConfigError(f"init_kl_coef = {init_kl_coef} must be a number that is at least 0; try 0.001.")
    if not (math.isfinite(target_kl) and target_kl > 0):
        raise ConfigError(f"target_kl = {target_kl} must be above 0 nats per token; try 0.1.")
    if not (math.isfinite(horizon) and horizon > 0):
        raise ConfigError(f"horizon = {horizon} must be above 0; try 10000.")
    return init_kl_coef
