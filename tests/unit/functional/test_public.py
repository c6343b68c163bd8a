from __future__ import annotations

import inspect
import math

import pytest
import torch

from trimtab.errors import AdvantageError, ConfigError
from trimtab.functional import grpo_loss, ppo_loss, rlhf_objective


def test_signatures_are_the_specification():
    """R2, R5, R8: positional names and defaults."""

    def positional(function):
        parameters = inspect.signature(function).parameters.values()
        return [(p.name, p.default) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]

    none = inspect.Parameter.empty
    assert positional(rlhf_objective) == [
        ("rewards", none), ("policy_logprobs", none), ("ref_logprobs", none), ("beta", 0.1)
    ]  # fmt: skip
    assert positional(ppo_loss) == [
        ("logprobs", none), ("old_logprobs", none), ("advantages", none), ("clip_epsilon", 0.2)
    ]  # fmt: skip
    assert positional(grpo_loss) == [
        ("policy_logprobs", none), ("old_logprobs", none), ("ref_logprobs", none), ("rewards", none),
        ("kl_coef", 0.001), ("clip_ratio", 10.0),
    ]  # fmt: skip


def test_objective_by_hand():
    """R2: (1 − 0.1·1 + 2 − 0.1·(−3)) / 2 = 1.6; tokens are summed, over the mask when given."""
    rewards = torch.tensor([1.0, 2.0])
    policy, reference = torch.tensor([-1.0, -5.0]), torch.tensor([-2.0, -2.0])
    assert float(rlhf_objective(rewards, policy, reference)) == pytest.approx(1.6)
    assert float(rlhf_objective(rewards, policy, reference, beta=1.0)) == pytest.approx(2.5)
    tokens = torch.tensor([[-0.5, -0.5, 9.0], [-4.0, -1.0, 9.0]])
    ref_tokens = torch.tensor([[-1.5, -0.5, 1.0], [-1.0, -1.0, 1.0]])
    mask = torch.tensor([[True, True, False], [True, True, False]])
    assert float(rlhf_objective(rewards, tokens, ref_tokens, mask=mask)) == pytest.approx(1.6)
    assert float(rlhf_objective(rewards, tokens, ref_tokens)) == pytest.approx(0.8)
    with pytest.raises(ValueError, match="same shape"):
        rlhf_objective(rewards, policy[:1], reference[:1])


def test_ppo_loss_by_hand():
    """R5: ratios 2, 0.5, 1.1, 2, 0.5: minus the mean of 1.2, 0.5, 1.1, −2, −0.8 is 0."""
    logprobs = torch.tensor([2.0, 0.5, 1.1, 2.0, 0.5]).log()
    advantages = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0])
    assert float(ppo_loss(logprobs, torch.zeros(5), advantages)) == pytest.approx(0.0, abs=1e-7)
    first = torch.tensor([True, True, False, True, False])
    assert float(ppo_loss(logprobs, torch.zeros(5), advantages, mask=first)) == pytest.approx(0.1)
    wide = ppo_loss(logprobs, torch.zeros(5), advantages, clip_epsilon=0.2, clip_low=0.4, clip_high=0.5)
    assert float(wide) == pytest.approx(-(1.5 + 0.5 + 1.1 - 2.0 - 0.6) / 5)


def test_ppo_loss_sign():
    """R7: a descent step on the loss makes a good token likelier and a bad one less likely."""
    logprobs = torch.tensor([[-1.0, -1.0]], requires_grad=True)
    ppo_loss(logprobs, logprobs.detach(), torch.tensor([[1.0, -1.0]])).backward()
    assert logprobs.grad.tolist() == [[-0.5, 0.5]]


def test_grpo_loss_by_hand():
    """R8: centred by rows: ∓1, ∓2; unbiased std over the batch √(10/3); ratios 1, 2, 20, 0.01.

    The minimum of ρA and clip(ρ, 1/c, c)·A: with A = −2 it is the ratio 20 itself, with A = 2 it is 0.01.
    """
    rewards = torch.tensor([[1.0, 3.0], [0.0, 4.0]])
    old = torch.full((2, 2), -3.0)
    policy = old + torch.tensor([[1.0, 2.0], [20.0, 0.01]]).log()
    reference = torch.full((2, 2), -3.5)
    std = math.sqrt(10 / 3)
    surrogate = (-1 * 1 + 1 * 2 - 2 * 20 + 2 * 0.01) / std / 4
    kl = float((policy - reference).mean())
    assert float(grpo_loss(policy, old, reference, rewards)) == pytest.approx(
        -surrogate + 0.001 * kl, rel=1e-5
    )
    assert float(grpo_loss(policy, old, reference, rewards, 0.5)) == pytest.approx(-surrogate + 0.5 * kl)
    tight = (-1 * 1 + 1 * 1.5 - 2 * 20 + 2 * 0.01) / std / 4
    assert float(grpo_loss(policy, old, reference, rewards, 0.0, 1.5)) == pytest.approx(-tight)


