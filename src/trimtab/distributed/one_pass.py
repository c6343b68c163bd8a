"""Gradients of a token-level objective in one pass through the head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from trimtab.distributed.interfaces import Objective, Scores
from trimtab.functional.head import one_pass_head
from trimtab.models.packing import PackPlan
from trimtab.types import TrainBatch


def one_pass_backward(
    state: tuple[Tensor, Tensor],
    plan: PackPlan,
    micro: TrainBatch,
    objective: Objective,
    temperature: float,
    with_entropy: bool,
) -> Mapping[str, Tensor]:
    """Accumulate the gradients of ``objective`` over a packed micro-batch; return its metric shares.

    ``state`` is the hidden states ``[N, H]`` at the plan's sources, with their graph, and the head's weight
    ``[V, H]``. The objective sees the trained tokens of one block as a batch of one row: every original
    token, also where rows were merged, so what it counts and sums is as if nothing had been.
    """
    hidden, weight = state
    order = plan.spread.argsort(stable=True)
    ends = [0, *torch.bincount(plan.spread, minlength=len(plan.sources)).cumsum(0).tolist()]
    flat = flat_tokens(micro, plan.trained)
    total: dict[str, Tensor] = {}

    def derivatives(
        rows: slice, logprobs: Tensor, entropy: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        tokens = order[ends[rows.start] : ends[rows.stop]]
        where = plan.spread[tokens] - rows.start
        leaves = [logprobs.requires_grad_()] + ([] if entropy is None else [entropy.requires_grad_()])
        with torch.enable_grad():
            seen = [leaf[where][None] for leaf in leaves]
            scores = Scores(logprobs=seen[0], entropy=None if entropy is None else seen[1])
            loss, shares = objective(scores, columns(flat, tokens))
            grads = torch.autograd.grad(loss, leaves, allow_unused=True)
        merge_shares(total, shares)
        return grads[0], grads[1] if entropy is not None else None

    grad_hidden, grad_weight = one_pass_head(
        hidden.detach(), weight, plan.targets, derivatives, temperature, with_entropy
    )
    # The weight is a root of its own: its gradient meets that of tied embeddings, and hooks run once.
    roots = [(hidden, grad_hidden), (weight, grad_weight)]
    pairs = [(root, grad) for root, grad in roots if root.requires_grad and grad is not None]
    torch.autograd.backward([root for root, _ in pairs], [grad for _, grad in pairs])
    return total


def flat_tokens(batch: TrainBatch, trained: Tensor) -> TrainBatch:
    """The M trained tokens of ``batch``, row by row, as one row ``[1, M]``."""
    return _each(batch, lambda x: x[trained][None])


def columns(row: TrainBatch, tokens: Tensor) -> TrainBatch:
    """The ``tokens [n]`` of a batch of one row, ``[1, n]``."""
    return _each(row, lambda x: x[:, tokens])


def _each(batch: TrainBatch, change: Callable[[Tensor], Tensor]) -> TrainBatch:
    found: dict[str, Any] = {
        name: None if (x := getattr(batch, name)) is None else change(x) for name in batch.__slots__
    }
    return TrainBatch(**found)


def merge_shares(total: dict[str, Tensor], shares: Mapping[str, Tensor]) -> None:
    """Add metric shares, in fp64 on the device; names that end in ``_max`` keep the largest."""
    for name, share in shares.items():
        value = torch.as_tensor(share).detach().double()
        if name not in total:
            total[name] = value
        elif name.endswith("_max"):
            total[name] = torch.maximum(total[name], value)
        else:
            total[name] = total[name] + value
