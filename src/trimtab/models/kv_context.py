"""What attention does while sampling: prompts once, then one token per row and step.

R rows, P prompt slots, Hq query and Hkv key heads, D head size. Keys and values lie in a ``LayerCache``: the
portable one of ``kv_torch.py``, the compiled one of ``kv_kernel.py`` or the one of ``kv_triton.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from trimtab.models.attention import ScoreRule, capped_attention
from trimtab.models.kv_rows import RowState


class PromptSpans:
    """Prompts one after another: where each lies, and to which slot of the cache it goes."""

    def __init__(self, slots: Sequence[int], lengths: Sequence[int], device: torch.device | str) -> None:
        """Prompt i has ``lengths[i]`` tokens and goes to ``slots[i]``."""
        self.slots, self.lengths = tuple(slots), list(lengths)
        counts = torch.tensor(self.lengths)
        self.ends = torch.nn.functional.pad(counts.cumsum(0), (1, 0)).to(torch.int32).to(device)
        self.token_slots = torch.tensor(self.slots).repeat_interleave(counts).to(device)
        self.positions = torch.cat([torch.arange(length) for length in self.lengths]).to(device)


class LayerCache(Protocol):
    """Keys and values of all layers, for prompts (stored once per group) and for rows."""

    state: RowState

    def write_prompts(self, layer: int, spans: PromptSpans, keys: Tensor, values: Tensor) -> None:
        """Store the keys and values ``[Hkv, T, D]`` of prompts that lie one after another."""
        ...

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rule: ScoreRule) -> Tensor:
        """Append one token per row and attend; see ``AttentionContext``."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Keep only ``rows`` (ascending indices), moved to the front; called before ``state.keep``."""
        ...

    def arrange(self) -> None:
        """Take notice that rows or prompts changed."""
        ...

    def stepped(self) -> None:
        """Take notice that running rows have one token more."""
        ...


class PrefillContext:
    """Causal attention over whole prompts that lie one after another in a single row: no padding anywhere."""

    def __init__(self, cache: LayerCache, spans: PromptSpans) -> None:
        self._cache, self._spans = cache, spans

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rule: ScoreRule) -> Tensor:
        """Keep the layer's keys and values; see ``AttentionContext``. Shapes ``[1, H, T, D]``."""
        spans = self._spans
        self._cache.write_prompts(layer, spans, key[0], value[0])
        is_plain = rule.softcap is None and (rule.window is None or rule.window >= max(spans.lengths))
        if is_plain and query.device.type == "cuda" and query.dtype in (torch.bfloat16, torch.float16):
            q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
            sizes = (spans.ends, spans.ends, max(spans.lengths), max(spans.lengths))
            flash = torch.ops.aten._flash_attention_forward
            return flash(q, k, v, *sizes, 0.0, True, False, scale=rule.scaling)[0][None]
        pieces = (x.split(spans.lengths, dim=2) for x in (query, key, value))
        return torch.cat([_causal(q, k, v, rule) for q, k, v in zip(*pieces, strict=True)], dim=1)


class DecodeContext:
    """One token per row and step: over the prompt's cache, stored once per group, and the row's own."""

    def __init__(self, cache: LayerCache) -> None:
        self.cache = cache

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rule: ScoreRule) -> Tensor:
        """Append one token per row and attend; see ``AttentionContext``."""
        return self.cache.attend(layer, query, key, value, rule)


def _causal(query: Tensor, key: Tensor, value: Tensor, rule: ScoreRule) -> Tensor:
    """One prompt attends to itself; ``[1, L, Hq, D]``."""
    length, mask = query.shape[2], None
    if rule.window is not None and rule.window < length:
        ones = torch.ones(length, length, dtype=torch.bool, device=query.device)
        mask = ones.tril() & ones.triu(1 - rule.window)
    if rule.softcap is not None:
        return capped_attention(query, key, value, mask, rule, is_causal=mask is None)
    output = F.scaled_dot_product_attention(
        query, key, value, mask, is_causal=mask is None, scale=rule.scaling, enable_gqa=True
    )
    return output.transpose(1, 2)
