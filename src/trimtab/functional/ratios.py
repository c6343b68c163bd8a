"""Ratios between the current policy, the old policy and the engine; masked tokens have ratio 1.

Every exponential of a difference of log-probabilities goes through ``bounded_exp``.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from trimtab.functional.checks import check_choice, check_same_shape
from trimtab.functional.masking import masked_fill_zero, masked_mean, masked_sum

WeightLevel = Literal["token", "sequence"]
Aggregate = Literal["sum", "mean"]
MAX_LOG_RATIO = 20.0  # nats: no ratio is above e²⁰ ≈ 4.9e8, which still squares to a finite number in fp32


def bounded_exp(log_ratio: Tensor) -> Tensor:
    """exp(min(log_ratio, 20)), any shape; up to 20 exactly exp, gradient included.

    Beyond the bound value and gradient stay e²⁰: both finite, and the gradient keeps its direction. A plain
    clamp (verl's, at the same 20) would have none there, so a token that has drifted furthest would be the
    one that nothing pulls back.
    """
    return torch.exp(log_ratio - (log_ratio - MAX_LOG_RATIO).clamp(min=0).detach())


def token_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor | None = None) -> Tensor:
    """ρ = exp(logprobs − old_logprobs), e²⁰ at most, the shape of ``logprobs``.

    No gradient goes into ``old_logprobs``.
    """
    check_same_shape("token_ratio", logprobs=logprobs, old_logprobs=old_logprobs)
    # Zero before exp, not after: exp of an unused number may overflow, and 0 · inf is NaN backward.
    return bounded_exp(masked_fill_zero(logprobs - old_logprobs.detach(), mask))


def sequence_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """GSPO's ratio, one per sequence: exp(Σ m·(lp − old) / Σ m), ``[B, T]`` → ``[B]`` (Zheng et al. 2025).

    Its gradient is ρ · mean over the tokens of ∇logprobs. A row without tokens has ratio 1.
    """
    check_same_shape("sequence_ratio", logprobs=logprobs, old_logprobs=old_logprobs, mask=mask)
    return bounded_exp(masked_mean(logprobs - old_logprobs.detach(), mask, dim=1))


def sequence_token_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """GSPO-token (Zheng et al. 2025): stopgrad(sequence ratio) · p / stopgrad(p), ``[B, T]``.

    Every token has its sequence's value, and a gradient of its own, so advantages may differ between tokens.
    """
    level = sequence_ratio(logprobs, old_logprobs, mask).detach().unsqueeze(1)
    return level * bounded_exp(masked_fill_zero(logprobs - logprobs.detach(), mask))


def importance_weights(
    old_logprobs: Tensor,
    rollout_logprobs: Tensor,
    cap: float,
    level: str = "token",
    mask: Tensor | None = None,
    *,
    aggregate: str = "sum",
) -> Tensor:
    """Truncated importance weights min(exp(old − rollout), cap) for when the sampler is not the learner.

    ``[B, T]`` without gradient, 0 outside ``mask``, to multiply token losses with. Level ``sequence`` gives
    all tokens of a row one weight, of the ``sum`` of the differences (the probability ratio of the whole
    sequence) or of their ``mean`` (length-normalised). Ionides 2008; Yao et al. 2025. With
    ``rollout_logprobs`` of a top-p truncated sampler this is trap 9's correction: expectations become those
    of the learner over the tokens that the sampler could say.

    Raises:
        ConfigError: an unknown ``level`` or ``aggregate``.
        ValueError: the cap is not above 0, or shapes differ.
    """
    check_choice("importance_weights", "level", level, WeightLevel)
    check_choice("importance_weights", "aggregate", aggregate, Aggregate)
    check_same_shape(
        "importance_weights", old_logprobs=old_logprobs, rollout_logprobs=rollout_logprobs, mask=mask
    )
    if not cap > 0:
        raise ValueError(f"importance_weights: cap = {cap} must be above 0")
    mask = torch.ones_like(old_logprobs, dtype=torch.bool) if mask is None else mask
    gap = masked_fill_zero((old_logprobs - rollout_logprobs).detach(), mask)
    if level == "sequence":
        combine = masked_sum if aggregate == "sum" else masked_mean
        gap = combine(gap, mask, dim=1).unsqueeze(1).expand_as(gap)
    return masked_fill_zero(bounded_exp(gap).clamp(max=cap), mask)
