from __future__ import annotations

import math

import pytest
import torch

from trimtab.errors import AdvantageError, ConfigError
from trimtab.functional import (
    advantages_from_groups,
    estimate_advantages,
    num_zero_variance_groups,
    rows_with_variance,
    scale_advantages,
    without_lone_rewards,
)

REWARDS = torch.tensor([1.0, 2.0, 6.0, 0.0, 4.0, 8.0])
VALID = torch.ones(6, dtype=torch.bool)
GROUPS = torch.tensor([0, 0, 0, 7, 7, 7])


def test_baselines_by_hand():
    """R9: group means are 3 and 4, the batch mean 3.5; leave-one-out compares with the mean of the others."""
    expected = {
        "group_mean": [-2.0, -1.0, 3.0, -4.0, 0.0, 4.0],
        "leave_one_out": [1 - 4.0, 2 - 3.5, 6 - 1.5, 0 - 6.0, 4 - 4.0, 8 - 2.0],
        "batch_mean": [-2.5, -1.5, 2.5, -3.5, 0.5, 4.5],
        "none": REWARDS.tolist(),
    }
    for baseline, values in expected.items():
        torch.testing.assert_close(
            estimate_advantages(REWARDS, VALID, GROUPS, baseline), torch.tensor(values), msg=baseline
        )


