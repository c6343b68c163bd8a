from __future__ import annotations

import math

import pytest
import torch

from trimtab.functional import masked_fill_zero, masked_mean, masked_sum, masked_var, masked_whiten

X = torch.tensor([[1.0, 2.0, 9.0], [4.0, 9.0, 9.0]])
MASK = torch.tensor([[True, True, False], [True, False, False]])


def test_sum_and_mean_by_hand():
    """R9: over everything and per row; numbers may serve as a mask."""
    assert float(masked_sum(X, MASK)) == 7.0
    assert masked_sum(X, MASK, dim=1).tolist() == [3.0, 4.0]
    assert float(masked_mean(X, MASK)) == pytest.approx(7 / 3)
    assert masked_mean(X, MASK.float(), dim=1).tolist() == [1.5, 4.0]
    assert masked_mean(X, MASK.long(), dim=0).tolist() == [2.5, 2.0, 0.0]


def test_empty_mask_gives_zero():
    """R9: a row without tokens has mean 0, not NaN."""
    empty = torch.zeros_like(MASK)
    assert float(masked_mean(X, empty)) == 0.0
    assert masked_mean(X, empty, dim=1).tolist() == [0.0, 0.0]
    assert float(masked_var(X, empty)) == 0.0
    assert masked_whiten(X, empty).tolist() == torch.zeros_like(X).tolist()


def test_variance_by_hand():
    """R6: values 1, 2, 4 have mean 7/3: unbiased variance 7/3, biased 14/9."""
    assert float(masked_var(X, MASK)) == pytest.approx(7 / 3)
    assert float(masked_var(X, MASK, unbiased=False)) == pytest.approx(14 / 9)
    one = torch.tensor([[True, False, False], [False, False, False]])
    assert float(masked_var(X, one)) == 0.0


def test_whiten_by_hand():
    """R6: whitened values have mean 0 and variance 1 over the mask, and are 0 outside it."""
    std = math.sqrt(7 / 3)
    expected = [[(1 - 7 / 3) / std, (2 - 7 / 3) / std, 0.0], [(4 - 7 / 3) / std, 0.0, 0.0]]
    torch.testing.assert_close(masked_whiten(X, MASK), torch.tensor(expected))
    kept = masked_whiten(X, MASK, shift_mean=False)
    assert float(masked_mean(kept, MASK)) == pytest.approx(7 / 3, abs=1e-6)
    assert float(masked_var(kept, MASK)) == pytest.approx(1.0, abs=1e-6)
    assert kept[~MASK].abs().sum() == 0


def test_what_lies_outside_may_be_anything():
    """Trap 7: NaN and infinity outside the mask reach neither a value nor a gradient."""
    x = torch.tensor([[1.0, math.nan], [2.0, math.inf]], requires_grad=True)
    mask = torch.tensor([[True, False], [True, False]])
    for function in (masked_sum, masked_mean, masked_var, lambda a, m: masked_whiten(a, m).square().sum()):
        value = function(x, mask)
        (gradient,) = torch.autograd.grad(value, x)
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()
        assert gradient[:, 1].tolist() == [0.0, 0.0]


def test_shapes_are_checked():
    """R9: a mask of another shape never broadcasts."""
    with pytest.raises(ValueError, match=r"mask has shape \[3\]"):
        masked_sum(X, MASK[0])
    assert masked_fill_zero(X, None) is X
