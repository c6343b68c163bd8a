"""Losses of the policy, per token ``[B, T]``, to be minimised; ``reduce_loss`` makes one number of them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from trimtab.errors import ConfigError
from trimtab.functional.checks import check_choice, check_same_shape, match_rows
from trimtab.functional.masking import masked_fill_zero
from trimtab.functional.ratios import sequence_ratio, sequence_token_ratio, token_ratio

RatioKind = Literal["token", "sequence", "sequence_token"]


def clip_bounds(clip_low: float, clip_high: float, clip_ratio: float | None = None) -> tuple[float, float]:
    """Bounds of the ratio: ``(1 − clip_low, 1 + clip_high)``, or ``(1/c, c)`` when a factor is given.

    Raises:
        ConfigError: a negative distance, or a factor not above 1.
    """
    if clip_ratio is not None:
        if not clip_ratio > 1:
            raise ConfigError(f"clip_ratio = {clip_ratio} is a factor and must be above 1, such as 10")
        return 1.0 / clip_ratio, clip_ratio
    if not (clip_low >= 0 and clip_high >= 0):
        raise ConfigError(
            f"clip_low = {clip_low} and clip_high = {clip_high} are distances from 1, at least 0"
        )
    return 1.0 - clip_low, 1.0 + clip_high


def clipped_policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    *,
    clip_ratio: float | None = None,
    dual_clip: float | None = None,
    ratio: str = "token",
) -> Tensor:
    """PPO's clipped surrogate (Schulman et al. 2017) per token: −min(ρA, clip(ρ, low, high)·A), ``[B, T]``.

    ``advantages`` are ``[B]`` or ``[B, T]``. ``clip_ratio`` c clips into [1/c, c] instead;
    ``dual_clip`` bounds the loss by −c·A where A < 0 (Ye et al. 2020); ``ratio`` is ``token``, ``sequence``
    (GSPO: with ``sequence_mean`` the paper's objective) or ``sequence_token``. 0 outside ``mask``, and no
    gradient there.

    Raises:
        ConfigError: a clip or ``dual_clip`` out of range, or an unknown ``ratio``.
    """
    low, high = clip_bounds(clip_low, clip_high, clip_ratio)
    rho = policy_ratio(logprobs, old_logprobs, mask, ratio)
    # Zero outside the mask, where the ratio is 1: so are the loss and its gradient.
    advantages = _aligned("clipped_policy_loss", advantages, logprobs, mask)
    loss = torch.maximum(-rho * advantages, -rho.clamp(low, high) * advantages)
    if dual_clip is not None:
        if not dual_clip > 1:
            raise ConfigError(f"dual_clip = {dual_clip} must be above 1, such as 3")
        loss = torch.where(advantages < 0, torch.minimum(loss, -dual_clip * advantages), loss)
    return loss


def policy_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, kind: str = "token") -> Tensor:
    """The ratio that ``clipped_policy_loss`` uses, ``[B, T]``: of tokens, of sequences, or GSPO-token's."""
    check_choice("policy_ratio", "kind", kind, RatioKind)
    check_same_shape("policy_ratio", logprobs=logprobs, old_logprobs=old_logprobs, mask=mask)
    if kind == "token":
        return token_ratio(logprobs, old_logprobs, mask)
    if kind == "sequence":
        return sequence_ratio(logprobs, old_logprobs, mask).unsqueeze(1).expand_as(logprobs)
    return sequence_token_ratio(logprobs, old_logprobs, mask)


def cispo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    ratio_max: float,
    *,
    mask: Tensor | None = None,
) -> Tensor:
    """CISPO (MiniMax 2025) per token: −stopgrad(min(ρ, ratio_max)) · A · logprobs, the shape of ``logprobs``.

    ``ratio_max`` is an absolute cap of ρ, not a distance from 1. No token loses its gradient to the clip.

    Raises:
        ConfigError: ``ratio_max`` is not above 0.
    """
    if not ratio_max > 0:
        raise ConfigError(f"cispo_loss: ratio_max = {ratio_max} is the highest ratio and must be above 0")
    advantages = _aligned("cispo_loss", advantages, logprobs, mask)
    weight = token_ratio(logprobs, old_logprobs, mask).detach().clamp(max=ratio_max)
    return masked_fill_zero(-weight * advantages * logprobs, mask)


def cross_entropy(logprobs: Tensor, mask: Tensor | None = None) -> Tensor:
    """Loss of supervised fine-tuning per token: −logprobs, 0 outside ``mask``."""
    return masked_fill_zero(-logprobs, mask)


def _aligned(function: str, advantages: Tensor, logprobs: Tensor, mask: Tensor | None) -> Tensor:
    """Advantages without gradient, one per token, zero outside the mask."""
    per_token = match_rows(function, "advantages", advantages.detach(), logprobs).expand_as(logprobs)
    return masked_fill_zero(per_token, mask)
