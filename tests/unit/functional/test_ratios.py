from __future__ import annotations

import math

import pytest
import torch

from trimtab.errors import ConfigError
from trimtab.functional import (
    approx_kl,
    cispo_loss,
    clipped_policy_loss,
    importance_weights,
    sequence_ratio,
    sequence_token_ratio,
    token_ratio,
)

NEW = torch.tensor([[0.5, 0.2, 0.9], [0.3, 0.3, 0.3]]).log()
OLD = torch.tensor([[0.25, 0.4, 0.1], [0.1, 0.3, 0.3]]).log()
MASK = torch.tensor([[True, True, False], [True, True, True]])


def test_token_ratio_by_hand():
    """R5: current over old; 1 outside the mask; no gradient into old."""
    expected = torch.tensor([[2.0, 0.5, 1.0], [3.0, 1.0, 1.0]])
    torch.testing.assert_close(token_ratio(NEW, OLD, MASK), expected)
    torch.testing.assert_close(token_ratio(NEW, OLD)[0, 2], torch.tensor(9.0))
    old = OLD.clone().requires_grad_()
    assert not token_ratio(NEW, old).requires_grad


def test_sequence_ratio_by_hand():
    """R9: GSPO: geometric mean of the token ratios: √(2·½) = 1 and ∛(3·1·1)."""
    expected = torch.tensor([1.0, 3 ** (1 / 3)])
    torch.testing.assert_close(sequence_ratio(NEW, OLD, MASK), expected)
    torch.testing.assert_close(sequence_token_ratio(NEW, OLD, MASK)[1], torch.full((3,), 3 ** (1 / 3)))
    assert float(sequence_ratio(NEW[:1], OLD[:1], torch.zeros(1, 3, dtype=torch.bool))) == 1.0


def test_sequence_gradients_by_hand():
    """R9: GSPO spreads ρ/length over the tokens; GSPO-token gives each token ρ of its own."""
    new = NEW.clone().requires_grad_()
    level = 3 ** (1 / 3)
    (gradient,) = torch.autograd.grad(sequence_ratio(new, OLD, MASK).sum(), new)
    torch.testing.assert_close(gradient, torch.tensor([[0.5, 0.5, 0.0], [level / 3] * 3]))
    (gradient,) = torch.autograd.grad((sequence_token_ratio(new, OLD, MASK) * MASK).sum(), new)
    torch.testing.assert_close(gradient, torch.tensor([[1.0, 1.0, 0.0], [level] * 3]))


def test_importance_weights_by_hand():
    """R9: min(old / rollout, cap) per token; per sequence of the sum or the mean of the differences."""
    token = importance_weights(NEW, OLD, cap=2.5, mask=MASK)
    torch.testing.assert_close(token, torch.tensor([[2.0, 0.5, 0.0], [2.5, 1.0, 1.0]]))
    whole = importance_weights(NEW, OLD, 10.0, "sequence", MASK)
    torch.testing.assert_close(whole, torch.tensor([[1.0, 1.0, 0.0], [3.0, 3.0, 3.0]]))
    mean = importance_weights(NEW, OLD, 10.0, "sequence", MASK, aggregate="mean")
    torch.testing.assert_close(mean[1], torch.full((3,), 3 ** (1 / 3)))
    capped = importance_weights(NEW, OLD, 2.0, "sequence", MASK)
    torch.testing.assert_close(capped[1], torch.full((3,), 2.0))
    assert not importance_weights(NEW.clone().requires_grad_(), OLD, 2.0).requires_grad


