"""``task:sales_logic``: prompts in Chinese and English, and the strict grader."""

from __future__ import annotations

import random
from dataclasses import dataclass

from trimtab.rewards.base import Reward
from trimtab.rewards.sales_logic import sales_logic_reward
from trimtab.tasks.draw import LANGUAGES, check_choice, draw_problems
from trimtab.tasks.sales_logic.problems import GENERATORS, LEVELS, SalesProblem
from trimtab.types import Prompt


@dataclass(frozen=True, slots=True)
class SalesLogicTask:
    """Problems about prices, dates and plans, with the columns ``answer`` and ``form``.

    Args:
        kind: ``discount_total``, ``delivery_date``, ``plan_selection`` or ``all``.
        level: 0 one step, 1 a condition more, 2 two more.
        language: ``zh``, ``en`` or ``both``.

    Example:
        >>> prompt = SalesLogicTask(kind="plan_selection", language="en").prompts("train", 1, seed=0)[0]
        >>> prompt.columns["answer"] in "AB"
        True
    """

    kind: str = "all"
    level: int = 0
    language: str = "both"
    name: str = "sales_logic"

    def __post_init__(self) -> None:
        check_choice(self.name, "kind", self.kind, (*GENERATORS, "all"))
        check_choice(self.name, "level", self.level, LEVELS)
        check_choice(self.name, "language", self.language, (*LANGUAGES, "both"))

    def prompts(self, split: str, count: int, seed: int) -> list[Prompt]:
        """Return ``count`` prompts of ``train`` or ``hidden``; of the hidden ones at most those that exist.

        Raises:
            DataError: an unknown split.
        """
        problems = draw_problems(self.name, self._make, split, count, seed)
        rng = random.Random(f"languages:{split}:{seed}")
        return [
            self._prompt(f"sales_logic-{split}-{seed}-{index}", problem, rng)
            for index, problem in enumerate(problems)
        ]

    def reward(self) -> Reward:
        """1 for the one right final answer, else 0."""
        return sales_logic_reward()

    def _make(self, rng: random.Random) -> SalesProblem:
        kind = rng.choice(list(GENERATORS)) if self.kind == "all" else self.kind
        return GENERATORS[kind](rng, self.level)

    def _prompt(self, row: str, problem: SalesProblem, rng: random.Random) -> Prompt:
        language = rng.choice(LANGUAGES) if self.language == "both" else self.language
        messages = ({"role": "user", "content": problem.text(language)},)
        return Prompt(row, messages, {"answer": problem.answer, "form": problem.form})
