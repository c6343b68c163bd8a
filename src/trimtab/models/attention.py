"""The attention seam: one function that transformers calls for every layer, to learn and to sample.

``attn_implementation="trimtab"`` makes a transformers module call ``trimtab_attention``. What it does is said
by the keyword argument ``attention_context`` of the module's forward:

- none: full sequences with the mask given, with gradients. Same as sdpa, but exact for soft-capped scores;
- ``PrefillContext``: causal over right-padded prompts, keeping every layer's keys and values;
- ``DecodeContext``: one new token per row, attending to the group's shared prompt and to the row's own past.

So the module that learns is the module that samples: no second model definition, no copy of the weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

NAME = "trimtab"
CONTEXT = "attention_context"  # keyword argument of the module's forward

# Keyword arguments that do not change what attention computes. Anything else that is set is refused.
_HARMLESS = frozenset(
    {
        *("position_ids", "use_cache", "cache_position", "return_dict", "is_causal", "num_items_in_batch"),
        *("output_attentions", "output_hidden_states", "output_router_logits"),
    }
)


class UnsupportedAttentionError(Exception):
    """This architecture asks something of attention that the contexts cannot do; the engine falls back."""


@dataclass(frozen=True, slots=True)
class ScoreRule:
    """How scores are made from products: scaled, soft-capped (Gemma 2), limited to a window (Mistral)."""

    scaling: float
    softcap: float | None = None
    window: int | None = None  # a token sees itself and the window − 1 tokens before it

    def __call__(self, products: Tensor) -> Tensor:
        """Scores in fp32 from products of queries and keys of any shape."""
        scores = products.float() * self.scaling
        return scores if self.softcap is None else torch.tanh(scores / self.softcap) * self.softcap


class AttentionContext(Protocol):
    """What the sampling engine passes through the forward to every layer."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rule: ScoreRule) -> Tensor:
        """``query [B, Hq, T, D]``, ``key``, ``value [B, Hkv, T, D]`` of new tokens → ``[B, T, Hq, D]``."""
        ...


def trimtab_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    sliding_window: int | None = None,
    attention_context: AttentionContext | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The function registered with transformers. Shapes as in ``AttentionContext.attend``."""
    rule = ScoreRule(query.shape[-1] ** -0.5 if scaling is None else scaling, softcap, sliding_window)
    if attention_context is None:
        return _full_attention(
            module, (query, key, value), attention_mask, rule, dropout=dropout, **kwargs
        ), None
    odd = [name for name, value in kwargs.items() if value is not None and name not in _HARMLESS]
    if odd:
        raise UnsupportedAttentionError(f"attention is called with {', '.join(sorted(odd))}")
    layer = getattr(module, "layer_idx", None)
    if layer is None or not getattr(module, "is_causal", True):
        raise UnsupportedAttentionError("attention layers are not numbered or not causal")
    return attention_context.attend(layer, query, key, value, rule), None


def _full_attention(
    module: nn.Module,
    inputs: tuple[Tensor, Tensor, Tensor],
    attention_mask: Tensor | None,
    rule: ScoreRule,
    **options: Any,
) -> Tensor:
    if rule.softcap is not None:
        # sdpa has no soft cap and would leave it out silently.
        is_causal = attention_mask is None and inputs[0].shape[2] > 1 and getattr(module, "is_causal", True)
        return capped_attention(*inputs, attention_mask, rule, is_causal)
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    output, _ = sdpa_attention_forward(module, *inputs, attention_mask, scaling=rule.scaling, **options)
    return output


def capped_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, rule: ScoreRule, is_causal: bool
) -> Tensor:
    """Attention with the soft cap, in fp32 scores; differentiable. Returns ``[B, T, Hq, D]``."""
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    scores = rule(query @ key.transpose(2, 3))
    if is_causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        # A finite floor: rows that see nothing (left padding) give a mean instead of NaN.
        floor = torch.finfo(scores.dtype).min
        scores = scores.masked_fill(~mask, floor) if mask.dtype == torch.bool else scores + mask
    weights = torch.softmax(scores, dim=-1).to(value.dtype)
    return (weights @ value).transpose(1, 2).contiguous()


def context_inputs(token_ids: Tensor, positions: Tensor, context: AttentionContext) -> dict[str, Any]:
    """Arguments of a module's forward in which ``context`` says what every layer attends to.

    ``token_ids`` and ``positions`` ``[B, T]``; no cache of transformers' own.
    """
    # A mask of four dimensions goes through transformers untouched; the context knows what is seen.
    no_mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=token_ids.device)
    return {
        "input_ids": token_ids,
        "attention_mask": no_mask,
        "position_ids": positions,
        "use_cache": False,
        CONTEXT: context,
    }


def register() -> None:
    """Make ``attn_implementation="trimtab"`` known to transformers; calling it again changes nothing."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(NAME, trimtab_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def supports_attention(model: Any) -> bool:
    """Whether the architecture takes an attention function from outside.

    Whether ours is right in it is another question: ``attention_proof.py``.
    """
    return bool(getattr(model, "_supports_attention_backend", False))


@contextmanager
def using_attention(model: Any, name: str = NAME) -> Iterator[None]:
    """Let ``model`` use another attention implementation for a while."""
    register()
    before = model.config._attn_implementation
    if before == name:
        yield
        return
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
