"""Advantages that compare each reward on its own (GDPO), by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trimtab.functional import advantages_from_groups, decoupled_advantages, scale_advantages

GROUPS = torch.tensor([0, 0, 1, 1])
ALL = torch.tensor([True] * 4)
FORM = ("group_mean", "none", 1e-12)


def decoupled(values: list[list[float]], weights: list[float], **changes: Tensor) -> Tensor:
    components = torch.tensor(values)
    present = changes.get("present", torch.ones_like(components, dtype=torch.bool))
    valid = changes.get("valid", ALL)
    return decoupled_advantages(components, present, torch.tensor(weights), valid, GROUPS, FORM)


def test_by_hand() -> None:
    """GDPO: centred per group and component, weighted, added, divided by the deviation of the batch."""
    # centred: first (1, −1, 2, −2), second (0, 0, −1, 1); sum of 1 · first + 2 · second = (1, −1, 0, 0),
    # unbiased variance over the batch 2/3.
    found = decoupled([[3, 7], [1, 7], [4, 0], [0, 2]], [1.0, 2.0])
    std = (2 / 3) ** 0.5
    assert found.tolist() == pytest.approx([1 / std, -1 / std, 0, 0])


def test_each_component_counts_alike_whatever_its_spread() -> None:
    """GDPO: with group_std a component that is a thousand times wider has no more say."""
    small = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    wide = small * torch.tensor([1000.0, 1.0])
    every = torch.ones_like(small, dtype=torch.bool)
    found = [decoupled_advantages(x, every, torch.tensor([1.0, 0.5]), ALL, GROUPS) for x in (small, wide)]
    assert found[0].tolist() == pytest.approx(found[1].tolist(), abs=1e-4)


def test_mixtures_of_one_sum_stay_apart() -> None:
    """GDPO: in a group where all sums are equal GRPO teaches nothing; compared apart, the weights decide."""
    values = torch.tensor([[2.0, 0.0], [0.0, 2.0], [0.0, 1.0], [1.0, 1.0]])
    grpo = advantages_from_groups(values.sum(dim=1), ALL, GROUPS, "group_mean", "group_std")
    assert grpo[:2].tolist() == [0.0, 0.0]
    every = torch.ones_like(values, dtype=torch.bool)
    apart = decoupled_advantages(values, every, torch.tensor([1.0, 0.25]), ALL, GROUPS)
    assert apart[0] > 0 > apart[1]


@pytest.mark.parametrize("baseline", ["group_mean", "leave_one_out", "batch_mean"])
@pytest.mark.parametrize("scale", ["group_std", "batch_std", "none"])
def test_one_component_is_the_plain_form_over_one_number(baseline: str, scale: str) -> None:
    """GDPO: with one component only the final division by the batch's deviation remains, in every form."""
    rewards = torch.tensor([0.3, 0.9, -2.0, 1.0])
    plain = advantages_from_groups(rewards, ALL, GROUPS, baseline, scale)
    form = (baseline, scale, 1e-6)
    weight, every = torch.tensor([3.0]), torch.ones(4, 1, dtype=torch.bool)
    found = decoupled_advantages(rewards.unsqueeze(1), every, weight, ALL, GROUPS, form)
    assert found.tolist() == pytest.approx(
        scale_advantages(plain, ALL, GROUPS, "batch_std").tolist(), rel=1e-5
    )
    assert float(found.std()) == pytest.approx(1.0, abs=1e-4)
    ratios = found / plain
    assert ratios.tolist() == pytest.approx([float(ratios[0])] * 4, rel=1e-5)


def test_a_component_that_does_not_apply_is_left_out_of_its_mean() -> None:
    """Trap 3: an absent value is in no mean, and the row is judged by its other components."""
    present = torch.tensor([[True, True], [True, False], [True, True], [True, True]])
    found = decoupled([[1, 9], [1, 0], [0, 1], [0, 3]], [1.0, 1.0], present=present)
    # The second component has one value left in group 0: nothing to compare it with.
    assert found[:2].tolist() == [0.0, 0.0]
    assert found[3] == -found[2] > 0


def test_abstained_rows_and_flat_groups_are_exactly_zero() -> None:
    """Trap 3: no advantage without a reward; equal components teach exactly nothing."""
    valid = torch.tensor([True, True, True, False])
    found = decoupled([[0.1, 0.2], [0.1, 0.2], [5, 5], [1, 1]], [0.7, 0.3], valid=valid)
    assert found.tolist() == [0.0] * 4


def test_wrong_shapes_are_refused() -> None:
    """Style: shapes are checked first."""
    with pytest.raises(ValueError, match="weights"):
        decoupled([[1, 2]] * 4, [1.0])
