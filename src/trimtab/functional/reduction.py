"""From losses of tokens to one number, with a denominator of the whole batch (trap 4).

The denominator is counted once, over every row of the step, and passed to each micro-batch and rank: their
sums then add up to the same loss and gradient however the batch is split.
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

from trimtab.errors import ConfigError
from trimtab.functional.checks import check_choice, check_same_shape
from trimtab.functional.masking import masked_mean, masked_sum

Reduction = Literal["token_mean", "sequence_mean", "fixed_length"]


def loss_denominator(mask: Tensor, kind: str, max_new_tokens: int | None = None) -> float:
    """What ``reduce_loss`` divides by, counted over the whole batch ``mask [B, T]``; ranks add theirs up.

    ``token_mean``: number of tokens. ``sequence_mean``: number of sequences with at least one token.
    ``fixed_length`` (Dr. GRPO, Liu et al. 2025): B · max_new_tokens, rows without tokens included.

    Raises:
        ConfigError: an unknown ``kind``, or ``fixed_length`` without ``max_new_tokens``.
    """
    check_choice("loss_denominator", "kind", kind, Reduction)
    if kind == "token_mean":
        return float(mask.bool().sum())
    if kind == "sequence_mean":
        return float(mask.bool().any(dim=1).sum())
    if max_new_tokens is None or max_new_tokens < 1:
        raise ConfigError(
            f"loss_denominator: 'fixed_length' needs max_new_tokens of at least 1, not {max_new_tokens}"
        )
    return float(mask.shape[0] * max_new_tokens)


def reduce_loss(token_loss: Tensor, mask: Tensor, kind: str, denominator: float) -> Tensor:
    """This micro-batch's share of the loss, a scalar; the shares of micro-batches and ranks add up to it.

    ``token_loss`` and ``mask`` are ``[B, T]``. ``token_mean`` and ``fixed_length`` sum over tokens,
    ``sequence_mean`` sums the mean of each sequence; then comes the division by ``denominator``
    (``loss_denominator`` of the whole batch). A batch without tokens has loss 0.

    Raises:
        ConfigError: an unknown ``kind``.
        ValueError: the denominator is not a number, negative, or 0 although there are tokens.
    """
    check_choice("reduce_loss", "kind", kind, Reduction)
    check_same_shape("reduce_loss", token_loss=token_loss, mask=mask)
    if not (math.isfinite(denominator) and denominator >= 0):
        raise ValueError(f"reduce_loss: denominator = {denominator} must be a count; use loss_denominator")
    if denominator == 0 and bool(mask.bool().any()):
        raise ValueError(
            "reduce_loss: denominator = 0 but the mask has tokens; count it over the whole batch"
        )
    per_part = (
        masked_mean(token_loss, mask, dim=1) if kind == "sequence_mean" else masked_sum(token_loss, mask)
    )
    return per_part.sum() / (denominator or 1.0)
