"""Sums of one- and two-digit numbers, in Chinese and English, with a strict grader.

A problem belongs to one split for good: a hash of its operands decides, whatever the order of the operands,
the wording or the language, so nothing of the hidden set is ever trained on.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

from trimtab.errors import DataError, nearest
from trimtab.rewards.base import Reward
from trimtab.rewards.final_number import final_number_reward
from trimtab.types import Prompt

TEMPLATES = {"zh": "计算：{problem}=？", "en": "What is {problem}?"}
HIDDEN_SHARE = 5  # one problem in five is hidden


@dataclass(frozen=True, slots=True)
class ArithmeticTask:
    """Prompts such as ``计算：27+45=？`` with the column ``answer``, and the grader that reads it.

    Args:
        digits: operands have at most this many digits, 1 to 3.
        operations: ``+``, ``-`` (never below zero) or both.
        language: ``zh``, ``en`` or ``both``.

    Example:
        >>> task = ArithmeticTask(digits=1, language="en")
        >>> prompt = task.prompts("train", 1, seed=0)[0]
        >>> prompt.text.startswith("What is "), prompt.columns["answer"].isdigit()
        (True, True)
    """

    digits: int = 2
    operations: str = "+"
    language: str = "both"
    name: str = "arithmetic"

    def __post_init__(self) -> None:
        if self.digits not in (1, 2, 3):
            raise DataError(f"task:arithmetic: digits = {self.digits} must be 1, 2 or 3.")
        if not self.operations or set(self.operations) - set("+-"):
            raise DataError(f"task:arithmetic: operations = {self.operations!r} must be '+', '-' or '+-'.")
        if self.language not in (*TEMPLATES, "both"):
            known = nearest(self.language, [*TEMPLATES, "both"])
            raise DataError(f"task:arithmetic: language = {self.language!r} is not known{known}.")

    def prompts(self, split: str, count: int, seed: int) -> list[Prompt]:
        """Return ``count`` prompts of ``train`` or ``hidden``, in random order.

        The train split starts over when it is used up; of the hidden one there are at most as many as exist.

        Raises:
            DataError: an unknown split.
        """
        if split not in ("train", "hidden"):
            raise DataError(f"task:arithmetic has no split {split!r} (known: hidden, train).")
        languages = tuple(TEMPLATES) if self.language == "both" else (self.language,)
        problems = _problems(self.digits, self.operations, split == "hidden")
        pool = [(problem, language) for problem in problems for language in languages]
        count = min(count, len(pool)) if split == "hidden" else count
        rng = random.Random(f"arithmetic:{split}:{seed}")
        chosen: list[tuple[tuple[int, str, int], str]] = []
        while len(chosen) < count:
            chosen += rng.sample(pool, min(count - len(chosen), len(pool)))
        return [
            _prompt(f"arithmetic-{split}-{seed}-{index}", *problem, language)
            for index, (problem, language) in enumerate(chosen)
        ]

    def reward(self) -> Reward:
        """1 for the one right final number, else 0."""
        return final_number_reward("answer", self.name)


def is_hidden(a: int, operation: str, b: int) -> bool:
    """Whether a problem belongs to the hidden split; a+b and b+a are one problem."""
    low, high = sorted((a, b))
    key = f"{low}+{high}" if operation == "+" else f"{a}-{b}"
    return int.from_bytes(sha256(key.encode()).digest()[:4], "big") % HIDDEN_SHARE == 0


@cache
def _problems(digits: int, operations: str, hidden: bool) -> Sequence[tuple[int, str, int]]:
    top = 10**digits
    return tuple(
        (a, operation, b)
        for operation in operations
        for a in range(top)
        for b in range(top)
        if (operation == "+" or a >= b) and is_hidden(a, operation, b) == hidden
    )


def _prompt(row: str, a: int, operation: str, b: int, language: str) -> Prompt:
    text = TEMPLATES[language].format(problem=f"{a}{operation}{b}")
    answer = a + b if operation == "+" else a - b
    return Prompt(row, ({"role": "user", "content": text},), {"answer": str(answer)})
