"""Numbers to watch, as floats without gradient; token-level means are over the mask only (trap 18)."""

from __future__ import annotations

import torch
from torch import Tensor

from trimtab.functional.checks import check_same_shape, match_rows
from trimtab.functional.kl import kl_estimate
from trimtab.functional.masking import masked_fill_zero, masked_mean, masked_sum, masked_var


def approx_kl(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> float:
    """KL(old ‖ current) in nats per token, on tokens sampled from ``old``: mean of ρ − 1 − log ρ ≥ 0."""
    return float(masked_mean(kl_estimate(old_logprobs.detach(), logprobs.detach(), "k3", mask=mask), mask))


def clip_fraction(
    ratio: Tensor, mask: Tensor, clip_low: float, clip_high: float, advantages: Tensor | None = None
) -> float:
    """Share of tokens whose ratio left [1 − clip_low, 1 + clip_high], in 0..1.

    With ``advantages`` only those count that lose their gradient by it: above with A > 0, below with A < 0.
    For a factor clip c, ``clip_low = 1 − 1/c`` and ``clip_high = c − 1``.
    """
    above, below = ratio > 1.0 + clip_high, ratio < 1.0 - clip_low
    if advantages is not None:
        advantages = match_rows("clip_fraction", "advantages", advantages, ratio)
        above, below = above & (advantages > 0), below & (advantages < 0)
    return float(masked_mean((above | below).float(), mask))


def ratio_summary(ratio: Tensor, mask: Tensor) -> dict[str, float]:
    """``{"mean", "min", "max"}`` of the ratio over the mask; all 1 when the mask is empty."""
    kept = ratio.detach()[mask.bool()].float()
    if not len(kept):
        return {"mean": 1.0, "min": 1.0, "max": 1.0}
    return {"mean": float(kept.mean()), "min": float(kept.min()), "max": float(kept.max())}


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 − Var(returns − values) / Var(returns) over the mask: 1 is perfect, 0 no better than a constant.

    Returns 0 when the returns do not vary, for then there is nothing to explain, and exactly 0 for values
    that do not.
    """
    check_same_shape("explained_variance", values=values, returns=returns, mask=mask)
    values, returns = values.detach().double(), returns.detach().double()
    total, kept = float(masked_var(returns, mask)), values[mask.bool()]
    if not len(kept) or bool((kept == kept[0]).all()):
        return 0.0
    return 1.0 - float(masked_var(returns - values, mask)) / total if total > 0 else 0.0


def effective_sample_size(weights: Tensor, mask: Tensor | None = None) -> float:
    """Kish's (Σw)² / Σw²: how many equally weighted samples these weights are worth; 0 for none."""
    mask = torch.ones_like(weights, dtype=torch.bool) if mask is None else mask
    kept = masked_fill_zero(weights.detach().double(), mask)
    squares = float(kept.square().sum())
    return float(masked_sum(kept, mask)) ** 2 / squares if squares > 0 else 0.0


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 10) -> float:
    """Σ over bins of (share of samples) · abs(mean label − mean probability), in 0..1 (Naeini et al. 2015).

    ``probabilities [N]`` in 0..1, ``labels [N]`` 0 or 1; ``bins`` of equal width over 0..1. For preference
    pairs give the probability of the predicted winner, and whether it won.

    Raises:
        ValueError: a probability outside 0..1, shapes differ, or no bins.
    """
    check_same_shape("expected_calibration_error", probabilities=probabilities, labels=labels)
    if bins < 1:
        raise ValueError(f"expected_calibration_error: bins = {bins} must be at least 1")
    p, y = probabilities.detach().double().reshape(-1), labels.detach().double().reshape(-1)
    if not bool(((p >= 0) & (p <= 1)).all()):
        raise ValueError(
            "expected_calibration_error: probabilities must lie between 0 and 1; apply a sigmoid"
        )
    if not len(p):
        return 0.0
    index = (p * bins).long().clamp(max=bins - 1)
    # |Σ y − Σ p| of a bin is its count times the gap between the two means.
    gap = torch.zeros(bins, dtype=p.dtype, device=p.device).index_add(0, index, y - p)
    return float(gap.abs().sum() / len(p))
