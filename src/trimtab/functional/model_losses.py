"""Losses of the other models: the critic, per token; reward models, per pair and per step."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from trimtab.errors import ConfigError
from trimtab.functional.checks import check_same_shape
from trimtab.functional.masking import masked_fill_zero


def value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    value_clip: float | None = 0.2,
    *,
    mask: Tensor | None = None,
) -> Tensor:
    """PPO's value loss per token: ½·max((V − R)², (clip(V, V_old ± value_clip) − R)²); all shapes alike.

    ``value_clip`` is in units of the return; None leaves ½(V − R)². 0 outside ``mask``.

    Raises:
        ConfigError: ``value_clip`` is not above 0.
    """
    check_same_shape("value_loss", values=values, old_values=old_values, returns=returns)
    # Before the square, so that an unused value has no gradient even when it is not finite.
    values, returns = masked_fill_zero(values, mask), masked_fill_zero(returns.detach(), mask)
    error = (values - returns).square()
    if value_clip is not None:
        if not value_clip > 0:
            raise ConfigError(f"value_loss: value_clip = {value_clip} must be above 0; None turns it off")
        old = masked_fill_zero(old_values.detach(), mask)
        clipped = torch.clamp(values, old - value_clip, old + value_clip)
        error = torch.maximum(error, (clipped - returns).square())
    return masked_fill_zero(0.5 * error, mask)


def bradley_terry_loss(
    chosen: Tensor, rejected: Tensor, margin: float | Tensor = 0.0, centre_coef: float = 0.0
) -> Tensor:
    """Loss of each pair ``[B]``: −log σ(chosen − rejected − margin) + centre_coef · (chosen + rejected)².

    ``chosen`` and ``rejected`` are scores ``[B]``; ``margin`` a number or ``[B]``. Equal scores cost log 2.
    Centring pulls scores towards 0 (Eisenstein et al. 2023). Take the mean over all pairs of the batch.
    """
    check_same_shape("bradley_terry_loss", chosen=chosen, rejected=rejected)
    # −log σ(x) = softplus(−x), which neither overflows nor loses its gradient.
    return softplus(rejected - chosen + margin) + centre_coef * (chosen + rejected).square()


def step_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of each step ``[N]``: −y·log σ(x) − (1 − y)·log(1 − σ(x)).

    ``logits [N]`` are those at the ends of steps (Uesato et al. 2022; Lightman et al. 2023), ``labels [N]`` 1
    for a right step, 0 for a wrong one, or the probability that it is right. A logit of 0 costs log 2. Take
    the mean over all steps of the batch.
    """
    check_same_shape("step_loss", logits=logits, labels=labels)
    # −y·log σ(x) − (1 − y)·log σ(−x) = softplus(x) − y·x, which neither overflows nor loses its gradient.
    return softplus(logits) - labels * logits
