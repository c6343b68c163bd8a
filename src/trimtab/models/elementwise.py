"""The small steps between matrix products, compiled for the CPU: one pass each instead of three to seven.

They round where transformers rounds. ``elementwise_triton.py`` has the same for a CUDA device.
"""

from __future__ import annotations

from ctypes import CDLL, c_float, c_int64, c_void_p
from typing import Any, Protocol

import torch
from torch import Tensor

from trimtab.models.kernels.build import load_kernel


class Elementwise(Protocol):
    """Norm, gate and rotary positions. Sizes are multiples of 16 (rotary: of 32)."""

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """``x [..., H]`` over its root mean square, times ``weight [H]``."""
        ...

    def silu_multiply(self, gate: Tensor, up: Tensor) -> Tensor:
        """``silu(gate) · up``, written over ``gate``."""
        ...

    def rotate(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """``x [R, heads, 1, D]`` turned by ``cosine``, ``sine [R, 1, D]``: a new tensor, or ``x`` written
        over."""
        ...


class CpuElementwise:
    """See ``Elementwise``."""

    def __init__(self, library: CDLL) -> None:
        self._library = library

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """See ``Elementwise``."""
        x, size = x.contiguous(), weight.shape[0]
        output = torch.empty_like(x)
        self._library.rms_norm(
            *_pointers(x, weight, output), c_int64(x.numel() // size), c_int64(size), c_float(eps)
        )
        return output

    def silu_multiply(self, gate: Tensor, up: Tensor) -> Tensor:
        """See ``Elementwise``."""
        self._library.silu_multiply(*_pointers(gate, up, gate), c_int64(gate.numel()))
        return gate

    def rotate(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """See ``Elementwise``."""
        x = x.contiguous()
        sizes = (c_int64(n) for n in (x.shape[0], x.shape[1], x.shape[3]))
        self._library.rotate(*_pointers(x, cosine, sine), *sizes)
        return x


def _pointers(*tensors: Tensor) -> tuple[c_void_p, ...]:
    return tuple(c_void_p(x.data_ptr()) for x in tensors)


def elementwise_kernels(model: Any) -> Elementwise | None:
    """The compiled steps for the model's device and precision, or None where there are none."""
    if model.dtype not in (torch.bfloat16, torch.float32):
        return None
    if model.device.type == "cuda":
        from trimtab.models.elementwise_triton import TritonElementwise

        return TritonElementwise()
    if model.device.type != "cpu":
        return None
    library = load_kernel("elementwise", {"IS_BF16": int(model.dtype == torch.bfloat16)})
    return None if library is None else CpuElementwise(library)
