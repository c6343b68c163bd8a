"""What a completion is worth behind a closed gate, once everything else has been added (R24)."""

from __future__ import annotations

import torch
from torch import Tensor

from trimtab.functional.checks import check_same_shape


def worth_behind_gates(rewards: Tensor, closed: Tensor, valid: Tensor, group_ids: Tensor) -> Tensor:
    """Give every closed completion the least reward of its group, ``[N]``, the type of ``rewards``.

    The least of all valid completions of the group, closed ones with what they would have earned included:
    so a closed gate is never worth more than an open one, nor than the same answer with its gates open, and
    closed ones are worth the same: where a whole group is closed nothing is preferred. No number is made
    that was not there, so the spread of the rewards does not grow. Rows that abstained keep their number.

    Shapes: all ``[N]``; ``closed`` and ``valid`` bool. Give one group for all where the batch is compared.

    Example:
        >>> forbidden = torch.tensor([False, False, False, True])
        >>> one = torch.zeros(4, dtype=torch.int64)
        >>> worth_behind_gates(torch.tensor([-1.0, -0.4, 0.3, 2.0]), forbidden, torch.ones(4) > 0, one)
        tensor([-1.0000, -0.4000,  0.3000, -1.0000])
    """
    check_same_shape("worth_behind_gates", rewards=rewards, closed=closed, valid=valid, group_ids=group_ids)
    groups, index = torch.unique(group_ids, return_inverse=True)
    kept = torch.where(valid.bool(), rewards, torch.inf)
    least = rewards.new_full((len(groups),), torch.inf).scatter_reduce(0, index, kept, "amin")
    return torch.where(closed.bool() & valid.bool(), least[index], rewards)


def components_behind_gates(
    components: Tensor,
    present: Tensor,
    weights: Tensor,
    closed: Tensor,
    valid: Tensor,
    group_ids: Tensor,
) -> tuple[Tensor, Tensor]:
    """The same for rewards that are compared one by one: ``components`` and ``present``, ``[N, K]`` each.

    Behind a closed gate every component that applies to anyone in the group applies, with the value that is
    worth least there (the highest where its weight is negative), and is worth 0 at most. So whatever
    baseline, scale and weights follow, no component speaks for a closed completion against an open one.
    """
    check_same_shape("components_behind_gates", components=components, present=present)
    columns, applies = [], []
    for column, there, weight in zip(components.T, present.T, weights.tolist(), strict=True):
        sign = -1.0 if weight < 0 else 1.0
        compared = there.bool() & valid.bool()
        worth = torch.where(compared, sign * column, torch.inf)
        least = worth_behind_gates(worth, closed, valid, group_ids)
        is_set = closed.bool() & valid.bool() & torch.isfinite(least)
        columns.append(torch.where(is_set, sign * least.clamp(max=0.0), column))
        applies.append(there.bool() | is_set)
    return torch.stack(columns, dim=1), torch.stack(applies, dim=1)
