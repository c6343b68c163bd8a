"""What is done to rewards before advantages: clip, normalise, spread over tokens, punish excess length."""

from __future__ import annotations

import torch
from torch import Tensor

from trimtab.functional.checks import check_same_shape
from trimtab.functional.masking import masked_fill_zero


def normalise_rewards(
    rewards: Tensor,
    valid: Tensor | None = None,
    *,
    clip: float | tuple[float, float] | None = None,
    mean: float | None = None,
    std: float | None = None,
    eps: float = 1e-8,
) -> Tensor:
    """Clip the rewards, then normalise them: ``(clip(r) − mean) / (std + eps)``, ``[N]`` fp32.

    The order matters (trap 2): one outlier clipped after normalising has already squeezed all the others.
    ``clip`` is a bound on either side of 0, or (low, high). ``mean`` and ``std`` are those stored with a
    reward model; what is not given is taken from the clipped valid rewards (unbiased). Abstained rows
    become 0 and stay invalid for the caller.
    """
    valid = torch.ones_like(rewards, dtype=torch.bool) if valid is None else valid.bool()
    clipped = masked_fill_zero(rewards.detach().float(), valid)
    if clip is not None:
        low, high = clip if isinstance(clip, tuple) else (-clip, clip)
        clipped = clipped.clamp(low, high)
    kept = clipped[valid]
    centre = kept.mean() if mean is None and len(kept) else mean or 0.0
    spread = (kept.std() if len(kept) > 1 else 0.0) if std is None else std
    return masked_fill_zero((clipped - centre) / (spread + eps), valid)


def token_rewards_with_kl(scores: Tensor, kl: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """PPO's token rewards: ``−kl_coef · kl`` on every token, plus the score on the last one (R6).

    Shapes: ``scores [B]``, ``kl [B, T]`` (an estimate of ``kl_estimate``), ``mask [B, T]`` → ``[B, T]`` fp32.
    A row without tokens gets no score.
    """
    check_same_shape("token_rewards_with_kl", kl=kl, mask=mask)
    inside = mask.bool()
    rewards = masked_fill_zero(-kl_coef * kl.detach().float(), inside)
    position = torch.arange(inside.shape[1], device=inside.device)
    last = torch.where(inside, position, -1).amax(dim=1, keepdim=True)
    return rewards + torch.where(position == last, scores.detach().float().unsqueeze(1), 0.0)


def overlong_penalty(lengths: Tensor, max_new_tokens: int, buffer: int) -> Tensor:
    """DAPO's soft punishment of length, ``[N]`` fp32 in [−1, 0], to add to the reward (Yu et al. 2025).

    0 up to ``max_new_tokens − buffer`` tokens, then down linearly to −1 at ``max_new_tokens`` and beyond.

    Raises:
        ValueError: ``buffer`` is not within 1 and ``max_new_tokens``.
    """
    if not 1 <= buffer <= max_new_tokens:
        raise ValueError(
            f"overlong_penalty: buffer = {buffer} must be between 1 and max_new_tokens = {max_new_tokens}"
        )
    return ((max_new_tokens - buffer - lengths).float() / buffer).clamp(-1.0, 0.0)