def test_top_p_is_corrected_by_the_weights():
    """Trap 9: sampling from the nucleus with the weights old/rollout gives the learner's own expectation."""
    probs = torch.tensor([0.5, 0.25, 0.15, 0.07, 0.03], dtype=torch.float64)
    nucleus = torch.tensor([True, True, True, False, False])
    sampler = torch.where(nucleus, probs, 0.0) / probs[nucleus].sum()
    rewards = torch.tensor([1.0, -2.0, 3.0, 10.0, -10.0], dtype=torch.float64)
    weights = importance_weights(probs.log(), sampler.clamp(min=1e-300).log(), 1e9, mask=nucleus)
    corrected = (sampler * weights * rewards).sum()
    torch.testing.assert_close(corrected, (probs * rewards)[nucleus].sum())
    assert float(weights[nucleus].unique().item()) == pytest.approx(0.9)
    assert float((sampler * rewards).sum()) != pytest.approx(float(corrected))


def test_bad_arguments():
    """R9: unknown levels, caps and shapes are named."""
    with pytest.raises(ConfigError, match="did you mean 'token'"):
        importance_weights(NEW, OLD, 2.0, "tokens")
    with pytest.raises(ConfigError, match="aggregate"):
        importance_weights(NEW, OLD, 2.0, "sequence", aggregate="max")
    with pytest.raises(ValueError, match="cap"):
        importance_weights(NEW, OLD, 0.0)
    with pytest.raises(ValueError, match="same shape"):
        token_ratio(NEW, OLD[:1])
    assert math.isfinite(float(token_ratio(NEW, OLD - 1e6, torch.zeros_like(MASK)).sum()))


def test_the_bound_of_a_ratio():
    """R14: up to a log-ratio of 20 the ratio is exact; beyond, value and gradient stay e²⁰."""
    gap = torch.tensor([[-1000.0, 19.0, 20.0, 21.0, 1000.0]], requires_grad=True)
    ratio = token_ratio(gap, torch.zeros(1, 5))
    expected = [0.0, math.exp(19), math.exp(20), math.exp(20), math.exp(20)]
    assert ratio[0].tolist() == pytest.approx(expected)
    ratio.sum().backward()
    assert gap.grad[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("gap", [-1e4, -100.0, 100.0, 1e4])
@pytest.mark.parametrize("advantage", [-1.0, 1.0])
def test_every_exponent_of_a_log_ratio_is_bounded(gap, advantage):
    """R14: a token that moved beyond all measure leaves loss, gradient and figures finite, in every form."""
    old, mask = torch.tensor([[-2.0, -2.0]]), torch.ones(1, 2, dtype=torch.bool)
    advantages = torch.full((1, 2), advantage)

    def losses(logprobs):
        for ratio in ("token", "sequence", "sequence_token"):
            yield clipped_policy_loss(logprobs, old, advantages, mask, ratio=ratio)
        yield clipped_policy_loss(logprobs, old, advantages, mask, clip_ratio=10.0, dual_clip=3.0)
        yield cispo_loss(logprobs, old, advantages, 5.0, mask=mask)

    for number in range(5):
        logprobs = torch.tensor([[gap - 2.0, -2.0]], requires_grad=True)
        loss = list(losses(logprobs))[number]
        loss.sum().backward()
        assert bool(torch.isfinite(loss).all() and torch.isfinite(logprobs.grad.square()).all())
        assert bool((logprobs.grad * advantage <= 0).all()), "a step goes up with A > 0 and down with A < 0"
    moved = logprobs.detach()
    assert math.isfinite(approx_kl(moved, old, mask))
    for level in ("token", "sequence"):
        for aggregate in ("sum", "mean"):
            weights = importance_weights(moved, old, 2.0, level, mask, aggregate=aggregate)
            assert bool(((weights >= 0) & (weights <= 2)).all())


def test_a_bad_token_beyond_the_bound_is_still_pushed_down():
    """R14: with A < 0 PPO's minimum has no clip above; a clamped ratio would have no gradient there."""
    logprobs = torch.tensor([[30.0]], requires_grad=True)
    one = torch.ones(1, 1, dtype=torch.bool)
    clipped_policy_loss(logprobs, torch.zeros(1, 1), -torch.ones(1, 1), one).sum().backward()
    assert float(logprobs.grad) == pytest.approx(math.exp(20))
