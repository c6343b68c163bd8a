"""The grader of ``task:reasoning_gym``: exact, without the library's credit for parts.

The library's own scorers pay for an answer that contains the gold one, for a valid form, or for a part of a
grid, and some call ``eval`` on the text. Here an answer equals the gold one or earns nothing. Where a puzzle
has many solutions (``VERIFIED``) the library's scorer, which was read and evaluates nothing, may confirm one:
in a killable process, and only its full score counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from trimtab.errors import RewardError
from trimtab.rewards.base import check_result
from trimtab.rewards.forked import ForkedPool
from trimtab.rewards.gold_column import column_of
from trimtab.rewards.one_answer import answers_of, is_same_answer
from trimtab.types import RewardResult, Sample

# Data sets with several right answers whose scorer is a verifier.
VERIFIED = frozenset(
    (
        "group_anagrams",
        "jugs",
        "palindrome_generation",
        "shortest_path",
        "tower_of_hanoi",
        "word_ladder",
    )
)
_MAX_ANSWER = 4000  # characters that a verifier is given


class ReasoningGymReward:
    """1 for the right answer to a problem of ``task:reasoning_gym``, else 0. Needs the task's columns."""

    name = "reasoning_gym"

    def __init__(self, *, workers: int = 2, seconds: float = 10.0) -> None:
        self._pool = ForkedPool(f"{__name__}:is_right", workers=workers, seconds=seconds)

    def score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Return one result per sample, in order."""
        results: list[RewardResult | None] = []
        calls: list[dict[str, Any]] = []
        for sample in samples:
            found = self._compare(sample)
            results.append(found if isinstance(found, RewardResult) else None)
            if not isinstance(found, RewardResult):
                calls.append(found)
        replies = iter(self._pool.map(calls))
        return [result if result is not None else self._result(next(replies)) for result in results]

    def _compare(self, sample: Sample) -> RewardResult | dict[str, Any]:
        """The result, or what has to be asked of the verifier."""
        columns = sample.prompt.columns
        try:
            gold = column_of(sample, "answer", self.name)
            dataset = column_of(sample, "dataset", self.name)
        except RewardError as error:
            return RewardResult(None, error=str(error))
        answers = answers_of(sample)
        if any(is_same_answer(gold, answer) for answer in answers):
            return RewardResult(1.0)
        if dataset not in VERIFIED or not answers or len(answers[0]) > _MAX_ANSWER:
            return RewardResult(0.0)
        return {"dataset": dataset, "answer": answers[0], "entry": columns.get("entry", "")}

    def _result(self, reply: Any) -> RewardResult:
        if reply.is_fault:
            return RewardResult(None, error=f"reward reasoning_gym: no process to verify in ({reply.error})")
        # A deadline or a crash is the answer's doing: it is no answer.
        return check_result(reply.value is True, self.name)

    def close(self) -> None:
        """End the processes."""
        self._pool.close()


def is_right(dataset: str, answer: str, entry: str) -> bool:
    """Whether the library's verifier gives its full score. Runs in a process of its own.

    Args:
        dataset: a name of VERIFIED.
        answer: the one answer of a completion.
        entry: the library's entry as JSON.
    """
    if dataset not in VERIFIED:
        return False
    full: Mapping[str, Any] = json.loads(entry)
    return bool(_scorer(dataset).score_answer(answer, full) == 1.0)


def warm_up() -> None:
    """Import the library once, in the server that forks for every call."""
    import reasoning_gym  # noqa: F401


@cache
def _scorer(dataset: str) -> Any:
    import reasoning_gym

    return reasoning_gym.create_dataset(dataset, size=1, seed=0)


def reasoning_gym_reward(workers: int = 2, seconds: float = 10.0) -> ReasoningGymReward:
    """A ``ReasoningGymReward``; the library is imported only when a puzzle has to be verified.

    Raises:
        RewardError: a limit makes no sense.
    """
    if workers < 1 or not seconds > 0:
        raise RewardError(
            f"Reward reasoning_gym: workers = {workers} must be at least 1 and seconds = {seconds} above 0."
        )
    return ReasoningGymReward(workers=workers, seconds=float(seconds))
