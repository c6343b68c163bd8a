"""From rollouts to tensors: rows, masks, rewards; and from a batch to its mini-batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trimtab.types import Completion, RolloutGroup, TrainBatch


@dataclass(frozen=True, slots=True)
class Components:
    """The rewards of a step one by one; K = components."""

    values: Tensor  # [N, K] float32, 0 where absent
    present: Tensor  # [N, K] bool: False where the component does not apply
    weights: Tensor  # [K] float32


@dataclass(frozen=True, slots=True)
class RolloutBatch:
    """The rows of one step with what belongs to whole completions; N = groups × completions."""

    rows: TrainBatch
    rewards: Tensor  # [N] float32, 0 where the reward abstained
    valid: Tensor  # [N] bool: False where the reward abstained
    group_ids: Tensor  # [N] int64
    lengths: Tensor  # [N] int64, tokens of the completion
    truncated: Tensor  # [N] bool: cut at the limit
    completion_mask: Tensor  # [N, T] bool: all completion tokens, also those that are not trained
    penalties: Tensor | None = None  # [N] float32, at least 0: what constraints charge
    components: Components | None = None  # where advantages compare each reward on its own
    closed: Tensor | None = None  # [N] bool: a gate is closed


def pad_rows(rows: Sequence[Sequence[float]], width: int, dtype: torch.dtype, value: float = 0) -> Tensor:
    """Right-pad lists of numbers into ``[len(rows), width]``."""
    out = torch.full((len(rows), width), value, dtype=dtype)
    for index, row in enumerate(rows):
        out[index, : len(row)] = torch.tensor(row, dtype=dtype)
    return out


def make_batch(groups: Sequence[RolloutGroup], pad_id: int, *, mask_truncated: bool = False) -> RolloutBatch:
    """Lay out every completion of ``groups`` as one row: prompt, completion, padding.

    Rows whose reward abstained, and truncated rows under ``mask_truncated``, train no token: they are left
    out of ``rows.completion_mask`` and so of every denominator.
    """
    entries = [(g.prompt_ids, c) for g in groups for c in g.completions]
    width = max(len(prompt) + len(c.token_ids) for prompt, c in entries)
    ids = pad_rows([(*prompt, *c.token_ids) for prompt, c in entries], width, torch.int64, pad_id)
    starts = torch.tensor([len(prompt) for prompt, _ in entries])
    lengths = torch.tensor([len(c.token_ids) for _, c in entries])
    column = torch.arange(width).unsqueeze(0)
    present = column < (starts + lengths).unsqueeze(1)
    completion = present & (column >= starts.unsqueeze(1))
    values = [result.value for g in groups for result in g.rewards]
    valid = torch.tensor([value is not None for value in values])
    truncated = torch.tensor([c.finish_reason != "stop" for _, c in entries])
    trained = valid & ~truncated if mask_truncated else valid
    rows = TrainBatch(
        token_ids=ids,
        attention_mask=present,
        completion_mask=completion & trained.unsqueeze(1),
        advantages=torch.zeros(len(entries), width),
        rollout_logprobs=_aligned([c.logprobs for _, c in entries], starts, width),
        sampling_logprobs=_aligned([_sampling(c) for _, c in entries], starts, width),
    )
    return RolloutBatch(
        rows=rows,
        rewards=torch.tensor([value or 0.0 for value in values]),
        valid=valid,
        group_ids=torch.tensor([index for index, g in enumerate(groups) for _ in g.completions]),
        lengths=lengths,
        truncated=truncated,
        completion_mask=completion,
    )


def _sampling(completion: Completion) -> tuple[float, ...]:
    return completion.sampling_logprobs or completion.logprobs


def _aligned(logprobs: Sequence[Sequence[float]], starts: Tensor, width: int) -> Tensor:
    out = torch.zeros(len(logprobs), width)
    for index, (row, start) in enumerate(zip(logprobs, starts.tolist(), strict=True)):
        out[index, start : start + len(row)] = torch.tensor(row)
    return out


def minibatches(batch: TrainBatch, count: int, generator: torch.Generator) -> Iterator[TrainBatch]:
    """Yield ``count`` mini-batches of shuffled rows; with one, the whole batch as it is."""
    if count == 1:
        yield batch
        return
    order = torch.randperm(len(batch), generator=generator)
    for index in order.tensor_split(min(count, len(batch))):
        yield batch.rows(index)
