"""A reward for mathematics: one final answer, extracted strictly, compared in killable processes.

What a completion's answer is, ``math_claim`` decides; whether it is a gold answer's, ``math_check`` does.
"""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.errors import RewardError
from trimtab.rewards.base import check_result
from trimtab.rewards.forked import ForkedPool, Reply
from trimtab.rewards.gold_column import DEFAULT, final_of, golds_of
from trimtab.rewards.math_check import is_readable
from trimtab.rewards.math_claim import EITHER, SEVERAL, final_answer
from trimtab.types import Prompt, RewardResult, Sample


class MathReward:
    """1 when the completion's final answer equals an accepted one of the row's ``column``, else 0."""

    name = "math"

    def __init__(self, column: str = DEFAULT, *, workers: int = 2, seconds: float = 5.0) -> None:
        self.column = column
        self._pool = ForkedPool("trimtab.rewards.math_check:is_one_of", workers=workers, seconds=seconds)

    def score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Return one result per sample, in order."""
        results: list[RewardResult | None] = []
        calls: list[dict[str, object]] = []
        for sample in samples:
            try:
                golds = self._accepted(sample)
            except RewardError as error:
                results.append(RewardResult(None, error=str(error)))
                continue
            answer = final_answer(
                sample.completion,
                allows_or=any(map(EITHER.search, golds)),
                is_several=any(map(SEVERAL.search, golds)),
            )
            results.append(None if answer is not None else RewardResult(0.0))
            if answer is not None:
                calls.append({"golds": golds, "answer": answer})
        replies = iter(self._pool.map(calls))
        return [result if result is not None else self._result(next(replies)) for result in results]

    def gold_completion(self, prompt: Prompt) -> str:
        """The row's first gold answer in a box.

        Raises:
            RewardError: the row has none.
        """
        return self.written(self.gold_answers(prompt)[0])

    def gold_answers(self, prompt: Prompt) -> tuple[str, ...]:
        """All accepted answers of the row; of whole solutions the final ones.

        Raises:
            RewardError: the row has none.
        """
        return self._accepted(Sample(prompt, ""))

    def written(self, answer: str) -> str:
        """A completion that gives this answer."""
        return f"\\boxed{{{answer}}}"

    def reads(self, answer: str) -> bool:
        """Whether an answer is compared as mathematics (or as a word), and not only as the same writing."""
        return is_readable(answer)

    def _accepted(self, sample: Sample) -> tuple[str, ...]:
        return tuple(dict.fromkeys(final_of(gold) for gold in golds_of(sample, self.column, self.name)))

    def _result(self, reply: Reply) -> RewardResult:
        if reply.is_fault:
            return RewardResult(None, error=f"reward math: no process to compare in ({reply.error})")
        # A deadline or a crash is the answer's doing: it is no answer.
        return check_result(reply.value is True, self.name)

    def close(self) -> None:
        """End the processes."""
        self._pool.close()


def math_reward(column: str = DEFAULT, workers: int = 2, seconds: float = 5.0) -> MathReward:
    """A ``MathReward``.

    Raises:
        RewardError: sympy is not installed, or a limit makes no sense.
    """
    from importlib.util import find_spec

    if find_spec("sympy") is None:
        raise RewardError("Reward math needs sympy: install it with `pip install 'trimtab[math]'`.")
    if workers < 1 or not seconds > 0:
        raise RewardError(
            f"Reward math: workers = {workers} must be at least 1 and seconds = {seconds} above 0."
        )
    return MathReward(column, workers=workers, seconds=float(seconds))
