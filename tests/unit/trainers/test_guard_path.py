"""Numbers that are not finite never reach the weights, and a run that stays broken is stopped."""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.trainers.systems import (
    rl_config,
    same_weights,
    tiny_directory,
    tiny_stage,
    tiny_system,
    train,
    weights,
)

from trimtab.config import RewardModelConfig
from trimtab.distributed.build import System
from trimtab.errors import DivergedError, RewardError
from trimtab.models.load import load_sequence_classifier, load_tokenizer
from trimtab.rewards.combine import CombinedReward
from trimtab.runs import metrics_table, read_events
from trimtab.trainers import reward_model as reward_model_trainer
from trimtab.trainers.reward_model import train_reward_model
from trimtab.trainers.stage import Stage
from trimtab.types import RewardResult, Sample

ALGORITHMS = ("grpo", "ppo")


class Unchecked:
    """A reward that hands NaN on, as no reward of the registry does."""

    name = "unchecked"

    def __init__(self, bad_calls: set[int]) -> None:
        self.bad_calls, self.calls = bad_calls, 0

    def score(self, samples: list[Sample]) -> list[RewardResult]:
        self.calls += 1
        value = math.nan if self.calls - 1 in self.bad_calls else None
        return [RewardResult(len(s.completion) * 0.1 if value is None else value) for s in samples]


