"""The learner behind its seam: micro-batches, frozen passes, state."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from tests.unit.models.tiny import PAD, tiny_model
from tests.unit.trainers.systems import prompts, rl_config, same_weights, tiny_system, weights
from torch import Tensor, nn

from trimtab.data import PromptStream
from trimtab.distributed.one_pass import merge_shares
from trimtab.distributed.passes import split_by_length
from trimtab.distributed.worker import (
    Reference,
    WorkerSettings,
    critic_learner,
    exact_kl,
    policy_learner,
)
from trimtab.models.value_head import build_critic
from trimtab.trainers.batching import make_batch
from trimtab.trainers.experience import collect_groups
from trimtab.trainers.objectives import PolicyObjective
from trimtab.trainers.shaping import RewardShaping
from trimtab.trainers.stage import Phases
from trimtab.types import TrainBatch

RL = rl_config(num_prompts=3, num_generations=3)
SETTINGS = WorkerSettings(learning_rate=1e-3, microbatch_size=4, temperature=1.0)


@pytest.fixture(scope="module")
def rows() -> TrainBatch:
    """Nine sampled rows with advantages of both signs."""
    system = tiny_system(RL)
    shaping = RewardShaping(RL, system.reward)
    groups = collect_groups(system, PromptStream(prompts(), seed=1), RL, 1, Phases(), shaping).trained
    batch = make_batch(groups, PAD).rows
    return replace(batch, advantages=batch.completion_mask * torch.linspace(-1, 1, 9).unsqueeze(1))


def test_microbatches_cover_every_row_once(rows: TrainBatch) -> None:
    """Trap 4: every row is in exactly one micro-batch, and rows of similar length share one."""
    parts = [(index, rows.rows(index)) for index in split_by_length(rows, 10_000, 4)]
    assert [len(part) for _, part in parts] == [4, 4, 1]
    index = torch.cat([index for index, _ in parts])
    assert sorted(index.tolist()) == list(range(9))
    for where, part in parts:
        width = part.token_ids.shape[1]
        assert torch.equal(part.token_ids, rows.token_ids[where, :width])
        assert int(part.attention_mask.sum(dim=1).max()) == width
    assert parts[0][1].token_ids.shape[1] >= parts[-1][1].token_ids.shape[1]


def test_frozen_logprobs_are_those_of_the_engine(rows: TrainBatch) -> None:
    """Trap 17: learner and sampler agree at the same weights; 0 outside the completion; no gradient."""
    learner = policy_learner(tiny_model(), SETTINGS)
    found = learner.logprobs(rows)
    assert rows.rollout_logprobs is not None
    torch.testing.assert_close(found, rows.rollout_logprobs, atol=2e-5, rtol=0)
    assert float(found[~rows.completion_mask].abs().max()) == 0
    assert not found.requires_grad
    torch.testing.assert_close(found, policy_learner(tiny_model(), replace(SETTINGS, microbatch_size=1))
                               .logprobs(rows), atol=1e-5, rtol=0)  # fmt: skip


def test_values_are_read_before_each_token(rows: TrainBatch) -> None:
    """R6: a critic's values are 0 outside the completion and do not see the token that they precede."""
    critic = build_critic("separate", None, tiny_model())
    with torch.no_grad():
        critic.head.linear.weight.normal_(generator=torch.Generator().manual_seed(1))  # type: ignore[union-attr]
    learner = critic_learner(critic, SETTINGS)
    found = learner.values(rows)
    assert float(found[~rows.completion_mask].abs().max()) == 0
    first = rows.completion_mask.int().argmax(dim=1)
    last = rows.attention_mask.sum(dim=1) - 1
    other = rows.token_ids.clone()
    other[torch.arange(9), last] = 77
    again = learner.values(replace(rows, token_ids=other))
    torch.testing.assert_close(again, found, atol=1e-5, rtol=0)
    assert float(found[torch.arange(9), first].abs().min()) > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_goes_round(dtype: torch.dtype, rows: TrainBatch) -> None:
    """Issue 2 (8): a learner that takes over a state goes on exactly as the one that gave it, also in bf16,
    whose fp32 masters hold what the parameters cannot."""
    objective = PolicyObjective.of(RL, rows, 0.0)
    first = policy_learner(tiny_model(dtype=dtype), SETTINGS)
    second = policy_learner(tiny_model(dtype=dtype, seed=3), SETTINGS)
    for _ in range(2):
        first.forward_backward(rows, objective)
        first.optimizer_step(1e-5)
    state = first.state()
    second.load_state(copy.deepcopy(state))
    for learner in (first, second):
        learner.forward_backward(rows, objective)
        learner.optimizer_step(1e-5)
    assert same_weights(weights(first), weights(second))
    masters = [{n: x.optimizer.master(n) for n in x.optimizer.parameters} for x in (first, second)]
    assert same_weights(*masters)


