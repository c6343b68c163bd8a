"""The small steps between matrix products as Triton kernels; see ``elementwise.py``. CUDA only."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_GATED = 1024  # numbers per program


class TritonElementwise:
    """See ``Elementwise``; for one token per row, without gradients."""

    has_gradients = False

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """See ``Elementwise``."""
        x, size = x.contiguous(), weight.shape[0]
        output = torch.empty_like(x)
        _rms_norm[(x.numel() // size,)](x, weight, output, eps, size, triton.next_power_of_2(size))
        return output

    def silu_multiply(self, gate: Tensor, up: Tensor) -> Tensor:
        """See ``Elementwise``."""
        count = gate.numel()
        _silu_multiply[(triton.cdiv(count, _GATED),)](gate, up, count, _GATED)
        return gate

    def rotate(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """See ``Elementwise``."""
        x = x.contiguous()
        rows, heads, _, size = x.shape
        _rotate[(rows * heads,)](x, cosine, sine, heads, size // 2, triton.next_power_of_2(size // 2))
        return x


@triton.jit
def _rms_norm(x, weight, output, eps, size, WIDTH: tl.constexpr):
    row, d = tl.program_id(0).to(tl.int64), tl.arange(0, WIDTH)
    inside = d < size
    values = tl.load(x + row * size + d, mask=inside, other=0.0).to(tl.float32)
    scale = 1.0 / tl.sqrt_rn(tl.sum(values * values) / size + eps)
    w = tl.load(weight + d, mask=inside, other=0.0)
    normed = (values * scale).to(w.dtype).to(tl.float32)  # rounded before the weight, as transformers does
    tl.store(output + row * size + d, (normed * w.to(tl.float32)).to(w.dtype), mask=inside)


@triton.jit
def _silu_multiply(gate, up, count, WIDTH: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * WIDTH + tl.arange(0, WIDTH)
    inside = at < count
    g, u = tl.load(gate + at, mask=inside), tl.load(up + at, mask=inside)
    wide = g.to(tl.float32)
    gated = (wide * tl.sigmoid(wide)).to(g.dtype).to(tl.float32)
    tl.store(gate + at, (gated * u.to(tl.float32)).to(g.dtype), mask=inside)


@triton.jit
def _rotate(x, cosine, sine, heads, half, WIDTH: tl.constexpr):
    unit, d = tl.program_id(0).to(tl.int64), tl.arange(0, WIDTH)
    inside, at = d < half, unit * 2 * half
    angle = unit // heads * 2 * half
    low = tl.load(x + at + d, mask=inside, other=0.0)
    high = tl.load(x + at + half + d, mask=inside, other=0.0)
    first = _turn(low, high, cosine + angle + d, sine + angle + d, -1.0, inside)
    second = _turn(high, low, cosine + angle + half + d, sine + angle + half + d, 1.0, inside)
    tl.store(x + at + d, first, mask=inside)
    tl.store(x + at + half + d, second, mask=inside)


@triton.jit
def _turn(one, other, cosine, sine, sign, inside):
    """``one · cos + sign · other · sin``, rounded after each product."""
    c = tl.load(cosine, mask=inside, other=0.0).to(tl.float32)
    s = tl.load(sine, mask=inside, other=0.0).to(tl.float32)
    a = (one.to(tl.float32) * c).to(one.dtype).to(tl.float32)
    b = (other.to(tl.float32) * s * sign).to(one.dtype).to(tl.float32)
    return (a + b).to(one.dtype)
