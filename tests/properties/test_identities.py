"""Identities of estimators, advantages and returns on random numbers."""

from __future__ import annotations

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.functional import (
    advantages_from_groups,
    clipped_policy_loss,
    estimate_advantages,
    gae,
    importance_weights,
    kl_estimate,
    masked_mean,
    masked_var,
    masked_whiten,
    overlong_penalty,
    reward_to_go,
    value_loss,
)

from .batches import random_batch, seeds

floats = st.floats(min_value=-30, max_value=30, width=32)


@given(a=floats, b=floats)
@settings(deadline=None)
def test_k3_is_never_negative(a, b):
    """Trap 15: not even by rounding, from differences of 1e-8 to 60."""
    one, two = torch.tensor([a]), torch.tensor([b])
    assert float(kl_estimate(one, two, "k3")) >= 0.0
    near = one + one.abs().clamp(min=1e-6) * 1e-7
    assert float(kl_estimate(near, one, "k3")) >= 0.0
    assert float(kl_estimate(one, one, "k3")) == 0.0


@given(seed=seeds)
@settings(max_examples=30, deadline=None)
def test_k1_of_sequences_is_unbiased(seed):
    """Trap 15: the sum of k1 over all 27 sequences of a 3-token, 3-step policy is the KL of sequences."""
    generator = torch.Generator().manual_seed(seed)
    # Conditional distributions that depend on the position and on the previous token.
    policy, reference = torch.log_softmax(
        torch.randn(2, 3, 4, 3, dtype=torch.float64, generator=generator), -1
    )
    k1 = k3 = exact = torch.zeros((), dtype=torch.float64)
    for tokens in itertools.product(range(3), repeat=3):
        steps = list(zip(range(3), (3, *tokens), tokens))  # noqa: B905
        log_p = torch.stack([policy[step] for step in steps])
        log_q = torch.stack([reference[step] for step in steps])
        weight = log_p.sum().exp()
        k1 = k1 + weight * kl_estimate(log_p, log_q, "k1").sum()
        k3 = k3 + weight * kl_estimate(log_p, log_q, "k3").sum()
        exact = exact + weight * (log_p.sum() - log_q.sum())
    torch.testing.assert_close(k1, exact)
    torch.testing.assert_close(k3, exact)


@given(seed=seeds, gamma=st.floats(0.5, 1.0))
@settings(max_examples=30, deadline=None)
def test_gae_limits(seed, gamma):
    """Trap 6: λ = 0 is the TD error over unmasked tokens, λ = 1 the discounted return minus the value."""
    batch = random_batch(seed)
    rewards, values, mask = batch.logprobs, batch.old_logprobs, batch.mask
    td, _ = gae(rewards, values, mask, gamma, 0.0)
    for row in range(len(mask)):
        v, r = values[row][mask[row]], rewards[row][mask[row]]
        following = torch.cat([v[1:], torch.zeros(1)])[: len(v)]
        torch.testing.assert_close(td[row][mask[row]], r + gamma * following - v, rtol=1e-5, atol=1e-5)
    advantages, returns = gae(rewards, values, mask, gamma, 1.0)
    torch.testing.assert_close(returns, reward_to_go(rewards, mask, gamma), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(advantages, (returns - values) * mask, rtol=1e-5, atol=1e-5)
    assert advantages[~mask].abs().sum() == returns[~mask].abs().sum() == 0
    assert advantages.data_ptr() != returns.data_ptr()


@given(seed=seeds, order=st.permutations(range(12)))
@settings(max_examples=30, deadline=None)
def test_group_advantages(seed, order):
    """R9: order of rows, shifts and scales of rewards change what they must and nothing else."""
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(12, generator=generator)
    valid = torch.ones(12, dtype=torch.bool)
    valid[torch.randint(12, (1,), generator=generator)] = False
    ids = torch.arange(3).repeat_interleave(4)
    shuffle = torch.tensor(order)
    for baseline in ("group_mean", "leave_one_out", "batch_mean"):
        for scale in ("group_std", "batch_std", "none"):
            plain = advantages_from_groups(rewards, valid, ids, baseline, scale)
            moved = advantages_from_groups(rewards[shuffle], valid[shuffle], ids[shuffle], baseline, scale)
            torch.testing.assert_close(moved, plain[shuffle], rtol=1e-6, atol=1e-6)
            shifted = advantages_from_groups(rewards + 4.0, valid, ids, baseline, scale)
            torch.testing.assert_close(shifted, plain, rtol=1e-4, atol=1e-5)
            if scale != "none":
                scaled = advantages_from_groups(rewards * 8.0, valid, ids, baseline, scale)
                torch.testing.assert_close(scaled, plain, rtol=1e-4, atol=1e-4)
    for group in range(3):
        of_group = estimate_advantages(rewards, valid, ids, "group_mean")[ids == group]
        assert abs(float(of_group.sum())) < 1e-5
        alone = estimate_advantages(
            rewards[ids == group], valid[ids == group], ids[ids == group], "leave_one_out"
        )
        count = valid[ids == group].sum()
        torch.testing.assert_close(alone, of_group * count / (count - 1), rtol=1e-5, atol=1e-6)


@given(seed=seeds)
@settings(max_examples=30, deadline=None)
def test_bounds(seed):
    """R5, R6, R9: the clip only raises a loss, dual clip only lowers it, weights stay under their cap."""
    batch = random_batch(seed)
    advantages = batch.advantages[:, None].expand_as(batch.logprobs)
    arguments = batch.logprobs, batch.old_logprobs, advantages, batch.mask
    unclipped = clipped_policy_loss(*arguments, clip_ratio=1e9)
    clipped = clipped_policy_loss(*arguments, 0.2, 0.2)
    dual = clipped_policy_loss(*arguments, 0.2, 0.2, dual_clip=1.3)
    assert (clipped >= unclipped).all()
    assert (dual <= clipped).all()
    assert (dual <= torch.where(advantages < 0, -1.3 * advantages, torch.inf)).all()
    values = batch.logprobs, batch.old_logprobs, batch.ref_logprobs
    assert (value_loss(*values, 0.1) >= value_loss(*values, None)).all()
    for level in ("token", "sequence"):
        weights = importance_weights(batch.old_logprobs, batch.ref_logprobs, 1.5, level, batch.mask)
        assert ((weights >= 0) & (weights <= 1.5)).all()
    lengths = torch.randint(0, 200, (20,), generator=torch.Generator().manual_seed(seed)).sort().values
    penalty = overlong_penalty(lengths, 100, 30)
    assert ((penalty <= 0) & (penalty >= -1)).all()
    assert (penalty.diff() <= 0).all()


@given(seed=seeds)
@settings(max_examples=30, deadline=None)
def test_whitening(seed):
    """R6: mean 0 and variance 1 over the mask, whatever surrounds it."""
    batch = random_batch(seed)
    white = masked_whiten(torch.where(batch.mask, batch.logprobs * 7 + 3, torch.nan), batch.mask)
    assert abs(float(masked_mean(white, batch.mask))) < 1e-5
    assert abs(float(masked_var(white, batch.mask)) - 1) < 1e-4
    assert white[~batch.mask].abs().sum() == 0