def test_discarded_gradients_are_gone(rows: TrainBatch) -> None:
    """R14: after a discard, a step from the same gradients as a fresh learner gives the same weights."""
    objective = PolicyObjective.of(RL, rows, 0.0)
    found = []
    for discards in (False, True):
        learner = policy_learner(tiny_model(), SETTINGS)
        if discards:
            learner.forward_backward(rows, objective)
            learner.discard_gradients()
        learner.forward_backward(rows, objective)
        learner.optimizer_step(1e-3)
        found.append(weights(learner))
    assert same_weights(*found)


def test_gradients_are_clipped_to_the_norm(rows: TrainBatch) -> None:
    """R11: the norm before the clip is reported, and the next one is at most the limit."""
    learner = policy_learner(tiny_model(), SETTINGS)
    learner.forward_backward(rows, PolicyObjective.of(RL, rows, 0.0))
    norm = learner.clip_gradients(1e9)
    assert norm > 0.05
    assert learner.clip_gradients(0.01) == pytest.approx(norm)
    assert learner.clip_gradients(1e9) == pytest.approx(0.01, rel=1e-3)


def test_reference_is_frozen_and_refreshes(rows: TrainBatch) -> None:
    """R10, trap 8: the reference has no gradient and no dropout; refreshed, it agrees with the policy."""
    model, other = tiny_model(), tiny_model(seed=4)
    reference = Reference(model, SETTINGS)
    assert not any(p.requires_grad for p in model.parameters())
    assert not model.training
    before = reference.logprobs(rows)
    reference.refresh(other)
    after = reference.logprobs(rows)
    assert not torch.equal(before, after)
    assert torch.equal(after, policy_learner(other, SETTINGS).logprobs(rows))
    with torch.no_grad():
        next(iter(other.parameters())).add_(1.0)
    assert torch.equal(reference.logprobs(rows), after)  # a copy, not the policy itself


def test_exact_kl_by_hand(rows: TrainBatch) -> None:
    """R6: at each completion token Σ p·(log p − log q) of the tempered distributions; 0 for equal models."""
    policy, other = tiny_model(), tiny_model(seed=4)
    settings = replace(SETTINGS, temperature=0.7)
    assert float(exact_kl(policy, policy, rows, settings).abs().max()) == 0
    found = exact_kl(policy, other, rows, settings)
    with torch.no_grad():
        p, q = (torch.log_softmax(m(rows.token_ids).logits / 0.7, -1) for m in (policy, other))
    expected = (p.exp() * (p - q)).sum(-1)[:, :-1]
    mask = rows.completion_mask
    torch.testing.assert_close(found[:, 1:][mask[:, 1:]], expected[mask[:, 1:]], atol=1e-4, rtol=1e-4)
    assert float(found[~mask].abs().max()) == 0


def test_shares_add_up_and_maxima_stay() -> None:
    """Trap 4: metric shares of micro-batches are summed; names that end in _max keep the largest."""
    metrics: dict[str, Tensor] = {}
    for loss, ratio in ((0.25, -3.0), (0.5, -5.0)):
        merge_shares(metrics, {"loss": torch.tensor(loss), "ratio_max": torch.tensor(ratio)})
    assert metrics == {"loss": 0.75, "ratio_max": -3.0}


def test_a_shared_critic_is_in_the_policys_state() -> None:
    """R6: with a shared trunk the value head is optimised and saved with the policy, and only once."""
    model = tiny_model()
    head = build_critic("shared", None, model)
    learner = policy_learner(model, SETTINGS, head)  # type: ignore[arg-type]
    names = [name for name, _ in learner.module.named_parameters()]
    assert {"critic.head.linear.weight", "critic.head.linear.bias"} <= set(names)
    own = sum(p.numel() for p in model.parameters()) + sum(p.numel() for p in nn.Module.parameters(head))
    assert sum(p.numel() for p in learner.module.parameters()) == own
