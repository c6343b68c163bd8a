"""The small steps between matrix products, compiled for the CPU: one pass each instead of three to seven.

Norms read the stream that the layers add to in fp32, whatever the model's precision: this costs little and
takes most of the rounding out of a bf16 gradient (that of SmolLM2: cosine with fp32 0.9984 → 0.9996).
``elementwise_triton.py`` has the steps for a CUDA device, for sampling only and in the model's precision.
"""

from __future__ import annotations

from ctypes import CDLL, c_float, c_int64, c_void_p
from typing import Any, Protocol

import torch
from torch import Tensor

from trimtab.models.kernels.build import load_kernel

_NORM_BLOCK = 64  # rows whose weight gradient one thread adds up
_ARGUMENTS: dict[str, tuple[int, list[Any]]] = {  # of the kernels: tensors, then numbers
    "rms_norm": (4, [c_int64, c_int64, c_float]),
    "rms_norm_backward": (6, [c_int64] * 3),
    "silu_multiply": (3, [c_int64]),
    "silu_multiply_backward": (5, [c_int64]),
    "rotate": (4, [c_int64] * 4),
}


class Elementwise(Protocol):
    """Norm, gate and rotary positions. Sizes are multiples of 16 (rotary: of 32)."""

    has_gradients: bool  # the steps carry gradients, and a norm reads fp32

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """``x [..., H]`` over its root mean square, times ``weight [H]``, in the weight's precision."""
        ...

    def silu_multiply(self, gate: Tensor, up: Tensor) -> Tensor:
        """``silu(gate) · up``; without gradients it may be written over ``gate``."""
        ...

    def rotate(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """``x [B, heads, T, D]`` turned by ``cosine``, ``sine [B, T, D]``; without gradients ``x`` may be
        written over."""
        ...


class CpuElementwise:
    """See ``Elementwise``; ``x`` of a norm is fp32."""

    has_gradients = True

    def __init__(self, library: CDLL) -> None:
        self.library = library
        self._last_angles: tuple[Tensor, Tensor, tuple[int, int, int], list[Tensor]] | None = None

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """See ``Elementwise``."""
        x = x.float().contiguous()
        if torch.is_grad_enabled():
            return _Norm.apply(x, weight, eps, self.library)  # type: ignore[no-untyped-call]
        return _norm(x, weight, eps, self.library)[0]

    def silu_multiply(self, gate: Tensor, up: Tensor) -> Tensor:
        """See ``Elementwise``."""
        if torch.is_grad_enabled():
            return _Gate.apply(gate.contiguous(), up.contiguous(), self.library)  # type: ignore[no-untyped-call]
        _run(self.library.silu_multiply, (gate, up, gate), gate.numel())
        return gate

    def rotate(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """See ``Elementwise``."""
        batch, heads, tokens, size = x.shape
        rows = x.transpose(1, 2).reshape(batch * tokens, heads, size)  # how a projection leaves them: a view
        angles = self._angles(cosine, sine, (batch, tokens, size))
        if torch.is_grad_enabled():
            rows = _Rotate.apply(rows, *angles, self.library)  # type: ignore[no-untyped-call]
        else:
            _rotate(rows, rows, angles, self.library, is_backward=False)
        return rows.view(batch, tokens, heads, size).transpose(1, 2)

    def _angles(self, cosine: Tensor, sine: Tensor, shape: tuple[int, int, int]) -> list[Tensor]:
        """Both as fp32 ``[B · T, D]``; every layer asks for the same ones."""
        kept = self._last_angles
        if kept is None or kept[0] is not cosine or kept[1] is not sine or kept[2] != shape:
            wide = [x.expand(shape).float().contiguous().view(-1, shape[-1]) for x in (cosine, sine)]
            self._last_angles = kept = (cosine, sine, shape, wide)
        return kept[3]


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, library: CDLL) -> Tensor:
        output, scales = _norm(x, weight, eps, library)
        ctx.save_for_backward(x, weight, scales)
        ctx.library = library
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scales = ctx.saved_tensors
        size = weight.shape[0]
        rows = x.numel() // size
        dinput = torch.empty_like(x)
        parts = x.new_empty(-(-rows // _NORM_BLOCK), size)
        tensors = (x, weight, scales, grads[0].contiguous(), dinput, parts)
        _run(ctx.library.rms_norm_backward, tensors, rows, size, _NORM_BLOCK)
        return dinput, parts.sum(dim=0).to(weight.dtype), None, None


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, library: CDLL) -> Tensor:
        output = torch.empty_like(gate)
        _run(library.silu_multiply, (gate, up, output), gate.numel())
        ctx.save_for_backward(gate, up)
        ctx.library = library
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        gate, up = ctx.saved_tensors
        dgate, dup = torch.empty_like(gate), torch.empty_like(up)
        tensors = (gate, up, grads[0].contiguous(), dgate, dup)
        _run(ctx.library.silu_multiply_backward, tensors, gate.numel())
        return dgate, dup, None


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor, library: CDLL) -> Tensor:
        x, output = x.contiguous(), torch.empty(x.shape, dtype=x.dtype)
        _rotate(x, output, [cosine, sine], library, is_backward=False)
        ctx.save_for_backward(cosine, sine)
        ctx.library = library
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad = grads[0].contiguous()
        dinput = torch.empty_like(grad)
        _rotate(grad, dinput, list(ctx.saved_tensors), ctx.library, is_backward=True)
        return dinput, None, None, None


def _norm(x: Tensor, weight: Tensor, eps: float, library: CDLL) -> tuple[Tensor, Tensor]:
    size = weight.shape[0]
    output = torch.empty(x.shape, dtype=weight.dtype)
    scales = x.new_empty(x.numel() // size)
    _run(library.rms_norm, (x, weight, output, scales), len(scales), size, eps)
    return output, scales


def _rotate(x: Tensor, output: Tensor, angles: list[Tensor], library: CDLL, *, is_backward: bool) -> None:
    _run(library.rotate, (x, output, *angles), *x.shape, int(is_backward))


def _run(function: Any, tensors: tuple[Tensor, ...], *numbers: float) -> None:
    function(*[x.data_ptr() for x in tensors], *numbers)


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
    if library is None:
        return None
    for name, (pointers, numbers) in _ARGUMENTS.items():
        getattr(library, name).argtypes = [c_void_p] * pointers + numbers
    return CpuElementwise(library)
