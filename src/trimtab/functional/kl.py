"""KL divergence to the reference: to report, to punish, and as a loss whose gradient is right.

``d = logprobs − ref_logprobs`` on tokens sampled from the policy. Schulman 2020, "Approximating KL
divergence".
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from trimtab.errors import ConfigError
from trimtab.functional.checks import check_choice, check_same_shape
from trimtab.functional.masking import masked_fill_zero
from trimtab.functional.ratios import MAX_LOG_RATIO, bounded_exp

KLEstimator = Literal["k1", "kl", "k2", "mse", "k3", "abs"]


def kl_estimate(
    logprobs: Tensor, ref_logprobs: Tensor, kind: str = "k1", *, mask: Tensor | None = None
) -> Tensor:
    """Per-token estimate of KL(policy ‖ reference) in nats, the shape of ``logprobs``; 0 outside ``mask``.

    ``k1`` (also ``kl``) is d: unbiased, of either sign. ``k2`` (also ``mse``) is d²/2. ``k3`` is
    exp(−d) − 1 + d: unbiased and never negative. ``abs`` is the absolute value of d. For reports and for the
    KL in the reward; as a loss use ``kl_loss``.

    The exponent of k3 is bounded at 20 (``bounded_exp``): a token that the policy has all but forgotten
    counts 4.9e8 nats instead of infinity, and a report of it stays a number. Up to there it is exact; TRL
    does not bound it, verl and OpenRLHF cut the whole estimate at 10 nats, which would hide how far a run has
    gone.

    Raises:
        ConfigError: an unknown ``kind``; ``full`` needs logits, see ``full_kl``.
    """
    check_same_shape("kl_estimate", logprobs=logprobs, ref_logprobs=ref_logprobs)
    if kind == "full":
        raise ConfigError(
            "kl_estimate: kind = 'full' needs the logits of both models; call full_kl with them"
        )
    check_choice("kl_estimate", "kind", kind, KLEstimator)
    d = masked_fill_zero(logprobs - ref_logprobs, mask)
    if kind in ("k1", "kl"):
        return d
    if kind in ("k2", "mse"):
        return 0.5 * d.square()
    if kind == "abs":
        return d.abs()
    # expm1 keeps the digits that exp(−d) − 1 would lose near 0; the clamp removes its last rounding error.
    excess = (-d - MAX_LOG_RATIO).clamp(min=0).detach()  # as in bounded_exp
    return (torch.expm1(-d - excess) + d).clamp(min=0.0)


def full_kl(logits: Tensor, ref_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Exact KL(policy ‖ reference) over the vocabulary per position: ``[..., V]`` twice → ``[...]``, nats.

    Differentiable in ``logits``, and its gradient is the reverse-KL gradient at each position as it stands.
    """
    check_same_shape("full_kl", logits=logits, ref_logits=ref_logits)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    log_p = torch.log_softmax(logits.to(dtype) / temperature, dim=-1)
    log_q = torch.log_softmax(ref_logits.to(dtype) / temperature, dim=-1)
    p = log_p.exp()
    # A token that the policy cannot say adds nothing, even where both logits are −inf.
    gap = torch.where(p > 0, log_p - log_q, torch.zeros_like(p))
    return (p * gap).sum(dim=-1)


def kl_loss(
    logprobs: Tensor,
    ref_logprobs: Tensor,
    estimator: str = "k3",
    old_logprobs: Tensor | None = None,
    *,
    mask: Tensor | None = None,
) -> Tensor:
    """Per-token loss term whose gradient is that of the reverse KL: ρ · d · ∇logprobs. Shape of ``logprobs``.

    ``k2`` is stopgrad(ρ)·d²/2; ``k3`` is ρ·(exp(−d) − 1 + d), differentiated through ρ too, without which
    its gradient would be that of the forward KL. ρ = exp(logprobs − old_logprobs) corrects for tokens that
    an older policy sampled; without ``old_logprobs`` the policy itself sampled them and ρ = 1. Each token
    is charged for its own d only; put the KL in the reward to charge it for what it leads to.

    In that derivative of k3 the two terms with exp(−d) cancel, so it is written down as what is left, ρ·d: no
    exponent but the bounded one of ρ is in the gradient, whatever d is.

    Raises:
        ConfigError: ``k1`` (its expected gradient is zero, trap 1), ``abs``, ``full`` or an unknown name.
    """
    check_same_shape("kl_loss", logprobs=logprobs, ref_logprobs=ref_logprobs, old_logprobs=old_logprobs)
    if estimator in ("k1", "kl", "abs"):
        raise ConfigError(
            f"kl_loss: estimator = {estimator!r} does not have the gradient of the KL when it is a loss; use "
            "'k3' or 'k2', or put the KL in the reward (placement = 'reward')"
        )
    value = kl_estimate(logprobs, ref_logprobs, estimator, mask=mask)
    sampled_by = logprobs.detach() if old_logprobs is None else old_logprobs.detach()
    ratio = bounded_exp(masked_fill_zero(logprobs - sampled_by, mask)).detach()
    if estimator in ("k2", "mse"):
        return value * ratio
    d = masked_fill_zero(logprobs - ref_logprobs, mask)
    slope = masked_fill_zero(ratio * d.detach(), mask)
    return (value * ratio).detach() + slope * (d - d.detach())
