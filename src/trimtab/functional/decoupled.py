"""Advantages that compare each reward on its own before they are added (GDPO)."""

from __future__ import annotations

import torch
from torch import Tensor

from trimtab.functional.advantages import (
    advantages_from_groups,
    scale_advantages,
    without_lone_rewards,
)
from trimtab.functional.checks import check_same_shape


def decoupled_advantages(
    components: Tensor,
    present: Tensor,
    weights: Tensor,
    valid: Tensor,
    group_ids: Tensor,
    form: tuple[str, str, float] = ("group_mean", "group_std", 1e-6),
) -> Tensor:
    """Σ_k w_k · A_k, divided by its deviation over the batch, ``[N]`` fp32 (GDPO, arXiv 2601.05242).

    A_k is ``advantages_from_groups`` of component k alone: ``form`` is its (baseline, scale, eps). Adding
    first and comparing then, as GRPO does, lets two different mixtures of the same sum look alike, and the
    component with the widest spread drown the others.

    Shapes: ``components [N, K]``, ``present [N, K]`` bool (False where a component does not apply: it is
    left out of that component's mean and contributes 0), ``weights [K]``, ``valid [N]`` bool, ``group_ids
    [N]``. Every A_k has mean 0 over the batch, so the paper's batch mean is 0 as well and nothing is
    subtracted: rows whose components are all equal within their group stay exactly 0.

    With one component of positive weight the result is ``advantages_from_groups`` of it, divided by its
    deviation over the batch: one positive number for all rows.

    Raises:
        AdvantageError: as ``advantages_from_groups``.
        ValueError: shapes do not fit.

    Example:
        >>> one = torch.tensor([[1.0], [0.0]])
        >>> two = torch.tensor([True, True])
        >>> decoupled_advantages(one, two[:, None], torch.ones(1), two, torch.zeros(2, dtype=torch.int64))
        tensor([ 0.7071, -0.7071])
    """
    check_same_shape("decoupled_advantages", components=components, present=present)
    if components.dim() != 2 or weights.shape != components.shape[1:]:
        raise ValueError(
            f"decoupled_advantages: components has shape {list(components.shape)} and weights "
            f"{list(weights.shape)}; give [N, K] and [K]"
        )
    baseline, scale, eps = form
    valid = without_lone_rewards(valid, group_ids)
    total = torch.zeros(components.shape[0], dtype=torch.float64, device=components.device)
    for column, applies, weight in zip(components.T, present.T, weights.tolist(), strict=True):
        compared = without_lone_rewards(valid & applies.bool(), group_ids)
        total += weight * advantages_from_groups(column, compared, group_ids, baseline, scale, eps).double()
    return scale_advantages(total, valid, group_ids, "batch_std", eps)
