"""A padded batch as parts that may run together, and their results put back where they belong.

Most batches are one part, as they are. Otherwise rows are parted where their lengths choose different rotary
frequencies (``length_rule.py``), and padding on the left moves to the right, where no model can see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trimtab.models.length_rule import LengthRule


@dataclass(frozen=True, slots=True)
class RowPart:
    """Some rows of a batch ``[B, T]``, their tokens first, cut to the longest of them."""

    rows: Tensor  # [b, 1]
    columns: Tensor  # [b, t] where in the batch each token stands

    def take(self, values: Tensor) -> Tensor:
        """``values [B, T, ...]`` of this part, ``[b, t, ...]``."""
        return values[self.rows, self.columns]


def row_parts(attention_mask: Tensor, rule: LengthRule | None) -> list[RowPart] | None:
    """The parts of a batch with this mask ``[B, T]``; None where it may run as it is.

    Rows with a hole in their mask are left as they are.
    """
    mask = attention_mask.bool()
    lengths, first = mask.sum(dim=1), mask.int().argmax(dim=1)
    columns = torch.arange(mask.shape[1], device=mask.device)
    is_whole = bool((mask == ((columns >= first[:, None]) & (columns < (first + lengths)[:, None]))).all())
    keys = [rule.key(length) for length in lengths.tolist()] if rule is not None else [()] * len(mask)
    widest = bool((lengths == mask.shape[1]).any())
    is_alike = rule is None or (len(set(keys)) == 1 and (widest or rule.is_base(mask.shape[1])))
    if not is_whole or (is_alike and not bool(first.any())):
        return None
    order = (columns[None] + first[:, None]) % mask.shape[1]
    parts = []
    for key in dict.fromkeys(keys):
        rows = torch.tensor([row for row, own in enumerate(keys) if own == key], device=mask.device)
        width = mask.shape[1] if rule is None else max(1, int(lengths[rows].max()))
        parts.append(RowPart(rows[:, None], order[rows, :width]))
    return parts


def joined(parts: Sequence[RowPart], values: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    """Put what was computed of each part, ``[b, t, H]``, back: ``[B, T, H]``, zeros elsewhere."""
    blank = values[0].new_zeros(*shape, values[0].shape[-1])
    rows = torch.cat([part.rows.expand_as(part.columns).flatten() for part in parts])
    columns = torch.cat([part.columns.flatten() for part in parts])
    return blank.index_put((rows, columns), torch.cat([value.flatten(0, 1) for value in values]))
