"""Runs that learn, and runs broken on purpose that must not pass for one (R7, R14)."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.learning.runs import MIN_RISE, SETTINGS, critic_faults, reward_faults, run
from tests.unit.trainers.systems import FunctionReward
from torch import Tensor

from trimtab.distributed.build import System
from trimtab.distributed.interfaces import Scores
from trimtab.errors import DivergedError
from trimtab.runs import read_events
from trimtab.trainers import grpo, ppo


def test_grpo_learns(tmp_path: Path) -> None:
    """R8: the reward rises."""
    assert reward_faults(run(tmp_path, "grpo"), MIN_RISE["grpo"]) == []


def test_ppo_learns(tmp_path: Path) -> None:
    """R7: the reward rises and the critic's explained variance becomes positive."""
    table = run(tmp_path, "ppo")
    assert reward_faults(table, MIN_RISE["ppo"]) == []
    assert critic_faults(table) == []
    assert abs(table["critic/explained_variance"][0] or 0.0) < 0.02  # a head of zeros explains nothing yet


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_other_seeds_learn_too(algorithm: str, seed: int, tmp_path: Path) -> None:
    """R7: it is not the luck of one seed."""
    table = run(tmp_path, algorithm, seed)
    assert reward_faults(table, MIN_RISE[algorithm]) == []
    assert algorithm == "grpo" or critic_faults(table) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "algorithm", ["dr_grpo", "dapo", "rloo", "reinforce_plus_plus", "cispo", "gspo", "deepseek_r1"]
)
def test_the_relatives_learn(algorithm: str, tmp_path: Path) -> None:
    """R9: every preset raises the reward; DAPO without its shaping, since every answer fills the limit."""
    table = run(tmp_path, algorithm, overlong={"buffer": 0})
    assert reward_faults(table, 0.1) == []


def test_grpo_with_a_wrong_sign_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R7: a run that climbs down does not pass the check that a sound run passes."""
    real = grpo.completion_advantages
    monkeypatch.setattr(grpo, "completion_advantages", lambda *a: -real(*a))
    faults = reward_faults(run(tmp_path, "grpo"), MIN_RISE["grpo"])
    assert len(faults) == 1
    assert "the reward went from" in faults[0]


def test_ppo_with_a_wrong_sign_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R7: the same for PPO, whose critic still learns: the two checks look at different things."""
    real = ppo.masked_whiten
    monkeypatch.setattr(ppo, "masked_whiten", lambda *a: -real(*a))
    table = run(tmp_path, "ppo", steps=12)
    assert len(reward_faults(table, MIN_RISE["ppo"])) == 1


def detach_critic(system: System) -> None:
    """Cut the gradient of the critic's values, as a misplaced detach() would."""
    critic: Any = system.critic
    forward = critic.model_pass.scores

    def cut(*arguments: Any) -> Scores:
        scores: Scores = forward(*arguments)
        assert scores.values is not None
        return replace(scores, values=scores.values.detach() + 0.0 * scores.values)

    critic.model_pass.scores = cut


def test_ppo_with_a_detached_critic_fails(tmp_path: Path) -> None:
    """R7: a critic that does not learn is found by its explained variance, whatever the reward does."""
    table = run(tmp_path, "ppo", change=detach_critic, steps=12)
    assert critic_faults(table) == ["explained variance is 0.000"]


def shuffle_returns(rows: Any, scores: Tensor, penalty: Any, rl: Any) -> Any:
    """Give every completion the score of another one."""
    return REAL_ADVANTAGES(rows, scores.roll(1), penalty, rl)


REAL_ADVANTAGES = ppo.with_advantages


@pytest.mark.slow
def test_ppo_with_rewards_of_other_rows_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R7: rewards that went to the wrong rows teach nothing."""
    monkeypatch.setattr(ppo, "with_advantages", shuffle_returns)
    assert reward_faults(run(tmp_path, "ppo"), MIN_RISE["ppo"])


def pay_by_turns(system: System) -> None:
    """A reward that goes up and down whatever is said, so that no group is left out for want of a difference.

    A policy whose weights are far too large says one thing only; then the true reward is the same for all.
    """
    turns = itertools.count()
    system.reward = FunctionReward(lambda sample: next(turns) % 2)


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_a_learning_rate_of_ten_thousand_times_is_stopped(algorithm: str, tmp_path: Path) -> None:
    """R14: the settings that learn above, at 10⁴ times their rate, end with DivergedError, exit code 3.

    With a weight decay of 1 an update multiplies every weight by 1 − rate: by −49 and −19. That overflows
    after a few updates whatever the gradients are, which are a matter of rounding by then.
    """
    rate = 1e4 * SETTINGS[algorithm]["learning_rate"]
    with pytest.raises(DivergedError) as caught:
        run(tmp_path, algorithm, change=pay_by_turns, learning_rate=rate, weight_decay=1.0)
    assert caught.value.exit_code == 3
    assert read_events(tmp_path, "verdict")[-1].data["verdict"] == "stop"
