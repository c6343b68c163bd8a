"""A limit that the reward works against is kept, and the reward rises all the same (R24)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.learning.runs import LAST, SEED_SHIFT, SETTINGS, Table, mean_of
from tests.unit.trainers.systems import rl_config, tiny_stage, tiny_system, train

from trimtab.config import ConstraintConfig
from trimtab.rewards import CombinedReward
from trimtab.runs import metrics_table
from trimtab.trainers.shaping import RewardShaping
from trimtab.types import RewardResult, Sample

TARGET = 0.15
PAYS = (1.0, 0.0, 0.5, 0.0)  # by the remainder of a token id divided by four
# Ids drawn evenly earn 0.375, and seven twos with one four 0.5625. The models of some seeds begin above 0.4.
WANTED = 0.45


class Twos:
    """Pays half for a token id that can be divided by two, and in full by four: those break the limit."""

    name = "twos"

    def score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        return [RewardResult(sum(PAYS[t % 4] for t in s.token_ids) / len(s.token_ids)) for s in samples]


class FewFourths:
    """1 where at most one token id can be divided by four: about a third of a random model's completions."""

    name = "few_fourths"

    def score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        return [RewardResult(float(sum(t % 4 == 0 for t in s.token_ids) <= 1)) for s in samples]


def run(root: Path, seed: int = 1, **constraint: Any) -> Table:
    """Train from scratch with the limit as a constraint, and return the metrics."""
    rl = rl_config(
        "grpo", **{**SETTINGS["grpo"], "num_prompts": 4, "steps": 30}, advantage={"scale": "batch_std"}
    )
    limit = ConstraintConfig(**{"target": TARGET, "learning_rate": 0.5, **constraint})
    reward = CombinedReward([(Twos(), 1.0), (FewFourths(), 1.0)], constraints={1: limit})
    train(tiny_system(rl, reward, seed=SEED_SHIFT), rl, tiny_stage(root), seed=seed + SEED_SHIFT)
    return metrics_table(root, "rl")


def faults(table: Table) -> list[str]:
    """What is wrong: nothing, when the rate ends under its target and the plain reward rose to ``WANTED``."""
    first, last = (mean_of(table, "reward/part/twos", part) for part in (slice(0, LAST), slice(-LAST, None)))
    rate = mean_of(table, "constraint/few_fourths/rate", slice(-LAST, None))
    print(f"reward {first:.3f} → {last:.3f}, violations {rate:.3f}")
    found = [] if last > max(first, WANTED) else [f"the reward went from {first:.3f} to {last:.3f}"]
    return found if rate <= TARGET else [*found, f"{rate:.3f} of the completions break the limit"]


@pytest.mark.parametrize(
    "seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]
)
def test_a_constraint_keeps_its_target_while_the_reward_rises(seed: int, tmp_path: Path) -> None:
    """R24: from two thirds of violations to under the target."""
    table = run(tmp_path, seed)
    assert (table["constraint/few_fourths/rate"][0] or 0.0) > 0.4
    assert faults(table) == []


@pytest.mark.slow
def test_without_weight_the_limit_is_broken(tmp_path: Path) -> None:
    """R24: the conflict is real: where violations cost nothing the reward pays for them."""
    assert "break the limit" in faults(run(tmp_path, max_weight=1e-9))[0]


@pytest.mark.slow
def test_a_penalty_of_the_wrong_sign_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R24: a run that pays for violations does not pass the check that a sound run passes."""
    real = RewardShaping.penalty
    monkeypatch.setattr(RewardShaping, "penalty", lambda self, result: -real(self, result))
    assert "break the limit" in faults(run(tmp_path))[-1]
