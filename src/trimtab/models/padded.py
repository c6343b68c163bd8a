"""Token rows as padded batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def padded(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Right-pad token rows: ids ``[B, T]`` int64 and mask ``[B, T]`` bool, True on tokens."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.int64)
    mask = torch.zeros((len(rows), width), dtype=torch.bool)
    for line, row in enumerate(rows):
        ids[line, : len(row)] = torch.tensor(row, dtype=torch.int64)
        mask[line, : len(row)] = True
    return ids, mask


def longest_first(
    rows: Sequence[Sequence[int]], batch_size: int, pad_id: int
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Yield batches as (row numbers, ids, mask), the longest rows first so that little is padded.

    An empty row becomes one padding token that counts as a token.
    """
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        yield batch, *padded([list(rows[index]) or [pad_id] for index in batch], pad_id)
