"""Sums, means and whitening over the tokens that count.

A mask is bool, or numbers where anything but 0 counts. What lies outside a mask may be anything, NaN and
infinity included: it is replaced before the arithmetic, so its gradient is exactly zero (trap 7).
"""

from __future__ import annotations

import torch
from torch import Tensor

from trimtab.functional.checks import check_same_shape


def masked_fill_zero(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return ``x`` with exact zeros outside ``mask`` (``x`` itself when there is no mask)."""
    if mask is None:
        return x
    check_same_shape("masked_fill_zero", x=x, mask=mask)
    return torch.where(mask.bool(), x, torch.zeros((), dtype=x.dtype, device=x.device))


def masked_sum(x: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Sum of ``x`` over the mask, along ``dim`` or over everything. Shapes: ``x`` and ``mask`` alike."""
    kept = masked_fill_zero(x, mask)
    return kept.sum() if dim is None else kept.sum(dim=dim)


def masked_mean(x: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Mean of ``x`` over the mask, along ``dim`` or over everything; 0 where the mask is empty."""
    count = mask.bool().sum() if dim is None else mask.bool().sum(dim=dim)
    return masked_sum(x, mask, dim) / count.clamp(min=1)


def masked_var(x: Tensor, mask: Tensor, unbiased: bool = True) -> Tensor:
    """Variance of ``x`` over the whole mask, a scalar; 0 when fewer than two values count.

    ``unbiased`` divides by n − 1 instead of n.
    """
    count = mask.bool().sum()
    squares = masked_sum((masked_fill_zero(x, mask) - masked_mean(x, mask)).square(), mask)
    return squares / (count - int(unbiased)).clamp(min=1)


def masked_whiten(x: Tensor, mask: Tensor, shift_mean: bool = True, eps: float = 1e-8) -> Tensor:
    """Scale ``x`` to unit variance over the mask; zeros outside it.

    Returns ``(x − mean) / sqrt(var + eps)``, with the mean added back when ``shift_mean`` is False.
    Statistics are those of the tensors given: call it on the whole batch, before it is split (trap 4).
    """
    x = masked_fill_zero(x, mask)
    mean = masked_mean(x, mask)
    white = (x - mean) * torch.rsqrt(masked_var(x, mask) + eps)
    return masked_fill_zero(white if shift_mean else white + mean, mask)
