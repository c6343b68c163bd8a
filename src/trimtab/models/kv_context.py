"""What attention does while sampling: prefill of the prompts, then one token per row and step.

P prompts, R rows (completions being sampled), Hq query and Hkv key heads, D head size, L longest prompt.
All rows of a context are at the same step; rows are sorted by their prompt, so groups are contiguous.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from trimtab.models.attention import ScoreRule, capped_attention


class PrefillContext:
    """Causal attention over right-padded prompts. Padding comes last, so no prompt token ever sees it."""

    def __init__(self) -> None:
        self.keys: dict[int, Tensor] = {}  # layer → [P, Hkv, L, D]
        self.values: dict[int, Tensor] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rule: ScoreRule) -> Tensor:
        """Keep the layer's keys and values; see ``AttentionContext``."""
        self.keys[layer], self.values[layer] = key, value
        length = query.shape[2]
        mask = None
        if rule.window is not None and rule.window < length:
            ones = torch.ones(length, length, dtype=torch.bool, device=query.device)
            mask = ones.tril() & ones.triu(1 - rule.window)
        if rule.softcap is not None:
            return capped_attention(query, key, value, mask, rule, is_causal=mask is None)
        output = F.scaled_dot_product_attention(
            query, key, value, mask, is_causal=mask is None, scale=rule.scaling, enable_gqa=True
        )
        return output.transpose(1, 2).contiguous()


class DecodeContext:
    """One token per row and step: over the prompt's cache, stored once per group, and the row's own.

    Usage: set ``step`` to the number of tokens that every row has behind it, run the module on one token per
    row; call ``keep`` when rows leave.
    """

    def __init__(
        self, prefill: PrefillContext, prompt_lengths: Tensor, row_prompts: Tensor, max_steps: int
    ) -> None:
        """``prompt_lengths [P]``, ``row_prompts [R]`` ascending: which prompt each row continues."""
        self.step = 0
        self._max_steps = max_steps
        self._prompt_keys, self._prompt_values = prefill.keys, prefill.values
        self._prompt_lengths, self._row_prompts = prompt_lengths, row_prompts
        self._keys: dict[int, Tensor] = {}  # layer → [R, Hkv, max_steps, D]
        self._values: dict[int, Tensor] = {}
        self._biases: dict[tuple[int | None, int], Tensor] = {}
        self._arrange()

    @property
    def positions(self) -> Tensor:
        """The position ``[R]`` of each row's next token in its sequence."""
        return self._prompt_lengths[self._row_prompts] + self.step

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but those in ``rows`` (ascending indices), and the prompts that no row continues."""
        for store in (self._keys, self._values):
            for layer, cache in store.items():
                # In place: the rows that stay move up inside the buffer that is there already.
                cache[: len(rows), :, : self.step] = cache[:, :, : self.step].index_select(0, rows)
                store[layer] = cache[: len(rows)]
        prompts, self._row_prompts = torch.unique_consecutive(self._row_prompts[rows], return_inverse=True)
        if len(prompts) < len(self._prompt_lengths):
            self._prompt_lengths = self._prompt_lengths[prompts]
            for store in (self._prompt_keys, self._prompt_values):
                for layer, cache in store.items():
                    store[layer] = cache.index_select(0, prompts)
        self._arrange()

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rule: ScoreRule) -> Tensor:
        """Append one token per row and attend; see ``AttentionContext``."""
        rows, num_heads, _, size = query.shape
        keys, values = self._append(layer, key, value)
        first = 0 if rule.window is None else max(0, self.step + 1 - rule.window)
        own_keys, own_values = keys[:, :, first : self.step + 1], values[:, :, first : self.step + 1]
        queries = query.view(rows, key.shape[1], num_heads // key.shape[1], size)

        own = rule(queries @ own_keys.transpose(2, 3))
        prompt_products = self._by_prompt(queries) @ self._prompt_keys[layer].transpose(2, 3)
        shared = self._by_row(rule(prompt_products) + self._prompt_bias(rule.window), queries)
        weights = torch.softmax(torch.cat((shared, own), dim=-1), dim=-1).to(value.dtype)

        length = shared.shape[-1]
        from_prompt = self._by_prompt(weights[..., :length]) @ self._prompt_values[layer]
        output = self._by_row(from_prompt, queries) + weights[..., length:] @ own_values
        return output.reshape(rows, 1, num_heads, size)

    def _append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        if layer not in self._keys:
            shape = (key.shape[0], key.shape[1], self._max_steps, key.shape[3])
            self._keys[layer] = key.new_empty(shape)
            self._values[layer] = value.new_empty((*shape[:3], value.shape[3]))
        keys, values = self._keys[layer], self._values[layer]
        keys[:, :, self.step], values[:, :, self.step] = key[:, :, 0], value[:, :, 0]
        return keys, values

    def _arrange(self) -> None:
        """Plan how rows are laid out by prompt: ``[P, widest group]``, with gaps where groups differ."""
        counts = torch.bincount(self._row_prompts, minlength=len(self._prompt_lengths))
        self._group_width = int(counts.max()) if len(counts) else 0
        starts = counts.cumsum(0) - counts
        within = torch.arange(len(self._row_prompts), device=counts.device) - starts[self._row_prompts]
        is_even = bool((counts == self._group_width).all())
        self._slots = None if is_even else self._row_prompts * self._group_width + within
        self._biases.clear()

    def _by_prompt(self, x: Tensor) -> Tensor:
        """``[R, Hkv, n, K]`` → ``[P, Hkv, width · n, K]``: one matrix product serves a whole group."""
        prompts, width = len(self._prompt_lengths), self._group_width
        if self._slots is not None:
            x = x.new_zeros(prompts * width, *x.shape[1:]).index_copy_(0, self._slots, x)
        x = x.view(prompts, width, *x.shape[1:]).transpose(1, 2)
        return x.reshape(prompts, x.shape[1], width * x.shape[3], x.shape[4])

    def _by_row(self, x: Tensor, like: Tensor) -> Tensor:
        """The way back: ``[P, Hkv, width · n, K]`` → ``[R, Hkv, n, K]``."""
        prompts, heads, _, size = x.shape
        x = x.view(prompts, heads, self._group_width, like.shape[2], size).transpose(1, 2)
        x = x.reshape(prompts * self._group_width, heads, like.shape[2], size)
        return x if self._slots is None else x.index_select(0, self._slots)

    def _prompt_bias(self, window: int | None) -> Tensor:
        """``[P, 1, 1, L]``: 0 where the prompt's token is seen, −inf on padding and beyond the window."""
        key = (window, self.step if window is not None else 0)
        if key not in self._biases:
            lengths = self._prompt_lengths[:, None]
            layer_keys = next(iter(self._prompt_keys.values()))
            columns = torch.arange(layer_keys.shape[2], device=lengths.device)[None]
            seen = columns < lengths
            if window is not None:
                self._biases = {k: v for k, v in self._biases.items() if k[0] != window}
                seen = seen & (columns > lengths + self.step - window)
            bias = torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, float("-inf"))
            self._biases[key] = bias[:, None, None]
        return self._biases[key]
