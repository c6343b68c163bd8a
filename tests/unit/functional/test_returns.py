from __future__ import annotations

import pytest
import torch

from trimtab.functional import gae, reward_to_go

REWARDS = torch.tensor([[1.0, 2.0, 3.0]])
VALUES = torch.tensor([[0.5, 1.5, 2.5]])
FULL = torch.ones(1, 3, dtype=torch.bool)


def test_gae_by_hand():
    """R6: γ = 0.5, λ = 0.5: δ = 1.25, 1.75, 0.5 from the front; A_t = δ_t + A_next / 4."""
    advantages, returns = gae(REWARDS, VALUES, FULL, 0.5, 0.5)
    expected = torch.tensor([[1.25 + (1.75 + 0.5 / 4) / 4, 1.75 + 0.5 / 4, 0.5]])
    torch.testing.assert_close(advantages, expected)
    torch.testing.assert_close(returns, expected + VALUES)


def test_lambda_zero_is_the_td_error():
    """Trap 6: λ = 0."""
    advantages, _ = gae(REWARDS, VALUES, FULL, 0.9, 0.0)
    torch.testing.assert_close(advantages, torch.tensor([[1 + 0.9 * 1.5 - 0.5, 2 + 0.9 * 2.5 - 1.5, 0.5]]))


def test_lambda_one_is_return_minus_value():
    """Trap 6: λ = 1; advantages and returns are two tensors, and changing one leaves the other."""
    advantages, returns = gae(REWARDS, VALUES, FULL, 0.9, 1.0)
    discounted = torch.tensor([[1 + 0.9 * (2 + 0.9 * 3), 2 + 0.9 * 3, 3.0]])
    torch.testing.assert_close(returns, discounted)
    torch.testing.assert_close(advantages, discounted - VALUES)
    torch.testing.assert_close(reward_to_go(REWARDS, FULL, 0.9), discounted)
    assert advantages.data_ptr() != returns.data_ptr()
    advantages.zero_()
    torch.testing.assert_close(returns, discounted)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.5, 1.0])
def test_masked_tokens_are_stepped_over(gae_lambda):
    """R6: tool tokens in the middle and padding at the end are as if not there: no decay through them."""
    mask = torch.tensor([[True, False, False, True, True, False]])
    junk = 1e6
    rewards = torch.tensor([[1.0, junk, junk, 2.0, 3.0, junk]])
    values = torch.tensor([[0.5, junk, junk, 1.5, 2.5, junk]])
    advantages, returns = gae(rewards, values, mask, 0.9, gae_lambda)
    short_advantages, short_returns = gae(REWARDS, VALUES, FULL, 0.9, gae_lambda)
    torch.testing.assert_close(advantages[mask], short_advantages[0])
    torch.testing.assert_close(returns[mask], short_returns[0])
    assert advantages[~mask].tolist() == returns[~mask].tolist() == [0.0, 0.0, 0.0]
    torch.testing.assert_close(reward_to_go(rewards, mask, 0.9)[mask], reward_to_go(REWARDS, FULL, 0.9)[0])


def test_bootstrap_of_a_cut_completion():
    """Trap 13: a truncated completion may go on from a value instead of ending, whatever padding follows."""
    mask = torch.tensor([[True, True, False]])
    advantages, _ = gae(REWARDS, VALUES, mask, 0.5, 0.0, torch.tensor([4.0]))
    torch.testing.assert_close(advantages, torch.tensor([[1 + 0.75 - 0.5, 2 + 2.0 - 1.5, 0.0]]))


def test_no_gradient_and_shapes():
    """R6: targets carry no gradient; other shapes are refused."""
    advantages, returns = gae(REWARDS, VALUES.clone().requires_grad_(), FULL, 1.0, 0.95)
    assert not advantages.requires_grad
    assert not returns.requires_grad
    with pytest.raises(ValueError, match="same shape"):
        gae(REWARDS, VALUES[:, :2], FULL, 1.0, 0.95)
