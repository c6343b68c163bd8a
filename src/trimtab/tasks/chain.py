"""Sums and differences of several numbers, worked out step by step, with a grader and with labelled solutions.

A solution has one line per operation and the answer last: ``3+5=8``, ``8-2=6``, ``答案：6``. A corrupted one
has a line with a wrong result, a wrong number or a wrong sign; a step is right when its line and every line
before it are right. A problem belongs to one split for good, as in ``tasks/arithmetic.py``.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from hashlib import sha256

from trimtab.data import Stepwise
from trimtab.errors import DataError, nearest
from trimtab.rewards.base import Reward
from trimtab.rewards.final_number import final_number_reward
from trimtab.types import Message, Prompt

TEMPLATES = {"zh": "逐步计算：{problem}=？", "en": "Work out {problem} step by step."}
ANSWERS = {"zh": "答案：{answer}", "en": "Answer: {answer}"}
CORRUPTIONS = ("result", "number", "sign", "slip")  # a slip is a wrong line that the others do not follow
HIDDEN_SHARE = 5  # one problem in five is hidden
_MAX_TRIES = 10_000

Operation = tuple[str, int]


@dataclass(frozen=True, slots=True)
class ChainTask:
    """Prompts such as ``逐步计算：3+5-2=？`` with the column ``answer``, and the grader that reads it.

    Args:
        operations: additions and subtractions per problem, 2 to 6.
        top: largest number in a problem; no intermediate result is below 0.
        language: ``zh``, ``en`` or ``both``.
        wrong: share of labelled solutions that are corrupted.

    Example:
        >>> task = ChainTask(operations=2, language="en")
        >>> solution = task.solutions("train", 1, seed=0)[0]
        >>> len(solution.steps) == len(solution.labels) == 3
        True
    """

    operations: int = 3
    top: int = 9
    language: str = "zh"
    wrong: float = 0.6
    name: str = "chain"

    def __post_init__(self) -> None:
        if not 2 <= self.operations <= 6:
            raise DataError(f"task:chain: operations = {self.operations} must be 2 to 6.")
        if not 3 <= self.top <= 999:
            raise DataError(f"task:chain: top = {self.top} must be 3 to 999.")
        if not 0 <= self.wrong <= 1:
            raise DataError(f"task:chain: wrong = {self.wrong} must be a share, 0 to 1.")
        if self.language not in (*TEMPLATES, "both"):
            known = nearest(self.language, [*TEMPLATES, "both"])
            raise DataError(f"task:chain: language = {self.language!r} is not known{known}.")

    def prompts(self, split: str, count: int, seed: int) -> list[Prompt]:
        """Return ``count`` prompts of ``train`` or ``hidden``; no problem is in both.

        Raises:
            DataError: an unknown split.
        """
        rng = random.Random(f"chain:prompts:{split}:{seed}")
        found = []
        for number in range(count):
            first, chain, language = self._problem(rng, split)
            columns = {"answer": str(results_of(first, chain)[-1])}
            found.append(Prompt(f"chain-{split}-{seed}-{number}", _ask(first, chain, language), columns))
        return found

    def reward(self) -> Reward:
        """1 for the one right final number, else 0."""
        return final_number_reward("answer", self.name)

    def solutions(self, split: str, count: int, seed: int) -> list[Stepwise]:
        """Return ``count`` solutions with labelled steps, a share ``wrong`` of them corrupted.

        ``columns["corruption"]`` names the kind (one of CORRUPTIONS), or is empty.

        Raises:
            DataError: an unknown split.
        """
        rng = random.Random(f"chain:solutions:{split}:{seed}")
        return [self._solution(rng, split) for _ in range(count)]

    def _solution(self, rng: random.Random, split: str) -> Stepwise:
        first, chain, language = self._problem(rng, split)
        kind = rng.choice(CORRUPTIONS) if rng.random() < self.wrong else ""
        lines, answer, error = (
            corrupted(rng, first, chain, kind, self.top) if kind else (*worked(first, chain), None)
        )
        steps = (*lines, ANSWERS[language].format(answer=answer))
        labels = tuple(float(error is None or number < error) for number in range(len(steps)))
        columns = {"answer": str(results_of(first, chain)[-1]), "corruption": kind}
        return Stepwise(_ask(first, chain, language), steps, labels, columns)

    def _problem(self, rng: random.Random, split: str) -> tuple[int, list[Operation], str]:
        if split not in ("train", "hidden"):
            raise DataError(f"task:chain has no split {split!r} (known: hidden, train).")
        languages = tuple(TEMPLATES) if self.language == "both" else (self.language,)
        for _ in range(_MAX_TRIES):
            first = rng.randint(1, self.top)
            chain = [(rng.choice("+-"), rng.randint(1, self.top)) for _ in range(self.operations)]
            if min(results_of(first, chain)) >= 0 and is_hidden(first, chain) == (split == "hidden"):
                return first, chain, rng.choice(languages)
        raise DataError("task:chain found no problem with these options; raise top.")


def results_of(first: int, chain: list[Operation]) -> list[int]:
    """Return the result after each operation."""
    results, value = [], first
    for sign, number in chain:
        value = value + number if sign == "+" else value - number
        results.append(value)
    return results


def is_hidden(first: int, chain: list[Operation]) -> bool:
    """Whether a problem belongs to the hidden split."""
    return int.from_bytes(sha256(_written(first, chain).encode()).digest()[:4], "big") % HIDDEN_SHARE == 0


def worked(first: int, chain: list[Operation]) -> tuple[list[str], int]:
    """Return the lines of the right solution, and its answer."""
    lines, value = [], first
    for (sign, number), result in zip(chain, results_of(first, chain), strict=True):
        lines.append(f"{value}{sign}{number}={result}")
        value = result
    return lines, value


def corrupted(
    rng: random.Random, first: int, chain: list[Operation], kind: str, top: int
) -> tuple[list[str], int, int]:
    """Return the lines of a wrong solution, its answer, and the number of the first wrong line, from 0.

    ``result``: a wrong sum, carried on. ``number`` and ``sign``: another number or sign than the problem's,
    worked out rightly and carried on. ``slip``: a wrong sum that the next line does not use, so that the
    answer is right.
    """
    at = rng.randrange(len(chain))
    lines, value = [], first
    for number, (sign, operand) in enumerate(chain):
        if number == at and kind == "number":
            operand = rng.choice([other for other in range(1, top + 1) if other != operand])
        elif number == at and kind == "sign":
            sign = "-" if sign == "+" else "+"
        right = value + operand if sign == "+" else value - operand
        shown = right
        if number == at and kind in ("result", "slip"):
            shown = rng.choice([right + off for off in (-10, -2, -1, 1, 2, 10) if right + off >= 0])
        lines.append(f"{value}{sign}{operand}={shown}")
        value = right if kind == "slip" else shown
    return lines, value, at


def _written(first: int, chain: list[Operation]) -> str:
    return f"{first}{''.join(f'{sign}{number}' for sign, number in chain)}"


def _ask(first: int, chain: list[Operation], language: str) -> tuple[Message, ...]:
    return ({"role": "user", "content": TEMPLATES[language].format(problem=_written(first, chain))},)
