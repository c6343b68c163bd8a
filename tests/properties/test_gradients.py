"""Gradients that mathematics prescribes, on random batches."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.functional import (
    clipped_policy_loss,
    full_kl,
    gather_logprobs,
    kl_loss,
    logprobs_and_entropy,
    loss_denominator,
    ppo_loss,
    reduce_loss,
    value_loss,
)

from .batches import random_batch, seeds


@given(seed=seeds)
@settings(max_examples=30, deadline=None)
def test_ratio_one_is_reinforce(seed):
    """Trap 5: at ρ = 1 the PPO gradient is that of −A · logprobs, clip or no clip, dual clip or not."""
    batch = random_batch(seed)
    for options in ({}, {"clip_ratio": 10.0}, {"dual_clip": 3.0}, {"ratio": "sequence_token"}):
        leaf = batch.logprobs.clone().requires_grad_()
        loss = clipped_policy_loss(leaf, batch.logprobs, batch.advantages, batch.mask, **options)
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        reinforce = -batch.advantages[:, None] * batch.mask
        torch.testing.assert_close(gradient, reinforce.expand_as(gradient), rtol=1e-6, atol=0)
    leaf = batch.logprobs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(ppo_loss(leaf, batch.logprobs, batch.advantages, mask=batch.mask), leaf)
    torch.testing.assert_close(gradient, reinforce / batch.mask.sum(), rtol=1e-6, atol=0)


@given(seed=seeds, kind=st.sampled_from(["token_mean", "sequence_mean", "fixed_length"]))
@settings(max_examples=20, deadline=None)
def test_masked_tokens_have_exactly_zero_gradient(seed, kind):
    """Trap 7: down to the logits: rows of logits under masked tokens are exactly 0, all others are not."""
    batch = random_batch(seed)
    logits = torch.randn(6, 9, 5, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    token_ids = torch.randint(5, (6, 9), generator=torch.Generator().manual_seed(seed))
    logprobs, _ = logprobs_and_entropy(logits, token_ids)
    loss = clipped_policy_loss(logprobs, logprobs.detach(), batch.advantages, batch.mask)
    loss = loss + kl_loss(logprobs, batch.ref_logprobs, "k2", mask=batch.mask)
    loss = loss + value_loss(logprobs, batch.old_logprobs, batch.ref_logprobs, mask=batch.mask)
    (gradient,) = torch.autograd.grad(
        reduce_loss(loss, batch.mask, kind, loss_denominator(batch.mask, kind, 9)), logits
    )
    assert gradient[~batch.mask].abs().max() == 0
    assert (gradient[batch.mask].abs().sum(-1) > 0).all()


@given(seed=seeds, estimator=st.sampled_from(["k2", "k3"]), off_policy=st.booleans())
@settings(max_examples=40, deadline=None)
def test_kl_loss_gradient_by_enumeration(seed, estimator, off_policy):
    """Trap 1: on random 5-token policies the expected gradient is the exact reverse-KL gradient."""
    generator = torch.Generator().manual_seed(seed)
    theta, reference, old = torch.randn(3, 5, dtype=torch.float64, generator=generator).unbind(0)
    sampler = old if off_policy else theta
    exact_leaf, leaf = theta.clone().requires_grad_(), theta.clone().requires_grad_()
    (exact,) = torch.autograd.grad(full_kl(exact_leaf, reference), exact_leaf)
    tokens = torch.arange(5)

    def of_tokens(logits: torch.Tensor) -> torch.Tensor:
        return gather_logprobs(logits.expand(5, 5), tokens)

    old_logprobs = of_tokens(old) if off_policy else None
    losses = kl_loss(of_tokens(leaf), of_tokens(reference), estimator, old_logprobs)
    (actual,) = torch.autograd.grad((torch.softmax(sampler, 0) * losses).sum(), leaf)
    torch.testing.assert_close(actual, exact, rtol=1e-9, atol=1e-12)


@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_unclipped_surrogate_is_importance_sampling(seed):
    """R5: with no clip in reach, the expected gradient of the loss is that of −E[A] under the policy."""
    generator = torch.Generator().manual_seed(seed)
    theta, old, rewards = torch.randn(3, 5, dtype=torch.float64, generator=generator).unbind(0)
    theta.requires_grad_()
    logprobs, old_logprobs = torch.log_softmax(theta, 0)[:, None], torch.log_softmax(old, 0)[:, None]
    mask = torch.ones(5, 1, dtype=torch.bool)
    losses = clipped_policy_loss(logprobs, old_logprobs, rewards, mask, clip_ratio=1e9)
    (actual,) = torch.autograd.grad((torch.softmax(old, 0)[:, None] * losses).sum(), theta, retain_graph=True)
    (exact,) = torch.autograd.grad(-(torch.softmax(theta, 0) * rewards).sum(), theta)
    torch.testing.assert_close(actual, exact)
