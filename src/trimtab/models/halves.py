"""fp32 numbers in two halves of 16 bits: a bf16 parameter, which shows them rounded, and what it cuts off."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trimtab.errors import CheckpointError


def join(rounded: Tensor, rest: Tensor) -> Tensor:
    """The fp32 numbers whose upper half, rounded to nearest, is ``rounded`` (bf16), and ``rest`` (int16)."""
    return rounded.view(torch.int16).int().bitwise_left_shift_(16).add_(rest).view(torch.float32)


def part(master: Tensor, rounded: Tensor, rest: Tensor) -> None:
    """Write ``master`` (fp32, overwritten) as ``rounded`` (bf16) and ``rest`` (int16)."""
    rounded.copy_(master)
    bits = master.view(torch.int32)
    bits -= rounded.view(torch.int16).int().bitwise_left_shift_(16)
    # Halfway, rounded down to even: 32768 more, one too many for 16 bits, so it is rounded up instead.
    rounded.view(torch.int16).add_(bits > 32767)
    rest.copy_(bits)  # wraps around to -32768 there


def take(state: Mapping[str, Tensor], key: str, shape: torch.Size) -> Tensor:
    """The tensor of a saved state.

    Raises:
        CheckpointError: it is missing or has another shape.
    """
    if key not in state or state[key].shape != shape:
        raise CheckpointError(f"the saved state lacks {key} of shape {list(shape)}: another model's")
    return state[key]
