"""Linear maps over a packed copy of their weight, for the few rows of a decode step on a CPU.

``kernels/linear.c``, oneDNN's own packing or plain torch: whichever measures fastest (``choice``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ctypes import CDLL, c_int64, c_void_p
from functools import cache, partial
from itertools import cycle
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.models.choice import choose
from trimtab.models.kernels.build import load_kernel
from trimtab.models.kv_rows import BLOCK, whole_blocks
from trimtab.models.trials import OWN, PACKED, TORCH, Budget, Way

_TOLERANCE = 0.01  # of the kernel's test, relative to the largest number: bf16 rounds by 0.004
_COLD = 2**25  # bytes of weights that are more than a core keeps near; wider maps are tried on a part
_MOST_ROWS = 256  # of a trial

Linear = Callable[[Tensor], Tensor]
Pack = Callable[[Tensor], Tensor]
Multiply = Callable[[Tensor, Tensor | None, Tensor], Tensor]


def packed_linear(module: nn.Linear, rows: int, *, is_wide: bool = False) -> Linear | None:
    """The map of ``module`` for inputs of about ``rows`` rows, or None where packing is of no use.

    With ``is_wide`` the result, rounded as ever, may come as fp32: it is added faster to an fp32 stream.
    The weight is copied when the map is first used; the copy lives as long as the returned function, and does
    not follow the module's.
    """
    weight, bias = module.weight, module.bias
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16:
        return None
    if bias is not None and bias.dtype != weight.dtype:
        return None
    way = linear_way(weight, rows)
    if way == TORCH:
        return None
    pack, multiply = _pair(way, rows, is_wide)
    packed: Tensor | None = None

    def forward(x: Tensor) -> Tensor:
        nonlocal packed
        if packed is None:
            packed = pack(weight.detach())
        output = multiply(packed, bias, x.reshape(-1, x.shape[-1]))
        return output.view(*x.shape[:-1], module.out_features)

    return forward


def packed_gate(gate: nn.Module, up: nn.Module, rows: int) -> Linear | None:
    """``silu(gate(x)) · up(x)`` in one pass over ``x``, or None where the kernel cannot.

    The weights are copied as in ``packed_linear``.
    """
    library = _kernel()
    if library is None or not (_is_plain(gate) and _is_plain(up)) or gate.weight.shape != up.weight.shape:
        return None
    if linear_way(gate.weight, rows) != OWN:
        return None
    width, packed = len(gate.weight), list[Tensor]()

    def forward(x: Tensor) -> Tensor:
        if not packed:
            packed.extend(_pack(library, module.weight.detach()) for module in (gate, up))
        rows = x.reshape(-1, x.shape[-1]).to(packed[0].dtype).contiguous()
        output = rows.new_empty(*x.shape[:-1], width)
        pointers = (tensor.data_ptr() for tensor in (rows, *packed, output))
        library.gated_linear(*pointers, *rows.shape, width)
        return output

    return forward


def linear_way(weight: Tensor, rows: int, budget: Budget | None = None) -> str:
    """How maps of this bf16 weight's shape are computed for about ``rows`` rows; see ``choice``."""
    rows = min(rows, _MOST_ROWS)
    bucket = whole_blocks(rows) if rows <= 4 * BLOCK else 1 << (rows - 1).bit_length()
    among = [OWN] if _kernel() is not None and _fits(weight) else []
    among += [PACKED] if has_onednn() else []
    width, size = weight.shape
    ways = partial(_ways, tuple(among), bucket, size, width)
    return choose(f"linear {bucket}x{size}x{width} bf16", ways, (*among, TORCH), budget)


