from __future__ import annotations

import math

import pytest
import torch

from trimtab.functional import (
    approx_kl,
    clip_fraction,
    effective_sample_size,
    expected_calibration_error,
    explained_variance,
    ratio_summary,
)

RATIO = torch.tensor([[2.0, 0.5, 1.1], [2.0, 0.5, 100.0]])
MASK = torch.tensor([[True, True, True], [True, True, False]])


def test_approx_kl_by_hand():
    """R6: mean over the mask of ρ − 1 − log ρ; 0 for the same policy; trap 18: masked tokens do not count."""
    expected = sum(r - 1 - math.log(r) for r in (2.0, 0.5, 1.1, 2.0, 0.5)) / 5
    assert approx_kl(RATIO.log(), torch.zeros(2, 3), MASK) == pytest.approx(expected, rel=1e-5)
    assert approx_kl(RATIO.log(), RATIO.log(), MASK) == 0.0


def test_approx_kl_is_the_kl_of_old_to_current():
    """R6: sampled from old, its expectation over 5 tokens is KL(old ‖ current) and nothing else."""
    old = torch.log_softmax(torch.tensor([0.3, -1.2, 0.8, 0.1, -0.4]).double(), 0)
    new = torch.log_softmax(torch.tensor([-0.5, 0.6, 0.2, -0.9, 0.7]).double(), 0)
    one = torch.ones(1, 1, dtype=torch.bool)
    expectation = sum(
        float(old[i].exp()) * approx_kl(new[i].view(1, 1), old[i].view(1, 1), one) for i in range(5)
    )
    assert expectation == pytest.approx(float((old.exp() * (old - new)).sum()))


def test_clip_fraction_by_hand():
    """R17: 4 of 5 ratios are outside 0.8..1.2; with advantages only those that lose their gradient."""
    assert clip_fraction(RATIO, MASK, 0.2, 0.2) == pytest.approx(4 / 5)
    assert clip_fraction(RATIO, MASK, 0.6, 0.2) == pytest.approx(2 / 5)
    assert clip_fraction(RATIO, MASK, 0.2, 0.2, torch.tensor([1.0, -1.0])) == pytest.approx(2 / 5)
    advantages = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 1.0]])
    assert clip_fraction(RATIO, MASK, 0.2, 0.2, advantages) == pytest.approx(3 / 5)


def test_ratio_summary():
    """R17: mean, smallest and largest over the mask."""
    assert ratio_summary(RATIO, MASK) == pytest.approx({"mean": 6.1 / 5, "min": 0.5, "max": 2.0})
    assert ratio_summary(RATIO, torch.zeros_like(MASK)) == {"mean": 1.0, "min": 1.0, "max": 1.0}


def test_explained_variance_by_hand():
    """R7: 1 for a perfect critic, 0 for a constant, negative for one with the wrong sign."""
    returns = torch.tensor([[1.0, 2.0, 3.0, 99.0]])
    mask = torch.tensor([[True, True, True, False]])
    assert explained_variance(returns, returns, mask) == 1.0
    assert explained_variance(torch.full((1, 4), 7.0), returns, mask) == pytest.approx(0.0)
    assert explained_variance(-returns, returns, mask) == pytest.approx(-3.0)
    half = torch.tensor([[1.0, 2.0, 2.0, -5.0]])
    assert explained_variance(half, returns, mask) == pytest.approx(1 - (1 / 3) / 1.0)
    assert explained_variance(returns, torch.ones(1, 4), mask) == 0.0


def test_effective_sample_size_by_hand():
    """R9: n equal weights are worth n; 3, 1 are worth 16/10; one alone is worth 1; none 0."""
    assert effective_sample_size(torch.full((8,), 0.3)) == pytest.approx(8.0)
    assert effective_sample_size(torch.tensor([3.0, 1.0, 7.0]), torch.tensor([True, True, False])) == 1.6
    assert effective_sample_size(torch.tensor([0.0, 5.0])) == 1.0
    assert effective_sample_size(torch.zeros(3)) == 0.0


def test_calibration_error_by_hand():
    """R4: bin 0.9: mean 0.95, half right, 2 of 4; bin 0.2: mean 0.2, none right, 2 of 4: 0.225 + 0.1."""
    probabilities = torch.tensor([0.92, 0.98, 0.2, 0.2])
    labels = torch.tensor([1, 0, 0, 0])
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.225 + 0.1)
    assert expected_calibration_error(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0])) == 0.0
    assert expected_calibration_error(torch.full((4,), 0.75), torch.tensor([1, 1, 1, 0])) == 0.0
    # In one bin 0.1 and 0.9 with labels 1 and 0 average out; in ten bins they do not.
    crossed = torch.tensor([0.1, 0.9]), torch.tensor([1, 0])
    assert expected_calibration_error(*crossed, bins=1) == pytest.approx(0.0, abs=1e-7)
    assert expected_calibration_error(*crossed) == pytest.approx(0.9)
    assert expected_calibration_error(torch.zeros(0), torch.zeros(0)) == 0.0
    with pytest.raises(ValueError, match="sigmoid"):
        expected_calibration_error(torch.tensor([1.2]), torch.tensor([1]))
    with pytest.raises(ValueError, match="bins"):
        expected_calibration_error(probabilities, labels, bins=0)


def test_a_constant_explains_exactly_nothing():
    """R7: whatever its height: no rounding makes a critic that says one number better or worse than that."""
    returns = torch.tensor([[0.1, 0.7, 0.3, 9.0]])
    mask = torch.tensor([[True, True, True, False]])
    for level in (0.0, 0.37, -5.1):
        assert explained_variance(torch.full((1, 4), level), returns, mask) == 0.0
