"""Advantages and returns of single tokens, from rewards and values of tokens ``[B, T]``.

Masked tokens (tool output, padding) are stepped over: value and advantage are carried across them unchanged,
without a discount, as if they were not there. Nothing here carries a gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trimtab.functional.checks import check_same_shape


def gae(
    token_rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    gamma: float,
    gae_lambda: float,
    bootstrap: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016): advantages and returns, ``[B, T]`` fp32 each.

    ``δ_t = r_t + γ·V_next − V_t`` and ``A_t = δ_t + γλ·A_next``, where next is the next unmasked token;
    returns are ``A + V``. Both are 0 outside ``mask`` and rewards there are not read. ``bootstrap [B]`` is
    the value after the last token, for completions that were cut off; without it every completion has ended
    (value 0).
    """
    check_same_shape("gae", token_rewards=token_rewards, values=values, mask=mask)
    rewards, values, inside = token_rewards.detach().float(), values.detach().float(), mask.bool()
    next_value = torch.zeros_like(values[:, 0]) if bootstrap is None else bootstrap.detach().float()
    next_advantage = torch.zeros_like(values[:, 0])
    advantages = torch.zeros_like(values)
    for t in range(values.shape[1] - 1, -1, -1):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = delta + gamma * gae_lambda * next_advantage
        next_advantage = torch.where(inside[:, t], advantage, next_advantage)
        next_value = torch.where(inside[:, t], values[:, t], next_value)
        advantages[:, t] = torch.where(inside[:, t], advantage, 0.0)
    return advantages, torch.where(inside, advantages + values, 0.0)


def reward_to_go(token_rewards: Tensor, mask: Tensor, gamma: float = 1.0) -> Tensor:
    """Discounted sum of rewards from each token to its row's end, ``[B, T]`` fp32; 0 outside ``mask``."""
    check_same_shape("reward_to_go", token_rewards=token_rewards, mask=mask)
    rewards, inside = token_rewards.detach().float(), mask.bool()
    total = torch.zeros_like(rewards[:, 0])
    result = torch.zeros_like(rewards)
    for t in range(rewards.shape[1] - 1, -1, -1):
        total = torch.where(inside[:, t], rewards[:, t] + gamma * total, total)
        result[:, t] = torch.where(inside[:, t], total, 0.0)
    return result