def test_scales_by_hand():
    """R9: unbiased deviations √7 and 4 of the groups; of the centred batch √(46/5)."""
    centred = estimate_advantages(REWARDS, VALID, GROUPS, "group_mean")
    group = [-2 / math.sqrt(7), -1 / math.sqrt(7), 3 / math.sqrt(7), -1.0, 0.0, 1.0]
    torch.testing.assert_close(
        scale_advantages(centred, VALID, GROUPS, "group_std"), torch.tensor(group), rtol=1e-5, atol=1e-6
    )
    batch = centred / math.sqrt(46 / 5)
    torch.testing.assert_close(
        scale_advantages(centred, VALID, GROUPS, "batch_std"), batch, rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(scale_advantages(centred, VALID, GROUPS, "none"), centred)


def test_eps_is_added_to_the_deviation():
    """Trap 14: (r − mean) / (std + eps): with eps 1 the group of deviation 4 is divided by 5."""
    actual = advantages_from_groups(REWARDS[3:], VALID[3:], GROUPS[3:], "group_mean", "group_std", eps=1.0)
    torch.testing.assert_close(actual, torch.tensor([-0.8, 0.0, 0.8]))
    default = advantages_from_groups(REWARDS[3:], VALID[3:], GROUPS[3:], "group_mean", "group_std")
    assert float(default[2]) == pytest.approx(4 / (4 + 1e-6), abs=1e-7)


def test_composition_is_the_two_steps():
    """R9: estimation, then normalisation."""
    for baseline in ("group_mean", "leave_one_out", "batch_mean", "none"):
        for scale in ("group_std", "batch_std", "none"):
            two = scale_advantages(
                estimate_advantages(REWARDS, VALID, GROUPS, baseline), VALID, GROUPS, scale
            )
            one = advantages_from_groups(REWARDS, VALID, GROUPS, baseline, scale)
            torch.testing.assert_close(one, two)


@pytest.mark.parametrize("baseline", ["group_mean", "leave_one_out", "batch_mean", "none"])
@pytest.mark.parametrize("scale", ["group_std", "batch_std", "none"])
def test_an_abstained_reward_is_left_out(baseline, scale):
    """Trap 3: a row that abstained changes nothing for the others, whatever stands there; it gets 0."""
    valid = torch.tensor([True, True, True, False, True, True, True, False])
    rewards = torch.cat([REWARDS[:3], torch.tensor([math.nan]), REWARDS[3:], torch.tensor([1e9])])
    groups = torch.cat([GROUPS[:3], GROUPS[:1], GROUPS[3:], GROUPS[3:4]])
    actual = advantages_from_groups(rewards, valid, groups, baseline, scale)
    expected = advantages_from_groups(REWARDS, VALID, GROUPS, baseline, scale)
    torch.testing.assert_close(actual[valid], expected, rtol=0, atol=0)
    assert actual[~valid].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("baseline", ["group_mean", "leave_one_out", "batch_mean"])
@pytest.mark.parametrize("scale", ["group_std", "batch_std", "none"])
def test_equal_rewards_are_exactly_zero(baseline, scale):
    """R9: the mean of seven times 0.1 is not 0.1 in binary; the advantage is 0 all the same, not an ulp."""
    rewards = torch.full((7,), 0.1, dtype=torch.float64)
    ids = torch.zeros(7, dtype=torch.long)
    valid = torch.ones(7, dtype=torch.bool)
    assert advantages_from_groups(rewards, valid, ids, baseline, scale).tolist() == [0.0] * 7
    assert advantages_from_groups(rewards * 1e6, valid, ids, baseline, scale).tolist() == [0.0] * 7


@pytest.mark.parametrize("baseline", ["batch_mean", "none"])
def test_a_flat_group_has_no_scale(baseline):
    """R9: a group without variance is not divided by eps, whatever the baseline left of it."""
    rewards = torch.tensor([1.0, 1.0, 2.0, 4.0])
    groups = torch.tensor([0, 0, 1, 1])
    actual = advantages_from_groups(rewards, torch.ones(4, dtype=torch.bool), groups, baseline, "group_std")
    assert actual[:2].tolist() == [0.0, 0.0]
    assert actual[2:].abs().max() < 5


def test_groups_without_variance_are_counted():
    """R17: counts groups whose valid rewards are all equal, one valid reward included, none excluded."""
    rewards = torch.tensor([1.0, 1.0, 1.0, 2.0, 5.0, 9.0, 3.0, 3.0])
    groups = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    valid = torch.tensor([True, True, True, True, True, False, False, False])
    assert num_zero_variance_groups(rewards, valid, groups) == 2
    assert num_zero_variance_groups(rewards, torch.ones(8, dtype=torch.bool), groups) == 2
    assert rows_with_variance(rewards, valid, groups).tolist() == [False, False, True, True] + [False] * 4


def test_a_group_of_one_is_an_error():
    """R9: one reward cannot be compared; the sentence names the group and what asked for it."""
    rewards, valid, groups = (
        torch.tensor([1.0, 2.0, 3.0]),
        torch.ones(3, dtype=torch.bool),
        torch.tensor([4, 4, 9]),
    )
    with pytest.raises(AdvantageError, match=r"group 9 has one valid reward, and scale 'group_std'"):
        advantages_from_groups(rewards, valid, groups, "group_mean", "group_std")
    with pytest.raises(AdvantageError, match=r"group 9 .* baseline 'leave_one_out'"):
        advantages_from_groups(rewards, valid, groups, "leave_one_out", "none")
    with pytest.raises(AdvantageError, match=r"the batch has one valid reward, and scale 'batch_std'"):
        advantages_from_groups(rewards[:1], valid[:1], groups[:1], "batch_mean", "batch_std")
    assert advantages_from_groups(rewards, valid, groups, "group_mean", "none").tolist() == [-0.5, 0.5, 0.0]


def test_everything_abstained_is_not_an_error():
    """Trap 3: nothing to compare, nothing to learn: zeros, whatever the method."""
    none = torch.zeros(6, dtype=torch.bool)
    for baseline in ("group_mean", "leave_one_out", "batch_mean", "none"):
        for scale in ("group_std", "batch_std", "none"):
            assert advantages_from_groups(REWARDS, none, GROUPS, baseline, scale).tolist() == [0.0] * 6
    assert num_zero_variance_groups(REWARDS, none, GROUPS) == 0


def test_lone_rewards_can_be_left_out():
    """Trap 3: when all others of a group abstained the last one is dropped; a group of one row is kept."""
    groups = torch.tensor([0, 0, 0, 1, 1, 2])
    valid = torch.tensor([False, True, False, True, True, True])
    assert without_lone_rewards(valid, groups).tolist() == [False, False, False, True, True, True]


def test_bad_input_is_one_sentence():
    """R9: infinite rewards, unknown names and wrong shapes are refused before they become numbers."""
    with pytest.raises(AdvantageError, match="completion 1 is nan"):
        advantages_from_groups(torch.tensor([1.0, math.nan]), VALID[:2], GROUPS[:2], "group_mean", "none")
    with pytest.raises(ConfigError, match=r"baseline = 'group_men' .*did you mean 'group_mean'"):
        estimate_advantages(REWARDS, VALID, GROUPS, "group_men")
    with pytest.raises(ConfigError, match="scale"):
        scale_advantages(REWARDS, VALID, GROUPS, "std")
    with pytest.raises(ValueError, match="same shape"):
        estimate_advantages(REWARDS, VALID[:2], GROUPS, "none")
    with pytest.raises(ValueError, match="one value per completion"):
        estimate_advantages(REWARDS.view(2, 3), VALID.view(2, 3), GROUPS.view(2, 3), "none")