def poison_loss(system: System, bad_updates: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the loss of these updates NaN, gradients too."""
    learner: Any = system.policy
    accumulate, count = learner.forward_backward, [0]

    def poisoned(batch: Any, objective: Any) -> dict[str, float]:
        metrics: dict[str, float] = accumulate(batch, objective)
        if count[0] in bad_updates:
            metrics["loss/total"] = math.nan
            for parameter in learner.module.parameters():
                if parameter.grad is not None:
                    parameter.grad.fill_(math.nan)
        count[0] += 1
        return metrics

    monkeypatch.setattr(learner, "forward_backward", poisoned)


def everything(system: System) -> dict[str, torch.Tensor]:
    """Weights and optimizer state of the policy and of the critic."""
    learners: list[Any] = [learner for learner in (system.policy, system.critic) if learner is not None]
    found = {}
    for number, learner in enumerate(learners):
        state = learner.state()
        for group in ("model", "optimizer"):
            found |= {f"{number}.{group}.{name}": x.clone() for name, x in state[group].items()}
    return found


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_nan_loss_never_reaches_the_weights(
    algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R14: a skipped update leaves weights and optimizer bit for bit as they were, the critic's too."""
    rl = rl_config(algorithm, steps=1)
    system = tiny_system(rl)
    train(system, rl, tiny_stage(tmp_path / "warm"))  # so that there are moments to lose
    poison_loss(system, set(range(4)), monkeypatch)
    single = rl_config(algorithm, steps=1, num_epochs_per_batch=1)
    before = everything(system)
    train(system, single, tiny_stage(tmp_path / "poisoned"), seed=2)
    after = everything(system)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    verdicts = [event.data["verdict"] for event in read_events(tmp_path / "poisoned", "verdict")]
    assert verdicts == ["skip_update"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_one_bad_update_is_survived(algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R14: after a skipped update the run goes on, trains, and its record is readable."""
    rl = rl_config(algorithm, steps=4, num_epochs_per_batch=1)
    system = tiny_system(rl)
    poison_loss(system, {1}, monkeypatch)
    before = weights(system.policy)
    train(system, rl, tiny_stage(tmp_path))
    now = weights(system.policy)
    assert all(bool(torch.isfinite(x).all()) for x in now.values())
    assert not same_weights(before, now)
    losses = metrics_table(tmp_path, "rl")["loss/total"]
    assert [math.isnan(loss or 0.0) for loss in losses] == [False, True, False, False]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_several_bad_updates_in_a_row_stop_the_run(
    algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R14: a policy that stays broken ends the run with exit code 3, however healthy the critic is."""
    rl = rl_config(algorithm, steps=9, num_epochs_per_batch=1)
    system = tiny_system(rl)
    poison_loss(system, set(range(100)), monkeypatch)
    before = weights(system.policy)
    with pytest.raises(DivergedError, match=r"Stage rl was stopped at step 4: loss/total is nan") as caught:
        train(system, rl, tiny_stage(tmp_path))
    assert caught.value.exit_code == 3
    assert same_weights(before, weights(system.policy))
    verdicts = [event.data["verdict"] for event in read_events(tmp_path, "verdict")]
    assert verdicts == ["skip_update"] * 3 + ["stop"]


def test_bad_updates_that_do_not_follow_one_another_do_not_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R14: only failures in a row count."""
    rl = rl_config("grpo", steps=9)
    system = tiny_system(rl)
    poison_loss(system, {0, 2, 4, 6, 8}, monkeypatch)
    train(system, rl, tiny_stage(tmp_path))
    assert len(read_events(tmp_path, "verdict")) == 5


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_nan_reward_abstains(algorithm: str, tmp_path: Path) -> None:
    """R19, R14: a reward that is NaN teaches nothing and moves nothing, and ends a run that begins with it;
    the next step trains."""
    rl = rl_config(algorithm, steps=1, num_epochs_per_batch=1)
    system = tiny_system(rl, CombinedReward([(Unchecked({0}), 1.0)]))
    before = weights(system.policy)
    with pytest.raises(RewardError, match="not a finite number"):
        train(system, rl, tiny_stage(tmp_path / "nan"))
    assert same_weights(before, weights(system.policy))
    assert metrics_table(tmp_path / "nan", "rl")["reward/abstained"] == [1.0]
    train(system, rl, tiny_stage(tmp_path / "fine"), seed=2)
    assert not same_weights(before, weights(system.policy))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_nan_advantages_are_skipped(algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R14: whatever makes advantages or returns NaN, the update is skipped, the critic's too."""
    name = {"grpo": "completion_advantages", "ppo": "masked_whiten"}[algorithm]
    module = import_module(f"trimtab.trainers.{algorithm}")
    real = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *arguments: real(*arguments) * math.nan)
    rl = rl_config(algorithm, steps=1, num_epochs_per_batch=1)
    system = tiny_system(rl)
    before = everything(system)
    train(system, rl, tiny_stage(tmp_path))
    after = everything(system)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [event.data["verdict"] for event in read_events(tmp_path, "verdict")] == ["skip_update"]


def test_a_learning_rate_far_too_high_is_stopped(tmp_path: Path) -> None:
    """R14: the usual rate × 1e4 blows the model up; the run ends with DivergedError, not with exit 0."""
    rl = rl_config("grpo", steps=40, learning_rate=1e30, max_grad_norm=1e30)
    with pytest.raises(DivergedError):
        train(tiny_system(rl), rl, tiny_stage(tmp_path))


def test_reward_model_skips_and_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R14: the reward model's updates are guarded alike."""
    data = tmp_path / "pairs.jsonl"
    data.write_text(
        "".join(f'{{"prompt": "p{i}", "chosen": "good {i}", "rejected": "bad {i}"}}\n' for i in range(8))
    )
    path = tiny_directory(tmp_path / "model")
    tokenizer = load_tokenizer(path)
    model = load_sequence_classifier(path, pad_token_id=tokenizer.pad_token_id, dtype="float32")
    before = {name: x.clone() for name, x in model.state_dict().items()}
    real = reward_model_trainer.bradley_terry_loss
    monkeypatch.setattr(
        reward_model_trainer, "bradley_terry_loss", lambda *a, **k: real(*a, **k) * float("nan")
    )
    config = RewardModelConfig(data=str(data), batch_size=2, steps=9)
    stage: Stage = tiny_stage(tmp_path / "run", "reward_model")
    with pytest.raises(DivergedError, match="Stage reward_model was stopped at step 4"):
        train_reward_model(config, model, tokenizer, stage, seed=1)
    assert same_weights(before, dict(model.state_dict()))
