"""Advantages of whole completions, from the rewards of their groups: first a baseline, then a scale.

Everything is ``[N]``: one entry per completion. ``valid`` is False where the reward abstained: such a row
is left out of every mean and deviation and its advantage is 0 (trap 3). Deviations are unbiased. Computed
in fp64, returned in fp32. Names follow the formulas, not other frameworks: see trap 14 in
``docs/algorithms/grpo.md``.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from trimtab.errors import AdvantageError
from trimtab.functional.checks import check_choice, check_same_shape

Baseline = Literal["group_mean", "leave_one_out", "batch_mean", "none"]
Scale = Literal["group_std", "batch_std", "none"]


def advantages_from_groups(
    rewards: Tensor, valid: Tensor, group_ids: Tensor, baseline: str, scale: str, eps: float = 1e-6
) -> Tensor:
    """Advantage of each completion: ``estimate_advantages``, then ``scale_advantages``.

    Shapes: ``rewards [N]``, ``valid [N]`` bool, ``group_ids [N]`` integers in any order → ``[N]`` fp32.
    ``group_mean`` with ``group_std`` is GRPO (Shao et al. 2024), ``group_mean`` with ``none`` Dr. GRPO (Liu
    et al. 2025), ``leave_one_out`` with ``none`` RLOO (Ahmadian et al. 2024), ``batch_mean`` with
    ``batch_std`` REINFORCE++ (Hu 2025).

    Raises:
        AdvantageError: a group with exactly one valid reward under ``leave_one_out`` or ``group_std``, a
        batch
            with exactly one under ``batch_std``, or a valid reward that is not finite.
    """
    raw = estimate_advantages(rewards, valid, group_ids, baseline)
    return scale_advantages(raw, valid, group_ids, scale, eps)


def estimate_advantages(rewards: Tensor, valid: Tensor, group_ids: Tensor, baseline: str) -> Tensor:
    """Reward minus baseline, ``[N]``; 0 where abstained; exactly 0 where all compared rewards are equal.

    In fp32, or in fp64 where the rewards are.

    Raises ``AdvantageError`` as ``advantages_from_groups`` does.
    """
    check_choice("estimate_advantages", "baseline", baseline, Baseline)
    kind = torch.promote_types(rewards.dtype, torch.float32)
    rewards, valid = _checked(rewards, valid, group_ids)
    if baseline == "none":
        return rewards.to(kind)
    if baseline == "batch_mean":
        group_ids = torch.zeros_like(group_ids)
    index, count, mean = _group_means(rewards, valid, group_ids)
    centred = torch.where(valid, rewards - mean[index], 0.0)
    if baseline == "leave_one_out":
        _refuse_lone(count, group_ids, index, "baseline 'leave_one_out'")
        # r − mean of the others = (r − mean of all) · n / (n − 1)
        centred = centred * (count / (count - 1).clamp(min=1))[index]
    # The mean of equal numbers can be an ulp off them; dividing by a tiny std would make that ulp count.
    return torch.where(_is_flat(rewards, valid, index, len(count))[index], 0.0, centred).to(kind)


def scale_advantages(
    advantages: Tensor, valid: Tensor, group_ids: Tensor, scale: str, eps: float = 1e-6
) -> Tensor:
    """Divide by (unbiased std + eps) of the group's or the batch's valid advantages, ``[N]``, as precise.

    Equal advantages have no scale: they become exactly 0. Raises ``AdvantageError`` where one value stands
    alone.
    """
    check_choice("scale_advantages", "scale", scale, Scale)
    kind = torch.promote_types(advantages.dtype, torch.float32)
    wide, valid = _checked(advantages, valid, group_ids)
    if scale == "none":
        return wide.to(kind)
    over = group_ids if scale == "group_std" else torch.zeros_like(group_ids)
    index, count, mean = _group_means(wide, valid, over)
    _refuse_lone(count, over, index, f"scale '{scale}'", is_batch=scale == "batch_std")
    squares = torch.where(valid, (wide - mean[index]).square(), 0.0)
    variance = torch.zeros_like(mean).index_add(0, index, squares) / (count - 1).clamp(min=1)
    scaled = wide / (variance.sqrt() + eps)[index]
    return torch.where(_is_flat(wide, valid, index, len(count))[index], 0.0, scaled).to(kind)


def rows_with_variance(rewards: Tensor, valid: Tensor, group_ids: Tensor) -> Tensor:
    """Which rows ``[N]`` bool belong to a group whose valid rewards differ: dynamic sampling keeps those."""
    wide, valid = _checked(rewards, valid, group_ids)
    index, count, _ = _group_means(wide, valid, group_ids)
    return ~_is_flat(wide, valid, index, len(count))[index]


def num_zero_variance_groups(rewards: Tensor, valid: Tensor, group_ids: Tensor) -> int:
    """How many groups have valid rewards that are all equal (a single one counts; none at all does not)."""
    wide, valid = _checked(rewards, valid, group_ids)
    index, count, _ = _group_means(wide, valid, group_ids)
    return int((_is_flat(wide, valid, index, len(count)) & (count > 0)).sum())


def without_lone_rewards(valid: Tensor, group_ids: Tensor) -> Tensor:
    """Return ``valid`` with the last valid row of a larger group set to False too, when all others abstained.

    One reward cannot be compared with itself: call this first where graders may fail, so that such a group
    teaches nothing instead of stopping the run. A group of one row stays as it is: that is a wrong recipe.
    """
    valid = valid.bool()
    index = torch.unique(group_ids, return_inverse=True)[1]
    size = torch.bincount(index)
    count = torch.zeros_like(size).index_add(0, index, valid.to(size.dtype))
    return valid & ~((count == 1) & (size > 1))[index]


def _checked(values: Tensor, valid: Tensor, group_ids: Tensor) -> tuple[Tensor, Tensor]:
    """fp64 values with zeros where abstained, and ``valid`` as bool."""
    check_same_shape("advantages", rewards=values, valid=valid, group_ids=group_ids)
    if values.dim() != 1:
        raise ValueError(
            f"advantages: rewards has shape {list(values.shape)}; give one value per completion [N]"
        )
    valid = valid.bool()
    wide = torch.where(valid, values.detach().double(), 0.0)
    if not bool(torch.isfinite(wide).all()):
        row = int((~torch.isfinite(wide)).nonzero()[0])
        raise AdvantageError(
            f"the reward of completion {row} is {float(wide[row])}; "
            "return a finite number, or None to abstain"
        )
    return wide, valid


def _group_means(values: Tensor, valid: Tensor, group_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Index of each row's group in 0..G−1, and each group's number and mean of valid values, ``[G]``."""
    groups, index = torch.unique(group_ids, return_inverse=True)
    zeros = torch.zeros(len(groups), dtype=values.dtype, device=values.device)
    count = zeros.index_add(0, index, valid.to(values.dtype))
    mean = zeros.index_add(0, index, torch.where(valid, values, 0.0)) / count.clamp(min=1)
    return index, count, mean


def _is_flat(values: Tensor, valid: Tensor, index: Tensor, num_groups: int) -> Tensor:
    """Which groups ``[G]`` have no two different valid values (also those with fewer than two)."""
    highest = values.new_full((num_groups,), -torch.inf).scatter_reduce(
        0, index, torch.where(valid, values, -torch.inf), "amax"
    )
    lowest = values.new_full((num_groups,), torch.inf).scatter_reduce(
        0, index, torch.where(valid, values, torch.inf), "amin"
    )
    return highest <= lowest


def _refuse_lone(
    count: Tensor, group_ids: Tensor, index: Tensor, what: str, *, is_batch: bool = False
) -> None:
    lone = (count == 1).nonzero()
    if len(lone) == 0:
        return
    row = int((index == lone[0]).nonzero()[0])
    where = "the batch" if is_batch else f"group {int(group_ids[row])}"
    raise AdvantageError(
        f"{where} has one valid reward, and {what} needs at least two to compare; raise num_generations, or "
        "leave abstained groups out"
    )
