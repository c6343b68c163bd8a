"""The critic begins at the level of the returns, and learns at a rate of its own (R6, R7)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.trainers.systems import even_share, rl_config, tiny_stage, tiny_system, train
from tests.unit.trainers.test_experience import column
from tests.unit.trainers.test_resume import Interrupted, everything, stop_after

from trimtab.trainers.ppo import critic_peak, levelled, missing_level
from trimtab.types import TrainBatch

ROWS = TrainBatch(
    token_ids=torch.ones(2, 4, dtype=torch.int64),
    attention_mask=torch.ones(2, 4, dtype=torch.bool),
    completion_mask=torch.tensor([[False, True, True, True], [False, True, False, False]]),
    advantages=torch.zeros(2, 4),
    old_values=torch.tensor([[9.0, 0.0, 0.5, 1.0], [9.0, 0.5, 9.0, 9.0]]),
)


@pytest.mark.parametrize("critic", ["separate", "shared"])
def test_the_level_by_hand(critic: str) -> None:
    """R6: returns 2, 2, 2 and 4 less values 0, 0.5, 1 and 0.5: the mean, 2, is added to all values, once."""
    rl = rl_config("ppo", ppo={"critic": critic})
    system = tiny_system(rl)
    learner: Any = system.critic or system.policy
    before = learner.values(ROWS)
    level = missing_level(learner, ROWS, torch.tensor([2.0, 4.0]), None, rl)
    assert level == pytest.approx(2.0)
    made = levelled(learner, ROWS, level)
    assert made.old_values is not None
    assert made.old_values.tolist() == [[0, 2, 2.5, 3], [0, 2.5, 0, 0]]
    moved = (learner.values(ROWS) - before)[ROWS.completion_mask]
    assert moved.tolist() == pytest.approx([2.0] * 4)
    learner.optimizer._steps["some"] = torch.ones(())
    assert missing_level(learner, ROWS, torch.tensor([2.0, 4.0]), None, rl) == 0, (
        "a trained one is left alone"
    )
    assert levelled(learner, ROWS, 0.0) is ROWS


def test_a_penalty_is_part_of_the_returns() -> None:
    """R6: with the KL in the reward the level is that of what the critic will be asked for."""
    rl = rl_config("ppo")
    penalty = torch.tensor([[9.0, 1.0, 0.0, 1.0], [9.0, 0.0, 9.0, 9.0]])
    learner: Any = tiny_system(rl).critic
    # returns 0, 1, 1 and 4
    level = missing_level(learner, ROWS, torch.tensor([2.0, 4.0]), penalty, rl)
    assert level == pytest.approx((0 + 0.5 + 0 + 3.5) / 4)
    assert missing_level(learner, ROWS, torch.tensor([math.nan, 4.0]), penalty, rl) == 0


def explained(root: Path, level: float) -> list[float]:
    """Explained variances of a run whose rewards lie at ``level``."""
    rl = rl_config("ppo", steps=6, num_prompts=4, num_minibatches=2, num_epochs_per_batch=2)
    train(tiny_system(rl, lambda sample: level + even_share(sample)), rl, tiny_stage(root))
    return column(root, "critic/explained_variance")


def test_the_height_of_the_rewards_does_not_matter(tmp_path: Path) -> None:
    """R7: 8 more for every completion teaches neither policy nor critic anything, and disturbs neither.

    From a head of zeros the critic would first climb to 8, at 0.2 per pass, and explain nothing meanwhile.
    """
    low, high = explained(tmp_path / "low", 0.0), explained(tmp_path / "high", 8.0)
    assert high == pytest.approx(low, abs=0.02)
    values = column(tmp_path / "high", "critic/value_mean")
    assert values[0] == pytest.approx(column(tmp_path / "high", "reward/mean")[0], abs=0.2)
    assert min(values) > 7.5


def test_a_resumed_run_is_levelled_once(tmp_path: Path) -> None:
    """Issue 5: stopped after two steps and resumed, weights are those of the whole run."""
    rl = rl_config("ppo", steps=4)
    whole = tiny_system(rl)
    train(whole, rl, tiny_stage(tmp_path / "whole"))
    with pytest.raises(Interrupted):
        train(tiny_system(rl), rl, stop_after(tiny_stage(tmp_path / "b", checkpoint_every=1), 2))
    again = tiny_system(rl)
    train(again, rl, tiny_stage(tmp_path / "b", checkpoint_every=1, is_resumed=True))
    before, after = everything(whole), everything(again)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, 1e-5),
        ({"learning_rate": 2e-4}, 2e-4),
        ({"ppo": {"policy_learning_rate": 5e-5}}, 5e-5),
        ({"ppo": {"critic_learning_rate": 3e-6}}, 3e-6),
    ],
)
def test_its_learning_rate(keys: dict[str, Any], expected: float) -> None:
    """R6: the policy's 1e-6 is no rate for a critic: 1e-5 at least, unless the recipe says one."""
    rl = rl_config("ppo", **{"learning_rate": 1e-6, **keys})
    assert critic_peak(rl) == expected
