"""Do the data's own answers earn full marks? A row whose gold answer fails would teach the opposite."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from trimtab.errors import DataError, RewardError
from trimtab.rewards.base import Reward, call_reward
from trimtab.rewards.combine import CombinedReward
from trimtab.types import Prompt, RewardResult, Sample

_SHOWN = 5  # rows that are named in an error


@runtime_checkable
class HasGold(Protocol):
    """A reward that knows what a completion that deserves 1 looks like."""

    def gold_completion(self, prompt: Prompt) -> str | None:
        """Return the row's gold answer in the form that is expected; None where the row need not have one.

        Raises:
            RewardError: the row lacks the column that the reward reads.
        """
        ...


@dataclass(frozen=True, slots=True)
class GoldFailure:
    """A row whose gold answer does not earn 1."""

    row: str  # the prompt's id: the column `id`, or the row's number from 0
    reward: str
    gold: str
    reason: str

    def __str__(self) -> str:
        shown = " ".join(self.gold.split())
        shown = shown if len(shown) <= 60 else f"{shown[:59]}…"
        return f"row {self.row}, {self.reward}, gold '{shown}': {self.reason}"


@dataclass(frozen=True, slots=True)
class GoldReport:
    """How many of ``num_rows`` rows were checked, by which rewards, and which of them failed."""

    num_rows: int
    num_checked: int
    rewards: tuple[str, ...]
    failures: tuple[GoldFailure, ...]

    @property
    def scope(self) -> str:
        """``400 rows``, or ``2000 of 7473 rows, drawn at random``."""
        if self.num_checked == self.num_rows:
            return f"{self.num_rows} rows"
        return f"{self.num_checked} of {self.num_rows} rows, drawn at random"

    def describe(self, source: str) -> str:
        """The rows that failed, the first few of them by name."""
        more = len(self.failures) - _SHOWN
        rows = "; ".join(map(str, self.failures[:_SHOWN])) + (f"; and {more} more" if more > 0 else "")
        return f"{len(self.failures)} gold answers of {source} do not earn 1 ({self.scope}): {rows}"


def check_gold(
    reward: CombinedReward, prompts: Sequence[Prompt], limit: int = 2000, seed: int = 0
) -> GoldReport:
    """Score the gold answer of each row with each component that has one; of more than ``limit`` a sample.

    Example:
        >>> from trimtab.rewards.rules import exact_match
        >>> row = Prompt("0", ({"role": "user", "content": "2+2"},), {"answer": "4"})
        >>> check_gold(CombinedReward([(exact_match(), 1.0)]), [row]).failures
        ()
    """
    rows = list(prompts)
    if len(rows) > limit:
        rows = [rows[index] for index in sorted(random.Random(seed).sample(range(len(rows)), limit))]
    failures: list[GoldFailure] = []
    names = []
    for name, (component, _) in zip(reward.names, reward.components, strict=True):
        if isinstance(component, HasGold) and limit > 0:
            is_asked, failed = _check_one(component, name, rows)
            failures += failed
            names += [name] if is_asked else []
    return GoldReport(len(prompts), len(rows), tuple(names), tuple(failures))


def refuse_bad_gold(
    reward: Reward, prompts: Sequence[Prompt], source: str, *, limit: int = 2000, seed: int = 0
) -> None:
    """Raise when a row's gold answer does not earn 1. ``limit`` 0 leaves the check out.

    Raises:
        DataError: names the rows, their gold answers and the reasons.
    """
    if not isinstance(reward, CombinedReward):
        return
    report = check_gold(reward, prompts, limit, seed)
    if report.failures:
        raise DataError(
            f"{report.describe(source)}. Mend or remove these rows, or set rl.gold_rows = 0 to train anyway."
        )


def _check_one(reward: Reward, name: str, rows: Sequence[Prompt]) -> tuple[bool, list[GoldFailure]]:
    """Whether any row has a gold answer for this reward, and the failures."""
    assert isinstance(reward, HasGold)
    failures: list[GoldFailure] = []
    samples: list[Sample] = []
    for prompt in rows:
        try:
            text = reward.gold_completion(prompt)
        except RewardError as error:
            failures.append(GoldFailure(prompt.id, name, "", str(error).rstrip(".")))
            continue
        if text is not None:
            samples.append(Sample(prompt, text))
    for sample, result in zip(samples, call_reward(reward, samples) if samples else (), strict=True):
        reason = _reason(result)
        if reason:
            failures.append(GoldFailure(sample.prompt.id, name, sample.completion, reason))
    return bool(samples or failures), failures


def _reason(result: RewardResult) -> str:
    """Why this is not full marks; empty where it is."""
    if result.value is None:
        return (result.error or "the reward abstains").rstrip(".")
    return "" if result.value >= 1 - 1e-9 else f"it earns {result.value:g}"
