"""``task:code``: small programming problems, visible and hidden tests, and the sandboxed grader."""

from __future__ import annotations

import random
from dataclasses import dataclass

from trimtab.rewards.base import Reward
from trimtab.rewards.code_tests import code_reward
from trimtab.tasks.code.problems import FAMILIES, CodeProblem
from trimtab.tasks.draw import LANGUAGES, check_choice, draw_problems
from trimtab.types import Prompt

FORMS = ("function", "program")
LEVELS = sorted({family.level for family in FAMILIES.values()})


@dataclass(frozen=True, slots=True)
class CodeTask:
    """Problems such as "write f(x) that returns x plus 3", with ``tests`` and ``hidden_tests``.

    Args:
        level: 0 one operation, 1 two steps or a condition, 2 lists and texts.
        form: ``function`` (called), ``program`` (stdin and stdout) or ``both``.
        language: ``zh``, ``en`` or ``both``.

    Example:
        >>> prompt = CodeTask(language="en").prompts("train", 1, seed=0)[0]
        >>> sorted(prompt.columns)
        ['hidden_tests', 'solution', 'tests']
    """

    level: int = 1
    form: str = "function"
    language: str = "both"
    name: str = "code"

    def __post_init__(self) -> None:
        check_choice(self.name, "level", self.level, tuple(LEVELS))
        check_choice(self.name, "form", self.form, (*FORMS, "both"))
        check_choice(self.name, "language", self.language, (*LANGUAGES, "both"))

    def prompts(self, split: str, count: int, seed: int) -> list[Prompt]:
        """Return ``count`` prompts of ``train`` or ``hidden``; of the hidden ones at most those that exist.

        Raises:
            DataError: an unknown split.
        """
        problems = draw_problems(self.name, self._make, split, count, seed)
        return [_prompt(f"code-{split}-{seed}-{index}", problem) for index, problem in enumerate(problems)]

    def reward(self) -> Reward:
        """1 when every visible and every hidden test passes in the sandbox, else 0."""
        return code_reward()

    def _make(self, rng: random.Random) -> CodeProblem:
        family = rng.choice([family for family in FAMILIES.values() if family.level == self.level])
        values = tuple(rng.randint(low, high) for low, high in family.ranges)
        form = rng.choice(FORMS) if self.form == "both" else self.form
        language = rng.choice(LANGUAGES) if self.language == "both" else self.language
        return CodeProblem(family, values, form, language)


def _prompt(row: str, problem: CodeProblem) -> Prompt:
    visible, hidden = problem.cases()
    columns = {"tests": visible, "hidden_tests": hidden, "solution": problem.solution}
    return Prompt(row, ({"role": "user", "content": problem.text},), columns)
