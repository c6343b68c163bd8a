"""The gold answers of a recipe's data: each must earn 1, or the run would be taught the opposite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from trimtab.cli.checks.line import CheckLine
from trimtab.config import Recipe
from trimtab.rewards.gold import GoldReport, check_gold
from trimtab.rewards.registry import build_reward, uses_reward_model
from trimtab.types import Prompt


def check_gold_answers(recipe: Recipe, sets: Mapping[str, Sequence[Prompt]]) -> Iterator[CheckLine]:
    """Score the gold answers of every set (by the recipe's key) with the rewards that know a gold answer.

    Nothing is said where no reward does. Rewards that need a reward model have no gold and are not loaded.
    """
    rl = recipe.rl
    assert rl is not None
    specs = [s for s in rl.rewards if not (uses_reward_model([s]) or s.name == "reward_model")]
    if not specs:
        return
    if rl.gold_rows == 0:
        yield CheckLine("warn", "gold answers", "they are not checked", "leave out rl.gold_rows = 0")
        return
    reward = build_reward(specs, device=recipe.model.device)
    for key, prompts in sets.items():
        report = check_gold(reward, prompts, rl.gold_rows, recipe.seed)
        if report.failures:
            fix = "mend or remove these rows, or set rl.gold_rows = 0"
            yield CheckLine("fail", "gold answers", report.describe(key), fix)
        elif report.rewards:
            shown = f"those of {key} earn 1 by {', '.join(report.rewards)} ({report.scope})"
            yield CheckLine("pass", "gold answers", shown)
        yield from _doubtful(report, key)


def _doubtful(report: GoldReport, key: str) -> Iterator[CheckLine]:
    """What earns 1 and may still teach something else than it seems."""
    if report.doubts:
        fix = "the reward leaves out a part of these answers: write them in a form of docs/rewards.md"
        yield CheckLine("warn", "gold answers", report.describe_doubts(key), fix)
    if report.as_written:
        fix = "write them in a form of docs/rewards.md, or ask for exactly this writing in the prompt"
        yield CheckLine("warn", "gold answers", report.describe_as_written(key), fix)