def test_grpo_loss_has_the_minimum():
    """R8: what has moved too far the wrong way keeps its gradient, what moved far the right way has none.

    A = −1, 1 over the deviation √2; ratios 2 and 0.5 with c = 1.5: min(−2, −1.5) and min(0.5, 2/3). A plain
    clip without the minimum would give −1.5 and 2/3 and no gradient at all.
    """
    old = torch.zeros(1, 2)
    policy = torch.tensor([[2.0, 0.5]]).log().requires_grad_()
    loss = grpo_loss(policy, old, old, torch.tensor([[0.0, 2.0]]), kl_coef=0.0, clip_ratio=1.5)
    assert loss.item() == pytest.approx(-(-2 + 0.5) / math.sqrt(2) / 2)
    loss.backward()
    assert policy.grad[0].tolist() == pytest.approx([2 / math.sqrt(2) / 2, -0.5 / math.sqrt(2) / 2])
    other = torch.tensor([[0.5, 2.0]]).log().requires_grad_()
    loss = grpo_loss(other, old, old, torch.tensor([[0.0, 2.0]]), kl_coef=0.0, clip_ratio=1.5)
    assert loss.item() == pytest.approx(-(-2 / 3 + 1.5) / math.sqrt(2) / 2)
    loss.backward()
    assert other.grad.tolist() == [[0.0, 0.0]]


def test_grpo_ratio_is_against_old_and_kl_against_reference():
    """R8: the four distributions are never confused: each argument has its own effect."""
    rewards = torch.tensor([[0.0, 1.0]])
    policy = torch.tensor([[-1.0, -1.0]], requires_grad=True)
    old, reference = torch.tensor([[-1.5, -1.0]]), torch.tensor([[-3.0, -2.0]])
    (gradient,) = torch.autograd.grad(grpo_loss(policy, old, reference, rewards, kl_coef=0.0), policy)
    advantage = 1 / math.sqrt(2)
    assert gradient[0].tolist() == pytest.approx([math.exp(0.5) * advantage / 2, -advantage / 2], rel=1e-5)
    far = grpo_loss(policy, old, reference - 7.0, rewards, kl_coef=0.0)
    assert float(far.detach()) == float(grpo_loss(policy, old, reference, rewards, kl_coef=0.0).detach())
    only_kl = grpo_loss(policy, old, reference, torch.ones(1, 2), kl_coef=2.0)
    assert float(only_kl.detach()) == pytest.approx(2.0 * 1.5)


def test_grpo_equal_rewards_leave_only_the_kl():
    """R8: rewards that are equal within every row have advantage exactly 0, rounding or not."""
    policy = torch.randn(3, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()
    rewards = torch.tensor([[0.1], [0.7], [0.3]]).expand(3, 7)
    loss = grpo_loss(policy, policy.detach() - 0.3, policy.detach(), rewards, kl_coef=0.0)
    assert float(loss.detach()) == 0.0
    assert torch.autograd.grad(loss, policy)[0].abs().max() == 0.0


def test_grpo_refuses_what_cannot_be_compared():
    """R8: one sample per prompt, other shapes, a factor not above 1, a reward that is not a number."""
    ok = torch.zeros(2, 2)
    with pytest.raises(AdvantageError, match="at least 2 samples"):
        grpo_loss(ok[:, :1], ok[:, :1], ok[:, :1], ok[:, :1])
    with pytest.raises(ValueError, match="same shape"):
        grpo_loss(ok, ok, ok, ok[:1])
    with pytest.raises(ValueError, match="num_samples"):
        grpo_loss(ok[0], ok[0], ok[0], ok[0])
    with pytest.raises(ConfigError, match="factor"):
        grpo_loss(ok, ok, ok, ok, clip_ratio=0.5)
    with pytest.raises(AdvantageError, match="finite"):
        grpo_loss(ok, ok, ok, torch.tensor([[0.0, math.nan], [0.0, 1.0]]))


def test_public_names_of_the_package():
    """R30: the same functions are `trimtab.rlhf_objective` and so on."""
    import trimtab

    assert trimtab.rlhf_objective is rlhf_objective
    assert trimtab.ppo_loss is ppo_loss
    assert trimtab.grpo_loss is grpo_loss


def test_grpo_loss_keeps_the_precision_of_its_inputs() -> None:
    """R8 written out once more in fp64: loss and gradient agree; clip 1.5 tells the minimum."""
    generator = torch.Generator().manual_seed(3)
    policy, old, ref, rewards = torch.randn(4, 4, 6, generator=generator, dtype=torch.float64)
    policy = policy.clone()
    policy.requires_grad_()
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    advantages = (centred - centred.mean()) / (centred.std() + 1e-8)
    ratio = torch.exp(policy - old)
    wanted = -torch.minimum(ratio * advantages, ratio.clamp(1 / 1.5, 1.5) * advantages).mean()
    wanted = wanted + 0.001 * (policy - ref).mean()
    (slope,) = torch.autograd.grad(wanted, policy)
    found = grpo_loss(policy, old, ref, rewards, clip_ratio=1.5)
    (found_slope,) = torch.autograd.grad(found, policy)
    assert torch.allclose(found, wanted, rtol=1e-12, atol=1e-12)
    assert torch.allclose(found_slope, slope, rtol=1e-12, atol=1e-12)
