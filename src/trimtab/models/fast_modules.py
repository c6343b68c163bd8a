"""Some modules of the model run faster equivalents for a while; their parameters stay where they are.

RMS norms, gated MLPs and rotary positions run in compiled kernels. On a CPU the stream that the layers add to
is fp32 meanwhile, also in a bf16 model, while sampling and while learning; and while sampling linear maps
have their weights packed, a copy that lives for one call of the engine, so that it is never stale.
A kind of module is replaced only where its own forward gives the same on a test input, and a stream is
widened only where the whole model still says the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from trimtab.models.attention_proof import TOLERANCE
from trimtab.models.decode_layer import decode_layer
from trimtab.models.elementwise import CpuElementwise, Elementwise, elementwise_kernels
from trimtab.models.kv_rows import BLOCK
from trimtab.models.packed_linear import packed_gate, packed_linear

_TOLERANCE = {torch.bfloat16: 0.02, torch.float32: 1e-5}  # relative to the largest number
_ROTARY = "apply_rotary_pos_emb"  # what transformers' models call it
_found_equal: dict[tuple[Any, ...], bool] = {}  # kinds of modules that were tried
_found_wide: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()  # models that were tried


@contextmanager
def fast_modules(model: Any, rows: int | None = None) -> Iterator[None]:
    """Let ``model`` run faster inside the block: to sample, with ``rows`` the usual batch size, or to learn.

    A block to learn covers the backward too: activations may be computed again there.
    """
    kernels = elementwise_kernels(model)
    is_wide = kernels is not None and kernels.has_gradients and _takes_wide_stream(model, kernels)
    if kernels is None or (rows is None and not is_wide):
        yield
        return
    with _replaced(model, kernels, rows, is_wide=is_wide):
        yield


@contextmanager
def _replaced(model: Any, kernels: Elementwise, rows: int | None, *, is_wide: bool) -> Iterator[None]:
    changed: list[nn.Module] = []
    faster: Callable[..., Tensor] | None
    has_norms = is_wide or not kernels.has_gradients
    rotary = _patch_rotary(model, kernels) if has_norms else None
    embedding = model.get_input_embeddings() if is_wide else None
    into_stream = _added_to_stream(model) if is_wide else set()
    try:
        for module in model.modules():
            if "forward" in vars(module):
                continue
            if embedding is not None and module is embedding:
                faster = _wide_embedding(module)
            elif type(module) is nn.Linear:
                faster = None if rows is None else packed_linear(module, rows, is_wide=module in into_stream)
            else:
                faster = _replacement(module, kernels, rows, has_norms=has_norms)
            if faster is not None:
                module.forward = faster
                changed.append(module)
        if rows is not None and isinstance(kernels, CpuElementwise):
            for layer in model.modules():  # once its parts are what they will be
                if "forward" not in vars(layer) and (faster := decode_layer(layer, kernels)) is not None:
                    layer.forward = faster
                    changed.append(layer)
        yield
    finally:
        for module in changed:
            del module.forward
        if rotary is not None:
            setattr(*rotary)


def _replacement(
    module: nn.Module, kernels: Elementwise, rows: int | None, *, has_norms: bool
) -> Callable[..., Tensor] | None:
    if type(module).__name__.endswith("RMSNorm"):
        return _rms_norm(module, kernels) if has_norms else None
    if all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj", "act_fn")):
        return _gated_mlp(module, kernels, rows)
    return None


def _added_to_stream(model: Any) -> set[nn.Module]:
    """The linear maps whose results attention and MLPs add to the stream."""
    names = ("o_proj", "down_proj")
    return {module for name in names for parent in model.modules() if (module := getattr(parent, name, None))}


def _wide_embedding(module: nn.Module) -> Callable[..., Tensor]:
    own = module.forward
    if type(module) is not nn.Embedding or module.max_norm is not None or module.scale_grad_by_freq:
        return lambda ids: own(ids).float()
    padding = -1 if module.padding_idx is None else module.padding_idx
    return lambda ids: _WideEmbedding.apply(ids, module.weight, padding)  # type: ignore[no-untyped-call]


class _WideEmbedding(torch.autograd.Function):
    """Embeddings as fp32. Their gradient adds up in fp32 over the tokens that occur; torch's own visits the
    whole vocabulary in the weight's precision, which took 5 % of a training step."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor, padding: int) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.like, ctx.padding = weight, padding
        return weight[ids].float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        ids = ctx.saved_tensors[0].flatten()
        used, place = ids.unique(return_inverse=True)
        sums = torch.zeros(len(used), ctx.like.shape[1], device=ids.device)
        sums.index_add_(0, place, grads[0].flatten(0, -2))
        sums[used == ctx.padding] = 0.0
        total = torch.zeros_like(ctx.like)
        total[used] = sums.to(total.dtype)
        return None, total, None


