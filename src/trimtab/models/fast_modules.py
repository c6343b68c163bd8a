"""While sampling, some modules of the model run faster equivalents; their parameters stay where they are.

RMS norms, gated MLPs and rotary positions run in compiled kernels; on a CPU linear maps also have their
weights packed for oneDNN, a copy that lives for one call of the engine, so that it is never stale. A kind of
module is replaced only where its own forward gives the same on a test input.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trimtab.models.elementwise import Elementwise, elementwise_kernels
from trimtab.models.kv_rows import BLOCK

_TOLERANCE = {torch.bfloat16: 0.02, torch.float32: 1e-5}  # relative to the largest number
_ROTARY = "apply_rotary_pos_emb"  # what transformers' models call it
_found_equal: dict[tuple[Any, ...], bool] = {}  # kinds of modules that were tried


@contextmanager
def fast_modules(model: nn.Module, rows: int) -> Iterator[None]:
    """Let ``model`` sample faster inside the block; ``rows`` is the usual batch size."""
    kernels = elementwise_kernels(model)
    if kernels is None:
        yield
        return
    changed: list[nn.Module] = []
    rotary = _patch_rotary(model, kernels)
    try:
        for module in model.modules():
            faster = _replacement(module, kernels, rows)
            if faster is not None:
                module.forward = faster  # type: ignore[method-assign]
                changed.append(module)
        yield
    finally:
        for module in changed:
            del module.forward
        if rotary is not None:
            setattr(*rotary)


def _replacement(module: nn.Module, kernels: Elementwise, rows: int) -> Callable[..., Tensor] | None:
    if type(module) is nn.Linear and "forward" not in vars(module):
        return _packed_linear(module, rows)
    if type(module).__name__.endswith("RMSNorm"):
        return _rms_norm(module, kernels)
    if all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj", "act_fn")):
        return _gated_mlp(module, kernels)
    return None


def _packed_linear(module: nn.Linear, rows: int) -> Callable[[Tensor], Tensor] | None:
    weight = module.weight
    if (
        weight.device.type != "cpu"
        or weight.dtype != torch.bfloat16
        or not torch.backends.mkldnn.is_available()
    ):
        return None
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), rows)
    multiply = torch.ops.mkldnn._linear_pointwise
    bias, width = module.bias, module.out_features

    def forward(x: Tensor) -> Tensor:
        return multiply(x.reshape(-1, x.shape[-1]), packed, bias, "none", [], "").view(*x.shape[:-1], width)

    return forward


def _rms_norm(module: nn.Module, kernels: Elementwise) -> Callable[[Tensor], Tensor] | None:
    weight, eps = getattr(module, "weight", None), getattr(module, "variance_epsilon", None)
    if not isinstance(weight, Tensor) or not isinstance(eps, float) or weight.shape[-1] % BLOCK:
        return None

    def forward(x: Tensor) -> Tensor:
        return kernels.rms_norm(x, weight, eps)

    return forward if _is_equal(module, forward, weight) else None


def _gated_mlp(module: Any, kernels: Elementwise) -> Callable[[Tensor], Tensor] | None:
    if getattr(module.gate_proj, "out_features", 1) % BLOCK:
        return None

    def forward(x: Tensor) -> Tensor:
        return module.down_proj(kernels.silu_multiply(module.gate_proj(x), module.up_proj(x)))

    return forward if _is_equal(module, forward, module.gate_proj.weight) else None


def _is_equal(module: nn.Module, faster: Callable[[Tensor], Tensor], weight: Tensor) -> bool:
    """Whether ``faster`` does what the module does, tried once per kind and shape."""
    if weight.dtype not in _TOLERANCE:
        return False
    key = (type(module), str(getattr(module, "act_fn", "")), weight.shape, weight.dtype, weight.device.type)
    if key not in _found_equal:
        size = weight.shape[-1]
        x = torch.sin(torch.arange(3.0 * size)).view(1, 3, size).to(weight)
        expected = type(module).forward(module, x).float()
        difference = (faster(x).float() - expected).abs().max()
        _found_equal[key] = bool(difference <= _TOLERANCE[weight.dtype] * expected.abs().max())
    return _found_equal[key]


def _patch_rotary(model: Any, kernels: Elementwise) -> tuple[Any, str, Any] | None:
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
        cos, sin = cos.contiguous(), sin.contiguous()
        return kernels.rotate(q, cos, sin), kernels.rotate(k, cos, sin)

    setattr(file, _ROTARY, rotary)
    return file, _ROTARY, original
