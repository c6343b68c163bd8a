"""A closed gate is worth the least of what it is compared with, whatever signs and scales (R24)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.functional import (
    advantages_from_groups,
    components_behind_gates,
    decoupled_advantages,
    without_lone_rewards,
    worth_behind_gates,
)

NAMES = ("group_mean", "leave_one_out", "batch_mean")
SCALES = ("group_std", "batch_std", "none")
number = st.floats(-5, 5, width=32)
row = st.tuples(
    number, number, st.booleans(), st.booleans(), st.booleans()
)  # two values, closed, valid, has 2nd


def test_by_hand():
    """R24: −1, −0.4, 0.3 and a forbidden 2 become −1, −0.4, 0.3, −1; an abstained row is no yardstick."""
    rewards = torch.tensor([-1.0, -0.4, 0.3, 2.0, -9.0])
    closed = torch.tensor([False, False, False, True, False])
    valid = torch.tensor([True, True, True, True, False])
    one = torch.zeros(5, dtype=torch.int64)
    assert worth_behind_gates(rewards, closed, valid, one).tolist() == pytest.approx([-1, -0.4, 0.3, -1, -9])


def test_groups_are_apart_and_a_closed_group_prefers_nothing():
    """R24: the least of the own group only; two closed of one group are worth the same, the lower one."""
    rewards = torch.tensor([-7.0, 1.0, 4.0, 2.0, 3.0, 5.0])
    closed = torch.tensor([False, False, False, True, True, True])
    ids = torch.tensor([0, 0, 1, 1, 2, 2])
    everything = torch.ones(6, dtype=torch.bool)
    worth = worth_behind_gates(rewards, closed, everything, ids)
    assert worth.tolist() == [-7, 1, 4, 2, 3, 3]
    assert advantages_from_groups(worth, everything, ids, "group_mean", "none").tolist()[4:] == [0, 0]


def test_components_by_hand():
    """R24: per component the least worth of the group, 0 at most: the highest where weights are negative."""
    values = torch.tensor([[-1.0, 0.2], [0.5, 0.7], [2.0, 0.1]])
    present = torch.tensor([[True, True], [True, False], [True, False]])
    closed, valid = torch.tensor([False, False, True]), torch.ones(3, dtype=torch.bool)
    one = torch.zeros(3, dtype=torch.int64)
    found, there = components_behind_gates(values, present, torch.tensor([1.0, -1.0]), closed, valid, one)
    assert found[2].tolist() == pytest.approx([-1.0, 0.2])
    assert there.tolist() == [[True, True], [True, False], [True, True]]
    assert found[:2].tolist() == values[:2].tolist()


@pytest.mark.parametrize("baseline", NAMES)
@pytest.mark.parametrize("scale", SCALES)
@settings(max_examples=20)
@given(rows=st.lists(row, min_size=4, max_size=12), groups=st.integers(1, 3))
def test_no_closed_row_has_a_higher_advantage_than_an_open_one(baseline, scale, rows, groups):
    """R24: any baseline and scale, summed or one by one: in each group, or in the batch that is compared.

    A group's own scale is of another size in every group: there only rows of one group are compared.
    """
    values = torch.tensor([[r[0], r[1]] for r in rows])
    closed, valid, has_second = (torch.tensor([r[i] for r in rows]) for i in (2, 3, 4))
    ids = torch.arange(len(rows)) % groups
    compared = ids if baseline != "batch_mean" else torch.zeros_like(ids)
    if scale == "batch_std" and int(valid.sum()) == 1:
        valid = torch.zeros_like(valid)
    worth = worth_behind_gates(values.sum(dim=1), closed, valid, compared)
    kept = without_lone_rewards(valid, torch.zeros_like(ids) if scale == "batch_std" else compared)
    kept = without_lone_rewards(kept, ids)
    if int(kept.sum()) == 1 or any(int(kept[ids == g].sum()) == 1 for g in range(groups)):
        kept = torch.zeros_like(kept)
    total = advantages_from_groups(worth, kept, ids, baseline, scale)
    weights = torch.tensor([1.0, -0.5])
    present = torch.stack([torch.ones_like(has_second), has_second], dim=1)
    parts, there = components_behind_gates(values, present, weights, closed, kept, compared)
    form = (baseline, "group_std" if scale == "none" else scale, 1e-6)
    alone = any(
        int((there[:, k] & kept)[ids == g].sum()) == 1 for g in range(groups) for k in range(2)
    ) or any(int((there[:, k] & kept).sum()) == 1 for k in range(2))
    apart = torch.zeros(len(rows)) if alone else decoupled_advantages(parts, there, weights, kept, ids, form)
    for advantages, is_by_group in ((total, scale == "group_std"), (apart, form[1] == "group_std")):
        assert bool(torch.isfinite(advantages).all())
        seen = ids if is_by_group else compared
        for group in seen.unique():
            inside = (seen == group) & kept
            forbidden, allowed = advantages[inside & closed], advantages[inside & ~closed]
            if len(forbidden) and len(allowed):
                assert float(forbidden.max()) <= float(allowed.min())
