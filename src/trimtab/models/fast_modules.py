"""While sampling, some modules of the model run faster equivalents; their parameters stay where they are.

On a CPU: linear maps with weights packed for oneDNN (a copy that lives for one call of the engine, so it is
never stale), RMS norms, gated MLPs and rotary positions in compiled kernels. A module is replaced only where
its own forward gives the same on a random input.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import CDLL, c_float, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor, nn

from trimtab.models.kernels.build import load_kernel
from trimtab.models.kv_rows import BLOCK

_TOLERANCE = {torch.bfloat16: 0.02, torch.float32: 1e-5}  # relative to the largest number
_ROTARY = "apply_rotary_pos_emb"  # what transformers' models call it


@contextmanager
def fast_modules(model: nn.Module, rows: int) -> Iterator[None]:
    """Let ``model`` sample faster inside the block; ``rows`` is the usual batch size."""
    library = elementwise_kernels(model)
    if library is None:
        yield
        return
    changed: list[nn.Module] = []
    rotary = _patch_rotary(model, library)
    try:
        for module in model.modules():
            faster = _replacement(module, library, rows)
            if faster is not None:
                module.forward = faster  # type: ignore[method-assign]
                changed.append(module)
        yield
    finally:
        for module in changed:
            del module.forward
        if rotary is not None:
            setattr(*rotary)


def elementwise_kernels(model: Any) -> CDLL | None:
    """The compiled kernels for the model's precision; None on other devices or without a compiler."""
    if model.device.type != "cpu" or model.dtype not in _TOLERANCE:
        return None
    return load_kernel("elementwise", {"IS_BF16": int(model.dtype == torch.bfloat16)})


def _replacement(module: nn.Module, library: CDLL, rows: int) -> Callable[..., Tensor] | None:
    if type(module) is nn.Linear and "forward" not in vars(module):
        return _packed_linear(module, rows)
    if type(module).__name__.endswith("RMSNorm"):
        return _rms_norm(module, library)
    if all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj", "act_fn")):
        return _gated_mlp(module, library)
    return None


def _packed_linear(module: nn.Linear, rows: int) -> Callable[[Tensor], Tensor] | None:
    if module.weight.dtype != torch.bfloat16 or not torch.backends.mkldnn.is_available():
        return None
    packed = torch.ops.mkldnn._reorder_linear_weight(module.weight.detach(), rows)
    multiply = torch.ops.mkldnn._linear_pointwise
    bias, width = module.bias, module.out_features

    def forward(x: Tensor) -> Tensor:
        return multiply(x.reshape(-1, x.shape[-1]), packed, bias, "none", [], "").view(*x.shape[:-1], width)

    return forward


def _rms_norm(module: nn.Module, library: CDLL) -> Callable[[Tensor], Tensor] | None:
    weight, eps = getattr(module, "weight", None), getattr(module, "variance_epsilon", None)
    if not isinstance(weight, Tensor) or not isinstance(eps, float) or weight.shape[-1] % BLOCK:
        return None
    size, dtype = weight.shape[-1], weight.dtype
    address, number = c_void_p(weight.data_ptr()), (c_int64(size), c_float(eps))

    def forward(x: Tensor) -> Tensor:
        x = x.contiguous()
        output = torch.empty_like(x)
        count = c_int64(x.numel() // size)
        library.rms_norm(c_void_p(x.data_ptr()), address, c_void_p(output.data_ptr()), count, *number)
        return output

    return forward if _is_equal(module, forward, size, dtype) else None


def _gated_mlp(module: Any, library: CDLL) -> Callable[[Tensor], Tensor] | None:
    if module.gate_proj.out_features % BLOCK:
        return None

    def forward(x: Tensor) -> Tensor:
        gate, up = module.gate_proj(x), module.up_proj(x)
        pointers = (c_void_p(t.data_ptr()) for t in (gate, up, gate))
        library.silu_multiply(*pointers, c_int64(gate.numel()))
        return module.down_proj(gate)

    return (
        forward
        if _is_equal(module, forward, module.gate_proj.in_features, module.gate_proj.weight.dtype)
        else None
    )


def _is_equal(module: nn.Module, faster: Callable[[Tensor], Tensor], size: int, dtype: torch.dtype) -> bool:
    if dtype not in _TOLERANCE:
        return False
    x = torch.sin(torch.arange(3.0 * size)).view(1, 3, size).to(dtype)
    expected = type(module).forward(module, x).float()
    difference = (faster(x).float() - expected).abs().max()
    return bool(difference <= _TOLERANCE[dtype] * expected.abs().max())


def _patch_rotary(model: Any, library: CDLL) -> tuple[Any, str, Any] | None:
    """Replace the rotary function in the file that defines the model; returns how to put it back."""
    file = sys.modules[type(model).__module__]
    original = getattr(file, _ROTARY, None)
    if original is None:
        return None

    def rotary(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *args: Any, **kwargs: Any) -> Any:
        is_step = q.shape[2] == 1 and cos.dim() == 3 and cos.shape[::2] == (q.shape[0], q.shape[3])
        same = q.dtype == k.dtype == cos.dtype == sin.dtype == model.dtype
        if args or kwargs or not (is_step and same and q.shape[3] % (2 * BLOCK) == 0):
            return original(q, k, cos, sin, *args, **kwargs)
        cos, sin, turned = cos.contiguous(), sin.contiguous(), []
        for x in (q, k):
            x = x.clone(memory_format=torch.contiguous_format)
            pointers = (c_void_p(t.data_ptr()) for t in (x, cos, sin))
            library.rotate(*pointers, *(c_int64(n) for n in (x.shape[0], x.shape[1], x.shape[3])))
            turned.append(x)
        return tuple(turned)

    setattr(file, _ROTARY, rotary)
    return file, _ROTARY, original
