"""What a reward is, and which values are accepted from one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from numbers import Real
from typing import Any, Protocol, runtime_checkable

from trimtab.types import RewardResult, Sample

# Rewards become float32 and are squared for their deviation: the square of 1e18 is still finite.
MAX_REWARD = 1e18
NOT_FINITE = "not a finite number"  # in the error of every value that is NaN or infinite


@runtime_checkable
class Reward(Protocol):
    """Scores completions. A reward that cannot judge one abstains (``value`` None); it never says 0 for that.

    ``value`` None with ``error`` means that it failed; without ``error`` that it does not apply to the row.
    """

    @property
    def name(self) -> str:
        """What the reward's value is called in records."""
        ...

    def score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Return one result per sample, in order."""
        ...


def check_result(value: Any, name: str, low: float = -MAX_REWARD, high: float = MAX_REWARD) -> RewardResult:
    """Turn whatever a reward returned for one sample into a result; anything doubtful is an error, never 0.

    Numbers (numpy scalars and one-element tensors too) within [low, high] are accepted, booleans as 0 and 1,
    None as "does not apply". NaN, infinity, complex numbers, strings and containers become an error.

    Example:
        >>> check_result(float("nan"), "mine").error
        'reward mine returned nan, which is not a finite number'
    """
    if value is None:
        return RewardResult(None)
    number = _plain_number(value)
    if number is None:
        shown = repr(value)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        return RewardResult(None, error=f"reward {name} returned {shown}, which is not a number")
    if not math.isfinite(number):
        return RewardResult(None, error=f"reward {name} returned {number}, which is {NOT_FINITE}")
    if not low <= number <= high:
        error = f"reward {name} returned {number:g}, which is outside its range {low:g} to {high:g}"
        return RewardResult(None, error=error)
    return RewardResult(number)


def abstain_all(count: int, error: str) -> list[RewardResult]:
    """Return ``count`` results that abstain for the same reason."""
    return [RewardResult(None, error=error) for _ in range(count)]


def call_reward(reward: Reward, samples: Sequence[Sample]) -> list[RewardResult]:
    """Score ``samples``; after an exception or a wrong number of results all abstain."""
    try:
        results = list(reward.score(samples))
    except Exception as error:  # a user's code may raise anything; the run must survive it
        return abstain_all(len(samples), f"reward {reward.name} failed: {describe(error)}")
    if len(results) != len(samples):
        wrong = f"reward {reward.name} returned {len(results)} results for {len(samples)} samples"
        return abstain_all(len(samples), wrong)
    return [
        result if isinstance(result, RewardResult) else check_result(result, reward.name)
        for result in results
    ]


def why_silent(results: Sequence[RewardResult]) -> str:
    """Why these results hold no reward, in the words of the error that most of them have; empty where all do.

    Example:
        >>> why_silent([RewardResult(None, error="reward a failed"), RewardResult(0.5)])
        'reward a failed (1 of 2 completions)'
    """
    silent = [result.error for result in results if result.value is None]
    if not silent:
        return ""
    error, count = Counter(silent).most_common(1)[0]
    words = error or "it returned None, which says that it does not apply"
    return f"{words.rstrip('.')} ({count} of {len(results)} completions)"


def describe(error: BaseException) -> str:
    """Return an exception as one short line: its type and its message."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message[:300]}" if message else type(error).__name__


def _plain_number(value: Any) -> float | None:
    """Return a real number as float (infinite when it does not fit), None for anything else."""
    if not isinstance(value, Real):
        item = getattr(value, "item", None)  # numpy scalars and one-element arrays or tensors
        try:
            value = item() if callable(item) else None
        except (TypeError, ValueError, RuntimeError):
            return None
        if not isinstance(value, Real):
            return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
