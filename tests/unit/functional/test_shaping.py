from __future__ import annotations

import math

import pytest
import torch

from trimtab.functional import normalise_rewards, overlong_penalty, token_rewards_with_kl


def test_clip_comes_before_normalisation():
    """Trap 2: clipped to ±2 the rewards are −1, 1, 2; the outlier of 1000 must not squeeze the others."""
    rewards = torch.tensor([-1.0, 1.0, 1000.0])
    actual = normalise_rewards(rewards, clip=2.0)
    mean, std = 2 / 3, math.sqrt(((5 / 3) ** 2 + (1 / 3) ** 2 + (4 / 3) ** 2) / 2)
    expected = torch.tensor([(-1 - mean) / std, (1 - mean) / std, (2 - mean) / std])
    torch.testing.assert_close(actual, expected)
    wrong_order = ((rewards - rewards.mean()) / rewards.std()).clamp(-2, 2)
    assert (actual - wrong_order).abs().max() > 0.5


def test_stored_statistics_and_bounds():
    """R4: mean and std stored with a reward model are used as they are; bounds may differ."""
    rewards = torch.tensor([0.0, 3.0, 9.0])
    torch.testing.assert_close(normalise_rewards(rewards, mean=1.0, std=2.0), torch.tensor([-0.5, 1.0, 4.0]))
    clipped = normalise_rewards(rewards, clip=(1.0, 5.0), mean=0.0, std=1.0)
    torch.testing.assert_close(clipped, torch.tensor([1.0, 3.0, 5.0]))


def test_abstained_rewards_are_left_out():
    """Trap 3: an abstained reward moves neither mean nor std, and comes out as 0."""
    valid = torch.tensor([True, False, True])
    actual = normalise_rewards(torch.tensor([1.0, math.nan, 3.0]), valid)
    torch.testing.assert_close(actual, torch.tensor([-1 / math.sqrt(2), 0.0, 1 / math.sqrt(2)]))
    nothing = torch.zeros(3, dtype=torch.bool)
    assert normalise_rewards(torch.tensor([1.0, 2.0, 3.0]), nothing).tolist() == [0.0, 0.0, 0.0]


def test_token_rewards_by_hand():
    """R6: −coef·KL on every token of the completion, the score on its last one, nothing elsewhere."""
    mask = torch.tensor([[False, True, True, False], [True, True, True, True], [False] * 4])
    kl = torch.tensor([[9.0, 1.0, 2.0, math.nan], [1.0, 1.0, 1.0, 1.0], [5.0] * 4])
    actual = token_rewards_with_kl(torch.tensor([10.0, 20.0, 30.0]), kl, mask, 0.5)
    expected = [[0.0, -0.5, 9.0, 0.0], [-0.5, -0.5, -0.5, 19.5], [0.0] * 4]
    assert actual.tolist() == expected


def test_overlong_penalty_by_hand():
    """R9: limit 100, buffer 20: nothing up to 80 tokens, half at 90, −1 at 100 and beyond (DAPO, trap 13)."""
    actual = overlong_penalty(torch.tensor([1, 80, 85, 90, 100, 120]), 100, 20)
    torch.testing.assert_close(actual, torch.tensor([0.0, 0.0, -0.25, -0.5, -1.0, -1.0]))
    for buffer in (0, 101):
        with pytest.raises(ValueError, match="buffer"):
            overlong_penalty(torch.tensor([1]), 100, buffer)
