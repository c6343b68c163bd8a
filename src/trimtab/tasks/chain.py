"""Sums and differences of several numbers, worked out line by line: prompts, grader and labelled solutions.

A solution has a line per operation and the answer last: ``3+5=8``, ``8-2=6``, ``答案：6``. In a corrupted
one some lines are wrong: a wrong result, another number or sign than the problem's, another start than the
line before left, or another answer. Each line is judged by itself, given the lines before it: one that
carries an error on rightly is right. A problem belongs to one split for good, as in ``tasks/arithmetic.py``.
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from trimtab.data import Stepwise
from trimtab.errors import DataError, nearest
from trimtab.rewards.base import Reward
from trimtab.rewards.final_number import final_number_reward
from trimtab.types import Message, Prompt

TEMPLATES = {"zh": "逐步计算：{problem}=？", "en": "Work out {problem} step by step."}
ANSWERS = {"zh": "答案：{answer}", "en": "Answer: {answer}"}
CORRUPTIONS = ("result", "number", "sign", "start", "answer")
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
        wrong: probability that a line of a labelled solution is corrupted.
        errors: how, separated by commas: ``result``, ``number``, ``sign``, ``start``, ``answer``.

    Example:
        >>> task = ChainTask(operations=2, language="en")
        >>> solution = task.solutions("train", 1, seed=0)[0]
        >>> len(solution.steps) == len(solution.labels) == 3
        True
    """

    operations: int = 2
    top: int = 9
    language: str = "zh"
    wrong: float = 0.35
    errors: str = ",".join(CORRUPTIONS)
    name: str = "chain"

    def __post_init__(self) -> None:
        if not 2 <= self.operations <= 6:
            raise DataError(f"task:chain: operations = {self.operations} must be 2 to 6.")
        if not 3 <= self.top <= 999:
            raise DataError(f"task:chain: top = {self.top} must be 3 to 999.")
        if not 0 <= self.wrong <= 1:
            raise DataError(f"task:chain: wrong = {self.wrong} must be a share, 0 to 1.")
        for kind in self.kinds:
            if kind not in CORRUPTIONS:
                known = nearest(kind, CORRUPTIONS)
                raise DataError(f"task:chain: errors = {self.errors!r}: {kind!r} is not known{known}.")
        if self.language not in (*TEMPLATES, "both"):
            known = nearest(self.language, [*TEMPLATES, "both"])
            raise DataError(f"task:chain: language = {self.language!r} is not known{known}.")

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of ``errors``."""
        return tuple(kind.strip() for kind in self.errors.split(","))

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
        """Return ``count`` solutions with labelled steps, every line corrupted with probability ``wrong``.

        Raises:
            DataError: an unknown split.
        """
        rng = random.Random(f"chain:solutions:{split}:{seed}")
        return [self._solution(rng, split) for _ in range(count)]

    def lucky(self, split: str, count: int, seed: int) -> list[Stepwise]:
        """Return ``count`` solutions with a right answer and wrong lines: an error, then its undoing.

        The last but one line has a wrong result, and the last one starts from the right one all the same.

        Raises:
            DataError: an unknown split.
        """
        rng = random.Random(f"chain:lucky:{split}:{seed}")
        found = []
        for _ in range(count):
            first, chain, language = self._problem(rng, split)
            lines, answer = worked(first, chain)
            start, _, result = lines[-2].partition("=")
            lines[-2] = f"{start}={_other(rng, int(result))}"
            steps = (*lines, ANSWERS[language].format(answer=answer))
            labels = tuple(float(n not in (len(lines) - 2, len(lines) - 1)) for n in range(len(steps)))
            found.append(Stepwise(_ask(first, chain, language), steps, labels, {"answer": str(answer)}))
        return found

    def _solution(self, rng: random.Random, split: str) -> Stepwise:
        first, chain, language = self._problem(rng, split)
        steps: list[str] = []
        labels: list[float] = []
        value = first
        in_lines = [kind for kind in self.kinds if kind != "answer"]
        for sign, number in chain:
            kind = rng.choice(in_lines) if in_lines and rng.random() < self.wrong else ""
            line, value = _line(rng, kind, (value, sign, number), self.top)
            steps.append(line)
            labels.append(float(not kind))
        is_wrong = "answer" in self.kinds and rng.random() < self.wrong
        steps.append(ANSWERS[language].format(answer=_other(rng, value) if is_wrong else value))
        columns = {"answer": str(results_of(first, chain)[-1])}
        return Stepwise(_ask(first, chain, language), tuple(steps), (*labels, float(not is_wrong)), columns)

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


def _line(rng: random.Random, kind: str, step: tuple[int, str, int], top: int) -> tuple[str, int]:
    """Return a line, right or corrupted in the way of ``kind``, and the result that it shows."""
    value, sign, number = step
    if kind == "start":
        value = _other(rng, value)
    elif kind == "number":
        number = rng.choice([other for other in range(1, top + 1) if other != number])
    elif kind == "sign":
        sign = "-" if sign == "+" else "+"
    result = value + number if sign == "+" else value - number
    if kind == "result":
        result = _other(rng, result)
    return f"{value}{sign}{number}={result}", result


def _other(rng: random.Random, value: int) -> int:
    """Another number near ``value``; one that is not below 0 stays so."""
    return rng.choice([value + off for off in (-10, -3, -2, -1, 1, 2, 3, 10) if value + off >= min(0, value)])


def _written(first: int, chain: list[Operation]) -> str:
    return f"{first}{''.join(f'{sign}{number}' for sign, number in chain)}"


def _ask(first: int, chain: list[Operation], language: str) -> tuple[Message, ...]:
    return ({"role": "user", "content": TEMPLATES[language].format(problem=_written(first, chain))},)


def sft_rows(count: int = 1300, operations: int = 2, seed: int = 0) -> list[dict[str, str]]:
    """Return ``count`` right solutions of different training problems as SFT rows: the committed file's."""
    task = ChainTask(operations=operations, wrong=0.0)
    rows: dict[str, str] = {}
    for solution in task.solutions("train", 8 * count, seed):
        rows.setdefault(solution.prompt[-1]["content"], "\n".join(solution.steps))
    return [{"prompt": prompt, "completion": text} for prompt, text in list(rows.items())[:count]]


def main() -> None:
    """Write the committed file: python -m trimtab.tasks.chain data/math/chain_sft.jsonl."""
    path = Path(sys.argv[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in sft_rows())
    path.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
