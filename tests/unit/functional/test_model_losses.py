from __future__ import annotations

import math

import pytest
import torch

from trimtab.errors import ConfigError
from trimtab.functional import bradley_terry_loss, value_loss


def test_value_loss_by_hand():
    """R6: ½·max of the two squares: the clip can only raise the loss, so it removes gradients, never adds."""
    values = torch.tensor([1.0, 1.0, 0.1], requires_grad=True)
    old, returns = torch.zeros(3), torch.tensor([3.0, 0.1, 1.0])
    loss = value_loss(values, old, returns, 0.2)
    # clipped to 0.2, 0.2 and 0.1: errors (0.2 − 3)² > (1 − 3)²; (1 − 0.1)² > (0.2 − 0.1)²; both (0.1 − 1)².
    assert loss.tolist() == pytest.approx([0.5 * 2.8**2, 0.5 * 0.9**2, 0.5 * 0.9**2])
    (gradient,) = torch.autograd.grad(loss.sum(), values)
    assert gradient.tolist() == pytest.approx([0.0, 0.9, -0.9])


def test_value_loss_without_clip_and_with_mask():
    """R6: half the squared error; trap 7: nothing outside the mask, NaN included."""
    values = torch.tensor([[1.0, math.nan, math.inf]], requires_grad=True)
    returns = torch.tensor([[3.0, 0.0, math.nan]])
    mask = torch.tensor([[True, False, False]])
    for clip in (None, 5.0):
        loss = value_loss(values, torch.zeros(1, 3), returns, clip, mask=mask)
        assert loss.tolist() == [[2.0, 0.0, 0.0]]
        assert torch.autograd.grad(loss.sum(), values)[0].tolist() == [[-2.0, 0.0, 0.0]]
    with pytest.raises(ConfigError, match="value_clip"):
        value_loss(values, values, returns, 0.0)


def test_value_loss_has_no_gradient_in_its_targets():
    """R7: returns and old values are constants."""
    values = torch.tensor([1.0], requires_grad=True)
    targets = torch.tensor([2.0], requires_grad=True)
    value_loss(values, targets, targets).sum().backward()
    assert targets.grad is None
    assert values.grad is not None


def test_bradley_terry_at_equal_scores_is_log_2():
    """Trap 16: and its gradient is −½ and ½."""
    chosen, rejected = torch.tensor([1.5], requires_grad=True), torch.tensor([1.5], requires_grad=True)
    loss = bradley_terry_loss(chosen, rejected)
    assert loss.tolist() == pytest.approx([math.log(2)])
    loss.sum().backward()
    assert chosen.grad.tolist() == [-0.5]
    assert rejected.grad.tolist() == [0.5]


def test_bradley_terry_by_hand():
    """R4: −log σ(2 − 1 − margin); centring adds c·(2 + 1)²; large gaps neither overflow nor vanish."""
    chosen, rejected = torch.tensor([2.0]), torch.tensor([1.0])
    assert bradley_terry_loss(chosen, rejected).tolist() == pytest.approx([math.log(1 + math.exp(-1))])
    with_margin = bradley_terry_loss(chosen, rejected, margin=3.0)
    assert with_margin.tolist() == pytest.approx([math.log(1 + math.exp(2))])
    assert bradley_terry_loss(chosen, rejected, torch.tensor([3.0])).tolist() == with_margin.tolist()
    centred = bradley_terry_loss(chosen, rejected, centre_coef=0.1)
    assert centred.tolist() == pytest.approx([math.log(1 + math.exp(-1)) + 0.9])
    assert bradley_terry_loss(rejected - 200, chosen).tolist() == pytest.approx([201.0])
    with pytest.raises(ValueError, match="same shape"):
        bradley_terry_loss(chosen, torch.zeros(2))