def has_onednn() -> bool:
    """Whether oneDNN multiplies bf16 here: some processors, and ``PACKED_MAX_CPU_ISA``, leave it out."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@torch.no_grad()
def _ways(among: tuple[str, ...], rows: int, size: int, width: int) -> dict[str, Way]:
    """One map of this shape, in every way that gives a row the same in every batch.

    Several weights take turns, since those of a model are not in the processor's cache when they are needed.
    Packing one is what a way prepares for every generation: weights change from step to step.
    """
    width = max(BLOCK, min(width, _COLD // (2 * size) // BLOCK * BLOCK)) if width > BLOCK else width
    count = max(1, min(8, _COLD // (2 * size * width)))
    weight = _numbers(size * width).view(width, size)
    x = _numbers(rows * size).view(rows, size)
    ways: dict[str, Way] = {}
    for way in (*among, TORCH):
        pack, multiply = _pair(way, rows, False)
        packed = [pack(weight.clone()) for _ in range(count)]
        if not ways or _keeps_rows(partial(multiply, packed[0], None), x):
            prepare = None if way == TORCH else partial(pack, weight)
            ways[way] = Way(partial(_next, multiply, cycle(packed), x), prepare)
    return ways


def _numbers(count: int) -> Tensor:
    """As many bf16 numbers; those of a large tensor repeat, which costs less than drawing them."""
    some = torch.sin(torch.arange(1.0, min(count, 65537) + 1)).to(torch.bfloat16)
    return some.repeat(-(-count // len(some)))[:count]


@torch.no_grad()
def _next(multiply: Multiply, packed: Iterator[Tensor], x: Tensor) -> None:
    multiply(next(packed), None, x)


@torch.no_grad()
def _keeps_rows(multiply: Linear, x: Tensor) -> bool:
    """Whether a row comes out the same, bit for bit, whatever stands beside it; also in a prompt's batch."""
    whole = multiply(torch.cat((x, x.flip(0), x, x, x)))
    counts = {1, 2, 7, len(x) // 2 + 1, len(x)}
    is_kept = torch.equal(whole[: len(x)], whole[-len(x) :])
    return is_kept and all(torch.equal(multiply(x[:count]), whole[:count]) for count in counts)


def _pair(way: str, rows: int, is_wide: bool) -> tuple[Pack, Multiply]:
    """How a weight is packed, and how it is multiplied."""
    if way == OWN:
        library = _kernel()
        assert library is not None
        return partial(_pack, library), partial(_linear, library, is_wide)
    if way == PACKED:
        return partial(_onednn_pack, rows), _onednn_linear
    return lambda weight: weight, lambda weight, bias, x: F.linear(x, weight, bias)


def _is_plain(module: nn.Module) -> TypeGuard[nn.Linear]:
    """A linear map without bias that the kernel can take, and that nothing wraps or listens to."""
    if type(module) is not nn.Linear or module.bias is not None or "forward" in vars(module):
        return False
    weight, is_heard = module.weight, bool(module._forward_hooks or module._forward_pre_hooks)
    return weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and _fits(weight) and not is_heard


def _fits(weight: Tensor) -> bool:
    width, size = weight.shape
    return width % BLOCK == 0 and size % 2 == 0


def _pack(library: CDLL, weight: Tensor) -> Tensor:
    """The panels of a weight ``[width, size]``; see ``kernels/linear.c``."""
    weight = weight.contiguous()
    packed = torch.empty_like(weight)
    library.pack(weight.data_ptr(), packed.data_ptr(), *weight.shape)
    return packed


def _linear(library: CDLL, is_wide: bool, packed: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """``x [rows, size]`` → ``[rows, width]``."""
    x = x.to(packed.dtype).contiguous()
    output = torch.empty(len(x), len(packed), dtype=torch.float32 if is_wide else packed.dtype)
    added = None if bias is None else bias.data_ptr()
    library.linear(x.data_ptr(), packed.data_ptr(), added, output.data_ptr(), *x.shape, len(packed), is_wide)
    return output


def _onednn_pack(rows: int, weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight, rows)


def _onednn_linear(packed: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    x, rows = x.to(packed.dtype), len(x)
    if rows % BLOCK:  # whole tiles: few shapes to build primitives for, and a row does not see the edge
        x = F.pad(x, (0, 0, 0, -rows % BLOCK))
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")[:rows]


@cache
def _kernel() -> CDLL | None:
    """The compiled kernel, where there is one and it multiplies rightly."""
    library = load_kernel("linear", {"IS_BF16": 1})
    if library is None:
        return None
    for name, pointers, numbers in (("pack", 2, 2), ("linear", 4, 4), ("gated_linear", 4, 3)):
        getattr(library, name).argtypes = [c_void_p] * pointers + [c_int64] * numbers
    x, weight, bias = (
        torch.sin(torch.arange(1.0, count + 1)).to(torch.bfloat16).view(shape)
        for count, shape in ((15 * 34, (15, 34)), (48 * 34, (48, 34)), (48, (48,)))
    )
    expected = F.linear(x.float(), weight.float(), bias.float())
    found = _linear(library, False, _pack(library, weight), bias, x).float()
    is_right = (found - expected).abs().max() <= _TOLERANCE * expected.abs().max()
    return library if bool(is_right) else None
