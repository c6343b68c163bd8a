"""Trap 4 on a real model: how a batch is split, padded or ordered changes neither loss nor gradient.

Run with ``-s`` to see the figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from tests.unit.models.tiny import VOCABULARY, tiny_model
from tests.unit.trainers.systems import rl_config
from torch import Tensor

from trimtab.config import RLConfig
from trimtab.distributed.worker import LocalLearner, WorkerSettings, policy_learner
from trimtab.models.value_head import build_critic
from trimtab.trainers.objectives import JointObjective, PolicyObjective, ValueObjective
from trimtab.types import TrainBatch

TOLERANCE = 1e-6
ROWS, WIDTH = 7, 24
Measured = tuple[dict[str, float], Tensor]


@cache
def batch() -> TrainBatch:
    """Rows of very different lengths; one trains nothing, as when its reward abstained."""
    draw = torch.Generator().manual_seed(5)
    starts = torch.tensor([3, 8, 1, 5, 2, 4, 6])
    lengths = torch.tensor([12, 2, 20, 7, 1, 9, 16])
    column = torch.arange(WIDTH).unsqueeze(0)
    present = column < (starts + lengths).unsqueeze(1)
    completion = present & (column >= starts.unsqueeze(1))
    completion[3] = False

    def noise(scale: float) -> Tensor:
        return torch.randn(ROWS, WIDTH, generator=draw) * scale

    old = (
        policy(1).logprobs(
            TrainBatch(
                ids := torch.randint(3, VOCABULARY, (ROWS, WIDTH), generator=draw) * present,
                present,
                completion,
                torch.zeros(ROWS, WIDTH),
            )
        )
        + noise(0.3) * completion
    )
    return TrainBatch(
        token_ids=ids,
        attention_mask=present,
        completion_mask=completion,
        advantages=noise(1.0) * completion,
        rollout_logprobs=(old + noise(0.05)) * completion,
        sampling_logprobs=(old + noise(0.3)) * completion,
        old_logprobs=old,
        ref_logprobs=(old + noise(0.4)) * completion,
        old_values=noise(0.5) * completion,
        returns=noise(1.0) * completion,
    )


def policy(microbatch_size: int, critic: str | None = None) -> LocalLearner:
    """The same model each time; with a value head on its trunk where PPO shares it."""
    model = tiny_model()
    with torch.no_grad():  # at this size activations do not blow rounding up: it is the split that is tested
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(0.5)
    settings = WorkerSettings(learning_rate=1e-3, microbatch_size=microbatch_size, temperature=0.9)
    head: Any = None
    if critic:
        head = build_critic("shared", None, model)
        with torch.no_grad():
            head.head.linear.weight.normal_(std=0.1, generator=torch.Generator().manual_seed(3))
    return policy_learner(model, settings, head)


def measure(rl: RLConfig, rows: TrainBatch, microbatch_size: int) -> Measured:
    """Metrics and the whole gradient of one mini-batch."""
    learner = policy(microbatch_size, "shared" if rl.algorithm == "ppo" else None)
    objective: Any = PolicyObjective.of(rl, rows, kl_coef=0.1)
    if rl.algorithm == "ppo":
        objective = JointObjective(objective, ValueObjective(0.2, 0.5, objective.num_tokens))
    metrics = learner.forward_backward(rows, objective)
    return metrics, torch.cat([p.grad.flatten() for p in learner.module.parameters() if p.grad is not None])


def padded(rows: TrainBatch, columns: int) -> TrainBatch:
    """The same rows with more padding, which holds numbers that must not matter."""

    def widen(name: str, x: Tensor | None) -> Tensor | None:
        if x is None:
            return None
        fill: Mapping[str, float] = {"token_ids": 7, "attention_mask": 0, "completion_mask": 0}
        return torch.nn.functional.pad(x.float(), (0, columns), value=fill.get(name, 9.0)).to(x.dtype)

    return TrainBatch(**{name: widen(name, getattr(rows, name)) for name in rows.__slots__})


def gap(a: Measured, b: Measured) -> tuple[float, float]:
    """Relative difference of the losses, and of the gradients (norm of the difference over the norm)."""
    loss = abs(a[0]["loss/total"] - b[0]["loss/total"]) / abs(a[0]["loss/total"])
    return loss, float((a[1] - b[1]).norm() / a[1].norm())


SETTINGS: dict[str, dict[str, Any]] = {
    "grpo": {},
    "dr_grpo": {},
    "dapo": {"overlong": {"buffer": 2}, "entropy_coef": 0.01},
    "gspo": {"importance_correction": "sequence_mean"},
    "cispo": {"reduction": "sequence_mean"},
    "deepseek_r1": {"max_new_tokens": 24, "clip": {"dual": 3.0}},
    "ppo": {"importance_correction": "sequence_sum"},
}


@pytest.mark.parametrize("algorithm", SETTINGS)
def test_split_padding_and_order_change_nothing(algorithm: str) -> None:
    """Trap 4 (must show): loss and gradient at micro-batches of 1, 3 and all, padded, reordered: ≤ 1e-6."""
    rl, rows = rl_config(algorithm, **SETTINGS[algorithm]), batch()
    whole = measure(rl, rows, ROWS)
    assert float(whole[1].norm()) > 1e-3, "a gradient of zero would prove nothing"
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(2))
    variants = {
        "micro-batches of 1": measure(rl, rows, 1),
        "micro-batches of 3": measure(rl, rows, 3),
        "5 columns of padding": measure(rl, padded(rows, 5), ROWS),
        "other order, 3": measure(rl, rows.rows(order), 3),
    }
    for name, measured in variants.items():
        loss, gradient = gap(whole, measured)
        print(f"{algorithm:12} {name:22} loss {loss:.1e}  gradient {gradient:.1e}")
        assert loss <= TOLERANCE, (algorithm, name)
        assert gradient <= TOLERANCE, (algorithm, name)


@pytest.mark.parametrize("algorithm", ["grpo", "gspo", "ppo"])
def test_metrics_do_not_depend_on_the_split(algorithm: str) -> None:
    """Trap 4: shares of metrics add up too; a maximum stays a maximum."""
    rl = rl_config(algorithm)
    whole, parts = measure(rl, batch(), ROWS)[0], measure(rl, batch(), 2)[0]
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        assert parts[name] == pytest.approx(value, rel=1e-5, abs=1e-7), name
    assert whole["policy/ratio_max"] > whole["policy/ratio_mean"] > 0


def test_rows_that_train_nothing_have_no_gradient() -> None:
    """Trap 7: whatever stands in a masked row, the gradient is bit for bit the same."""
    rows = batch()
    other = rows.token_ids.clone()
    other[3, 5:12] = torch.arange(40, 47)
    changed = replace(rows, token_ids=other)
    rl = rl_config("grpo")
    assert torch.equal(measure(rl, rows, 1)[1], measure(rl, changed, 1)[1])
