"""The three functions of the specification (R2, R5, R8), with its names and numbers.

They show the mathematics in a few lines and serve small scripts. The trainers use the token-level forms of
``policy_losses``, ``kl`` and ``reduction``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trimtab.errors import AdvantageError
from trimtab.functional.advantages import estimate_advantages, scale_advantages
from trimtab.functional.checks import check_same_shape
from trimtab.functional.masking import masked_mean, masked_sum
from trimtab.functional.policy_losses import clipped_policy_loss


def rlhf_objective(
    rewards: Tensor,
    policy_logprobs: Tensor,
    ref_logprobs: Tensor,
    beta: float = 0.1,
    *,
    mask: Tensor | None = None,
) -> Tensor:
    """Mean of rewards − beta · (policy_logprobs − ref_logprobs), a scalar to **maximise** (R2).

    ``rewards [B]``; log-probabilities of whole completions ``[B]``, or of tokens ``[B, T]``, which are
    summed over T (over ``mask`` when given). As a number it estimates E[r] − β·KL; do not differentiate its
    KL term, whose expected gradient is zero (trap 1): that is what ``kl_loss`` is for.

    Example:
        >>> rlhf_objective(torch.tensor([1.0, 2.0]), torch.tensor([-1.0, -2.0]), torch.tensor([-2.0, -2.0]))
        tensor(1.4500)
    """
    check_same_shape("rlhf_objective", policy_logprobs=policy_logprobs, ref_logprobs=ref_logprobs, mask=mask)
    gap = policy_logprobs - ref_logprobs
    if gap.dim() == rewards.dim() + 1:
        gap = gap.sum(dim=-1) if mask is None else masked_sum(gap, mask, dim=-1)
    elif mask is not None:
        gap = torch.where(mask.bool(), gap, 0.0)
    check_same_shape("rlhf_objective", rewards=rewards, sequence_logprobs=gap)
    return (rewards - beta * gap).mean()


def ppo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    clip_epsilon: float = 0.2,
    *,
    mask: Tensor | None = None,
    clip_low: float | None = None,
    clip_high: float | None = None,
) -> Tensor:
    """Minus the mean of min(ratio·A, clip(ratio, 1 − ε, 1 + ε)·A), a scalar to minimise (R5).

    ratio = exp(logprobs − old_logprobs). Any shape; advantages may also be one per row. ``clip_low`` and
    ``clip_high`` replace ``clip_epsilon`` on their side; the mean is over ``mask`` when given.
    """
    low = clip_epsilon if clip_low is None else clip_low
    high = clip_epsilon if clip_high is None else clip_high
    inside = torch.ones_like(logprobs, dtype=torch.bool) if mask is None else mask
    return masked_mean(clipped_policy_loss(logprobs, old_logprobs, advantages, inside, low, high), inside)


def grpo_loss(
    policy_logprobs: Tensor,
    old_logprobs: Tensor,
    ref_logprobs: Tensor,
    rewards: Tensor,
    kl_coef: float = 0.001,
    clip_ratio: float = 10.0,
) -> Tensor:
    """GRPO on whole completions, a scalar to minimise (R8); every argument is ``[batch, num_samples]``.

    Four distributions: the current policy, the **old** policy that sampled (for the ratio), the
    **reference** (for the KL), and the rewards of the reward model. Advantage: reward minus the mean of its
    row, then centred and divided by the unbiased std over the whole batch + 1e-8. Loss: −mean(min(ratio·A,
    clip(ratio, 1/c, c)·A)) + kl_coef · mean(policy − reference): PPO's minimum with a factor c, so that a
    completion loses its gradient only where it has already moved too far in the direction of its advantage.
    The KL is the specification's mean difference (k1): right as a number, but its expected gradient is zero
    on the policy's own samples; the production form takes ``kl_loss`` (trap 1).

    Raises:
        AdvantageError: fewer than two samples per prompt, or a reward that is not finite.
    """
    check_same_shape(
        "grpo_loss",
        policy_logprobs=policy_logprobs,
        old_logprobs=old_logprobs,
        ref_logprobs=ref_logprobs,
        rewards=rewards,
    )
    if rewards.dim() != 2:
        raise ValueError(f"grpo_loss: rewards has shape {list(rewards.shape)}; give [batch, num_samples]")
    if rewards.shape[1] < 2:
        raise AdvantageError("grpo_loss needs at least 2 samples per prompt to compare; raise num_samples")
    inside, advantages = torch.ones_like(rewards, dtype=torch.bool), _batch_normalised(rewards)
    surrogate = clipped_policy_loss(policy_logprobs, old_logprobs, advantages, inside, clip_ratio=clip_ratio)
    return surrogate.mean() + kl_coef * (policy_logprobs - ref_logprobs.detach()).mean()


def _batch_normalised(rewards: Tensor) -> Tensor:
    """Group-mean baseline, then batch centring and scaling; a batch of equal groups gives exact zeros."""
    flat, valid = rewards.reshape(-1), torch.ones(rewards.numel(), dtype=torch.bool, device=rewards.device)
    group_ids = torch.arange(len(rewards), device=rewards.device).repeat_interleave(rewards.shape[1])
    centred = estimate_advantages(flat, valid, group_ids, "group_mean")
    # The groups are of one size, so their centred rewards already have mean 0 over the batch.
    return scale_advantages(centred, valid, group_ids, "batch_std", eps=1e-8).view_as(rewards)