def _takes_wide_stream(model: Any, kernels: Elementwise) -> bool:
    """Whether the model says the same with its stream in fp32, found out by trying, once."""
    if (known := _found_wide.get(model)) is not None:
        return known
    vocabulary = model.config.get_text_config().vocab_size
    ids = torch.randint(vocabulary, (1, 24), generator=torch.Generator().manual_seed(0)).to(model.device)
    try:
        with torch.no_grad():
            plain = _output(model, ids)
            with _replaced(model, kernels, None, is_wide=True):
                wide = _output(model, ids)
        difference = float((wide - plain).pow(2).mean().sqrt() / plain.std())
        is_same = difference <= TOLERANCE[model.dtype]
    except Exception:  # any failure of an unknown architecture means: leave its stream alone
        is_same = False
    _found_wide[model] = is_same
    return is_same


def _output(model: Any, ids: Tensor) -> Tensor:
    found = model(input_ids=ids, use_cache=False)
    return (found.logits if hasattr(found, "logits") else found.last_hidden_state).float()


def _rms_norm(module: nn.Module, kernels: Elementwise) -> Callable[[Tensor], Tensor] | None:
    weight, eps = getattr(module, "weight", None), getattr(module, "variance_epsilon", None)
    if not isinstance(weight, Tensor) or not isinstance(eps, float) or weight.shape[-1] % BLOCK:
        return None

    def forward(x: Tensor) -> Tensor:
        return kernels.rms_norm(x, weight, eps)

    return forward if _is_equal(module, forward, weight) else None


def _gated_mlp(module: Any, kernels: Elementwise, rows: int | None) -> Callable[[Tensor], Tensor] | None:
    if getattr(module.gate_proj, "out_features", 1) % BLOCK:
        return None
    gated = packed_gate(module.gate_proj, module.up_proj, rows) if rows is not None else None

    def forward(x: Tensor) -> Tensor:
        if gated is not None:
            return module.down_proj(gated(x))
        return module.down_proj(kernels.silu_multiply(module.gate_proj(x), module.up_proj(x)))

    return forward if _is_equal(module, forward, module.gate_proj.weight, gated is not None) else None


def _is_equal(
    module: nn.Module, faster: Callable[[Tensor], Tensor], weight: Tensor, is_packed: bool = False
) -> bool:
    """Whether ``faster`` does what the module does, tried once per kind and shape."""
    if weight.dtype not in _TOLERANCE:
        return False
    kind = (type(module), str(getattr(module, "act_fn", "")), is_packed)
    key = (*kind, weight.shape, weight.dtype, weight.device.type)
    if key not in _found_equal:
        size = weight.shape[-1]
        x = torch.sin(torch.arange(3.0 * size)).view(1, 3, size).to(weight)
        expected = type(module).forward(module, x).float()
        difference = (faster(x).float() - expected).abs().max()
        _found_equal[key] = bool(difference <= _TOLERANCE[weight.dtype] * expected.abs().max())
    return _found_equal[key]


def _patch_rotary(model: Any, kernels: Elementwise) -> tuple[Any, str, Any] | None:
    """Replace the rotary function in the file that defines the model; returns how to put it back."""
    files = (sys.modules[type(module).__module__] for module in model.modules())
    file = next((file for file in files if hasattr(file, _ROTARY)), None)
    if file is None:
        return None
    original = getattr(file, _ROTARY)

    def rotary(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *args: Any, **kwargs: Any) -> Any:
        if not (args or kwargs) and _can_rotate(kernels, q, k, cos, model.dtype):
            cos, sin = cos.contiguous(), sin.contiguous()
            return kernels.rotate(q, cos, sin), kernels.rotate(k, cos, sin)
        turned = original(q, k, cos, sin, *args, **kwargs)
        return tuple(x.to(q.dtype) for x in turned)

    setattr(file, _ROTARY, rotary)
    return file, _ROTARY, original


def _can_rotate(kernels: Elementwise, q: Tensor, k: Tensor, cos: Tensor, dtype: torch.dtype) -> bool:
    batch, _, tokens, size = q.shape
    is_plain = cos.dim() == 3 and cos.shape[1:] == (tokens, size) and cos.shape[0] in (1, batch)
    if not (is_plain and q.dtype == k.dtype == dtype and size % (2 * BLOCK) == 0):
        return False
    return kernels.has_gradients or (tokens == 1 and cos.shape[0] == batch and cos.dtype == dtype)
