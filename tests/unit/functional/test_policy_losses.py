from __future__ import annotations

import math

import pytest
import torch

from trimtab.errors import ConfigError
from trimtab.functional import cispo_loss, clip_bounds, clipped_policy_loss, cross_entropy, policy_ratio

# One row, ratios 2, 0.5, 1.1, 2, 0.5 and advantages of both signs: every branch of the clip.
RATIOS = [2.0, 0.5, 1.1, 2.0, 0.5]
NEW = torch.tensor([RATIOS]).log()
OLD = torch.zeros(1, 5)
ADVANTAGES = torch.tensor([[1.0, 1.0, 1.0, -1.0, -1.0]])
MASK = torch.ones(1, 5, dtype=torch.bool)


def _loss_and_gradient(**options):
    new = NEW.clone().requires_grad_()
    loss = clipped_policy_loss(new, OLD, ADVANTAGES, MASK, **options)
    (gradient,) = torch.autograd.grad(loss.sum(), new)
    return loss[0].tolist(), gradient[0].tolist()


def test_clip_by_hand():
    """R5: ε = 0.2: A > 0: min(ρ, 1.2); A < 0: max(ρ, 0.8); gradient −ρA where the unclipped term is taken."""
    loss, gradient = _loss_and_gradient(clip_low=0.2, clip_high=0.2)
    assert loss == pytest.approx([-1.2, -0.5, -1.1, 2.0, 0.8])
    assert gradient == pytest.approx([0.0, -0.5, -1.1, 2.0, 0.0])


def test_low_and_high_are_separate_distances():
    """R9: clip-higher: 1 − 0.4 below, 1 + 0.05 above."""
    loss, _ = _loss_and_gradient(clip_low=0.4, clip_high=0.05)
    assert loss == pytest.approx([-1.05, -0.5, -1.05, 2.0, 0.6])


def test_factor_clip():
    """R9: a factor of 1.6 clips into [0.625, 1.6] and replaces the distances."""
    loss, _ = _loss_and_gradient(clip_low=0.0, clip_high=0.0, clip_ratio=1.6)
    assert loss == pytest.approx([-1.6, -0.5, -1.1, 2.0, 0.625])
    assert clip_bounds(0.2, 0.3) == pytest.approx((0.8, 1.3))
    assert clip_bounds(0.2, 0.3, 10.0) == (0.1, 10.0)


def test_dual_clip():
    """R9: where A < 0 the loss is at most c·|A|; where A > 0 nothing changes."""
    loss, gradient = _loss_and_gradient(clip_low=0.2, clip_high=0.2, dual_clip=1.5)
    assert loss == pytest.approx([-1.2, -0.5, -1.1, 1.5, 0.8])
    assert gradient == pytest.approx([0.0, -0.5, -1.1, 0.0, 0.0])


def test_sequence_ratio_is_one_per_sequence():
    """R9: GSPO: ρ = (2·½·1.1·2·½)^(1/5) on every token, so the mean of a row is the sequence's loss."""
    level = math.prod(RATIOS) ** (1 / 5)
    advantages = torch.tensor([2.0])
    new = NEW.clone().requires_grad_()
    loss = clipped_policy_loss(new, OLD, advantages, MASK, 0.2, 0.2, ratio="sequence")
    assert loss[0].tolist() == pytest.approx([-2 * level] * 5)
    (gradient,) = torch.autograd.grad(loss.mean(), new)
    assert gradient[0].tolist() == pytest.approx([-2 * level / 5] * 5)
    by_token = clipped_policy_loss(new, OLD, advantages, MASK, 0.2, 0.2, ratio="sequence_token")
    torch.testing.assert_close(by_token, loss)
    torch.testing.assert_close(torch.autograd.grad(by_token.mean(), new)[0], gradient)


def test_advantages_per_sequence_or_per_token():
    """R9: one advantage per row is that of all its tokens; any other shape is refused."""
    new, old, mask = NEW.expand(2, 5), OLD.expand(2, 5), MASK.expand(2, 5)
    per_row = clipped_policy_loss(new, old, torch.tensor([1.0, -1.0]), mask)
    per_token = clipped_policy_loss(new, old, torch.tensor([[1.0] * 5, [-1.0] * 5]), mask)
    torch.testing.assert_close(per_row, per_token)
    with pytest.raises(ValueError, match="neither one value per token"):
        clipped_policy_loss(new, old, torch.ones(5), mask)


def test_masked_tokens_have_no_gradient():
    """Trap 7: even where the masked numbers overflow or are not numbers; loss 0 there."""
    new = torch.tensor([[-1.0, 1e4, math.nan, -math.inf]], requires_grad=True)
    mask = torch.tensor([[True, False, False, False]])
    advantages = torch.tensor([[1.0, math.nan, 1.0, 1.0]])
    for kind in ("token", "sequence", "sequence_token"):
        loss = clipped_policy_loss(new, torch.zeros(1, 4), advantages, mask, ratio=kind)
        assert loss[0, 1:].tolist() == [0.0, 0.0, 0.0]
        assert torch.autograd.grad(loss.sum(), new)[0][0, 1:].tolist() == [0.0, 0.0, 0.0]
    for loss in (cispo_loss(new, torch.zeros(1, 4), advantages, 5.0, mask=mask), cross_entropy(new, mask)):
        assert torch.autograd.grad(loss.sum(), new)[0][0, 1:].tolist() == [0.0, 0.0, 0.0]


def test_cispo_by_hand():
    """R9: −min(ρ, 1.5)·A·lp; the weight carries no gradient, and capped tokens keep theirs."""
    new = NEW.clone().requires_grad_()
    loss = cispo_loss(new, OLD, ADVANTAGES, ratio_max=1.5)
    weights = [1.5, 0.5, 1.1, -1.5, -0.5]
    assert loss[0].tolist() == pytest.approx([-w * math.log(r) for w, r in zip(weights, RATIOS, strict=True)])
    (gradient,) = torch.autograd.grad(loss.sum(), new)
    assert gradient[0].tolist() == pytest.approx([-w for w in weights])


def test_cross_entropy():
    """R1: the SFT loss is minus the log-probability."""
    assert cross_entropy(torch.tensor([-1.0, -2.0])).tolist() == [1.0, 2.0]


def test_policy_ratio_is_what_the_loss_uses():
    """R17: diagnostics see the ratio of the loss."""
    torch.testing.assert_close(policy_ratio(NEW, OLD, MASK), torch.tensor([RATIOS]))
    assert policy_ratio(NEW, OLD, MASK, "sequence").shape == NEW.shape


def test_bad_arguments_are_one_sentence():
    """R9: a factor under 1, a negative distance, a dual clip under 1, an unknown ratio."""
    for options in (
        {"clip_ratio": 1.0},
        {"clip_low": -0.1},
        {"clip_high": math.nan},
        {"dual_clip": 1.0},
        {"ratio": "row"},
    ):
        with pytest.raises(ConfigError):
            clipped_policy_loss(NEW, OLD, ADVANTAGES, MASK, **options)
    with pytest.raises(ConfigError, match="ratio_max"):
        cispo_loss(NEW, OLD, ADVANTAGES, 0.0)
