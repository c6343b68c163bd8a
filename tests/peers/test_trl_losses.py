from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from trimtab.functional import clip_fraction, policy_ratio

from .trl_adapters import completion_mask, logprobs, near
from .trl_cases import cases
from .trl_table import advantage_difference

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(find_spec("trl") is None, reason="trl is not installed: pip install -e .[peers]"),
]


@pytest.mark.parametrize(
    "case", [case for case in cases() if not case.on_purpose], ids=lambda case: case.name
)
def test_same_loss_and_gradient(case):
    """R5, R9, R4: TRL's own code gives the same number and the same gradient."""
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-14)):
        loss, gradient = case.differences(dtype)
        assert loss <= tolerance
        assert gradient <= tolerance


@pytest.mark.parametrize("case", [case for case in cases() if case.on_purpose], ids=lambda case: case.name)
def test_differs_on_purpose(case):
    """Trap 14: the same number, a gradient that differs for the reason given."""
    loss, gradient = case.differences(torch.float64)
    assert loss <= 1e-14
    assert gradient > 0.1


def test_the_data_takes_every_branch():
    """The comparisons would prove little if the clip never bound: here it does, on both sides."""
    mask = completion_mask()
    ratio = policy_ratio(logprobs(torch.float64), near(1, torch.float64), mask)
    high, low = torch.ones(len(mask)), -torch.ones(len(mask))
    assert clip_fraction(ratio, mask, 0.2, 0.2, high) > 0.2
    assert clip_fraction(ratio, mask, 0.2, 0.2, low) > 0.2
    of_sequences = policy_ratio(logprobs(torch.float64), near(1, torch.float64), mask, "sequence")
    assert 0.3 < clip_fraction(of_sequences, mask, 0.05, 0.05) < 1.0


def test_advantages():
    """R9, trap 3: the same advantages, with an abstained reward and a group without variance."""
    assert advantage_difference("group", "group_std") <= 1e-6
    assert advantage_difference("none", "none") <= 1e-6


def test_advantages_differ_on_purpose():
    """Trap 14: TRL's batch scale is the deviation of raw rewards, ours that of centred advantages (R8)."""
    assert advantage_difference("batch", "batch_std") > 0.1
