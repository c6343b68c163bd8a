"""A reward for mathematics: one final answer, extracted strictly, compared in killable processes.

Extraction: the last ``\\boxed{}`` decides; an unterminated or empty one is no answer, and so are boxes that
differ. Without a box: one ``<answer>`` element, a last ``#### …`` line, "the answer is …", or a text that
is one short line. Negation and hedging beside the answer earn nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.errors import RewardError
from trimtab.rewards.base import check_result
from trimtab.rewards.forked import ForkedPool, Reply
from trimtab.rewards.math_claim import EITHER, final_answer
from trimtab.rewards.rules import column_of
from trimtab.types import Prompt, RewardResult, Sample


class MathReward:
    """1 when the completion's final answer equals the row's ``column``, else 0."""

    name = "math"

    def __init__(self, column: str = "answer", *, workers: int = 2, seconds: float = 5.0) -> None:
        self.column = column
        self._pool = ForkedPool("trimtab.rewards.math_check:is_equal", workers=workers, seconds=seconds)

    def score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Return one result per sample, in order."""
        results: list[RewardResult | None] = []
        calls: list[dict[str, str]] = []
        for sample in samples:
            try:
                gold = column_of(sample, self.column, self.name)
            except RewardError as error:
                results.append(RewardResult(None, error=str(error)))
                continue
            answer = final_answer(sample.completion, allows_or=bool(EITHER.search(gold)))
            results.append(None if answer is not None else RewardResult(0.0))
            if answer is not None:
                calls.append({"gold": gold, "answer": answer})
        replies = iter(self._pool.map(calls))
        return [result if result is not None else self._result(next(replies)) for result in results]

    def gold_completion(self, prompt: Prompt) -> str:
        """The row's gold answer in a box.

        Raises:
            RewardError: the row has none.
        """
        return f"\\boxed{{{column_of(Sample(prompt, ''), self.column, self.name)}}}"

    def _result(self, reply: Reply) -> RewardResult:
        if reply.is_fault:
            return RewardResult(None, error=f"reward math: no process to compare in ({reply.error})")
        # A deadline or a crash is the answer's doing: it is no answer.
        return check_result(reply.value is True, self.name)

    def close(self) -> None:
        """End the processes."""
        self._pool.close()


def math_reward(column: str = "answer", workers: int = 2, seconds: float = 5.0) -> MathReward:
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
