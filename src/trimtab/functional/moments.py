"""Mean and deviation of everything seen so far, from batches; no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Moments:
    """Number, mean and sum of squared differences from the mean, as exact as fp64.

    Example:
        >>> Moments().with_values([1.0, 3.0]).std   # unbiased
        1.4142135623730951
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @property
    def std(self) -> float:
        """The unbiased deviation; 0 for fewer than two values."""
        return math.sqrt(self.squares / (self.count - 1)) if self.count > 1 else 0.0

    def with_values(self, values: Sequence[float]) -> Moments:
        """Merge in more values (Chan, Golub, LeVeque 1979); those that are not finite are left out."""
        kept = [value for value in values if math.isfinite(value)]
        if not kept:
            return self
        mean = math.fsum(kept) / len(kept)
        squares = math.fsum((value - mean) ** 2 for value in kept)
        total, shift = self.count + len(kept), mean - self.mean
        return Moments(
            total,
            self.mean + shift * len(kept) / total,
            self.squares + squares + shift**2 * self.count * len(kept) / total,
        )

    def state(self) -> dict[str, float]:
        """What a checkpoint must hold."""
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    @classmethod
    def of_state(cls, state: Mapping[str, float]) -> Moments:
        """What :meth:`state` described."""
        return cls(int(state["count"]), float(state["mean"]), float(state["squares"]))
