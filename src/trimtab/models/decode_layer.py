"""A decode step through one layer without the layer's own Python, which was a seventh of the step's time.

Only for layers of Llama's shape (two norms, plain projections, a gated MLP), and only where the layer itself
does the same on a test input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from trimtab.models.attention import CONTEXT, AttentionContext, ScoreRule
from trimtab.models.elementwise import CpuElementwise
from trimtab.models.kv_context import DecodeContext
from trimtab.models.kv_rows import BLOCK

_CHILDREN = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
_PROJECTIONS = {"q_proj", "k_proj", "v_proj", "o_proj"}
_TOLERANCE = 0.02  # relative to the largest number: what bf16 rounds in a layer
_rules: WeakKeyDictionary[nn.Module, ScoreRule | None] = WeakKeyDictionary()  # None: leave the layer alone


def decode_layer(layer: Any, kernels: CpuElementwise) -> Callable[..., Tensor] | None:
    """A forward for ``layer``, faster in decode steps and its own elsewhere, or None where there is none.

    The layer's parts have been replaced by their faster forwards already. Which rule its attention follows is
    asked of the layer itself.
    """
    if not _has_known_parts(layer):
        return None
    if layer not in _rules:
        _rules[layer] = _tried(layer, kernels)
    rule = _rules[layer]
    if rule is None:
        return None
    own, step = layer.forward, _step_of(layer, kernels, rule)

    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        context = kwargs.get(CONTEXT)
        if isinstance(context, DecodeContext) and not args:
            return step(hidden_states, kwargs["position_embeddings"], context)
        return own(hidden_states, *args, **kwargs)

    return forward


def _has_known_parts(layer: Any) -> bool:
    if {name for name, _ in layer.named_children()} != _CHILDREN:
        return False
    attention = layer.self_attn
    if {name for name, _ in attention.named_children()} != _PROJECTIONS:
        return False
    size = getattr(attention, "head_dim", None)
    if not isinstance(size, int) or size % (2 * BLOCK):  # what the rotary kernel takes
        return False
    return not any(module._forward_hooks or module._forward_pre_hooks for module in layer.modules())


def _step_of(
    layer: Any, kernels: CpuElementwise, rule: ScoreRule
) -> Callable[[Tensor, tuple[Tensor, Tensor], AttentionContext], Tensor]:
    """One token per row: ``hidden [R, 1, H]`` → ``[R, 1, H]``."""
    attention, index, size = layer.self_attn, layer.self_attn.layer_idx, layer.self_attn.head_dim
    first, second = layer.input_layernorm.forward, layer.post_attention_layernorm.forward
    query, key, value = (getattr(attention, name).forward for name in ("q_proj", "k_proj", "v_proj"))
    output, mlp = attention.o_proj.forward, layer.mlp.forward

    def step(hidden: Tensor, angles: tuple[Tensor, Tensor], context: AttentionContext) -> Tensor:
        rows = len(hidden)
        x = first(hidden)
        # With one token per row, [R, 1, heads · D] and [R, heads, 1, D] are the same memory.
        q, k, v = (project(x).view(rows, -1, 1, size) for project in (query, key, value))
        q, k = kernels.rotate(q, *angles), kernels.rotate(k, *angles)
        seen = context.attend(index, q, k, v, rule)
        hidden = hidden + output(seen.reshape(rows, 1, -1))
        return hidden + mlp(second(hidden))

    return step


class _Probe:
    """Attention that lets every input show in its result, and remembers how it was called."""

    rule: ScoreRule | None = None
    dtype: torch.dtype | None = None

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rule: ScoreRule) -> Tensor:
        """See ``AttentionContext``."""
        self.rule, self.dtype = rule, query.dtype
        groups = query.shape[1] // key.shape[1]
        mixed = 0.5 * query + (key - 2.0 * value).repeat_interleave(groups, dim=1) + 0.01 * layer
        return mixed.to(query.dtype).transpose(1, 2)


@torch.no_grad()
def _tried(layer: Any, kernels: CpuElementwise) -> ScoreRule | None:
    """The rule of the layer's attention where ``_step_of`` does what the layer does, else None."""
    weight, size = layer.input_layernorm.weight, layer.self_attn.head_dim
    hidden = torch.sin(torch.arange(3.0 * len(weight))).view(3, 1, -1)
    turns = torch.arange(3.0 * size).view(3, 1, size) % (size // 2)
    angles = (turns.cos().to(weight.dtype), turns.sin().to(weight.dtype))
    probe = _Probe()
    try:
        expected = layer.forward(hidden, position_embeddings=angles, attention_mask=None, **{CONTEXT: probe})
        if probe.rule is None or probe.dtype != weight.dtype:  # the rotary kernel knows one precision
            return None
        found = _step_of(layer, kernels, probe.rule)(hidden, angles, probe)
    except Exception:  # any failure of an unknown architecture means: leave its layers alone
        return None
    change = (expected - hidden).abs().max()
    return probe.rule if bool((found - expected).abs().max() <= _TOLERANCE * change) else None
