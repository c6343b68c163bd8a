"""The portable key-value cache: plain torch, any device, any head size."""

from __future__ import annotations

import torch
from torch import Tensor

from trimtab.models.attention import ScoreRule
from trimtab.models.kv_context import PromptSpans
from trimtab.models.kv_rows import RowState


class TokenRows:
    """Keys and values of all layers, token after token: ``own[layer] [R, Hkv, own_room, D]`` for rows,
    ``prompts[layer] [P, Hkv, prompt_room, D]`` for prompts, a pair each."""

    def __init__(self, state: RowState) -> None:
        self.state = state
        self.prompts: dict[int, tuple[Tensor, Tensor]] = {}
        self.own: dict[int, tuple[Tensor, Tensor]] = {}

    def write_prompts(self, layer: int, spans: PromptSpans, keys: Tensor, values: Tensor) -> None:
        """See ``LayerCache``."""
        if layer not in self.prompts:
            room = self.state.room
            self.prompts[layer] = _room_for((room.prompts, room.prompt_room), keys, values)
        for store, new in zip(self.prompts[layer], (keys, values), strict=True):
            store.transpose(1, 2)[spans.token_slots, spans.positions] = new.transpose(0, 1)

    def own_of(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The rows' stores of a layer, made when it first asks with its new ``key``, ``value``
        ``[R, Hkv, 1, D]``."""
        if layer not in self.own:
            room = self.state.room
            self.own[layer] = _room_for((room.rows, room.own_room), key[0], value[0])
        return self.own[layer]

    def keep(self, rows: Tensor) -> None:
        """See ``LayerCache``. In place: the rows that stay move up inside the buffers that are there."""
        used = int(self.state.lengths.max()) if self.state.num_rows else 0
        for stores in self.own.values():
            for store in stores:
                store[: len(rows), :, :used] = store[:, :, :used].index_select(0, rows)


def _room_for(sizes: tuple[int, int], keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Stores of ``sizes`` (sequences, tokens) for ``[Hkv, .., D]``. Zeros: what lies in the gaps is weighed
    with 0, and must be finite for that."""
    count, tokens = sizes
    return (
        keys.new_zeros(count, keys.shape[0], tokens, keys.shape[2]),
        values.new_zeros(count, values.shape[0], tokens, values.shape[2]),
    )


class TorchCache:
    """See ``LayerCache``. Keys and values ``[R, Hkv, own_room, D]`` for rows, ``[P, Hkv, prompt_room, D]``
    for prompts. A group's rows are laid side by side, so that one matrix product serves the whole group."""

    def __init__(self, state: RowState) -> None:
        self.state, self._stores = state, TokenRows(state)
        self.write_prompts, self.keep = self._stores.write_prompts, self._stores.keep
        self._biases: dict[tuple[str, int | None], Tensor] = {}
        self._layout: tuple[int, Tensor] | None = None
        self._longest = 0

    def arrange(self) -> None:
        """See ``LayerCache``."""
        self._layout = None
        self.stepped()

    def stepped(self) -> None:
        """See ``LayerCache``."""
        self._biases.clear()
        self._longest = 0

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rule: ScoreRule) -> Tensor:
        """See ``LayerCache``."""
        rows, num_heads, _, size = query.shape
        own_keys, own_values = self._append(layer, key, value)
        prompt_keys, prompt_values = self._stores.prompts[layer]
        width, places = self._by_group()
        queries = query.view(rows, key.shape[1], num_heads // key.shape[1], size)

        own = rule(queries @ own_keys.transpose(2, 3)) + self._bias("own", rule.window)
        products = self._to_groups(queries, width, places) @ prompt_keys.transpose(2, 3)
        shared = rule(self._to_rows(products, width, places, queries)) + self._bias("prompt", rule.window)
        weights = torch.softmax(torch.cat((shared, own), dim=-1), dim=-1).to(value.dtype)

        length = shared.shape[-1]
        grouped = self._to_groups(weights[..., :length], width, places) @ prompt_values
        output = self._to_rows(grouped, width, places, queries) + weights[..., length:] @ own_values
        return output.reshape(rows, 1, num_heads, size)

    def _append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        state = self.state
        keys, values = (store[: len(key)] for store in self._stores.own_of(layer, key, value))
        rows = torch.arange(len(key), device=key.device)
        keys[rows, :, state.lengths], values[rows, :, state.lengths] = key[:, :, 0], value[:, :, 0]
        self._longest = self._longest or int(state.lengths.max()) + 1
        return keys[:, :, : self._longest], values[:, :, : self._longest]

    def _by_group(self) -> tuple[int, Tensor]:
        """The widest group, and for each row its place ``[R]`` among ``P · width``."""
        if self._layout is None:
            slots = self.state.slots
            order = slots.argsort(stable=True)
            counts = torch.bincount(slots, minlength=self.state.room.prompts)
            starts = counts.cumsum(0) - counts
            rank = torch.empty_like(slots)
            rank[order] = torch.arange(len(slots), device=slots.device) - starts[slots[order]]
            width = int(counts.max())
            self._layout = (width, slots * width + rank)
        return self._layout

    def _to_groups(self, x: Tensor, width: int, places: Tensor) -> Tensor:
        """``[R, Hkv, n, K]`` → ``[P, Hkv, width · n, K]``."""
        prompts = self.state.room.prompts
        grouped = x.new_zeros(prompts * width, *x.shape[1:]).index_copy_(0, places, x)
        grouped = grouped.view(prompts, width, *x.shape[1:]).transpose(1, 2)
        return grouped.reshape(prompts, x.shape[1], width * x.shape[2], x.shape[3])

    def _to_rows(self, x: Tensor, width: int, places: Tensor, like: Tensor) -> Tensor:
        """The way back: ``[P, Hkv, width · n, K]`` → ``[R, Hkv, n, K]``."""
        prompts, heads, _, size = x.shape
        x = x.view(prompts, heads, width, like.shape[2], size).transpose(1, 2)
        return x.reshape(prompts * width, heads, like.shape[2], size).index_select(0, places)

    def _bias(self, part: str, window: int | None) -> Tensor:
        """``[R, 1, 1, K]``: 0 where a row's next token sees, −inf on what is empty or beyond the window."""
        if (part, window) not in self._biases:
            state = self.state
            prompt = state.prompt_lengths[state.slots][:, None]
            own = state.lengths[:, None]
            width = self._longest if part == "own" else state.room.prompt_room
            column = torch.arange(width, device=own.device)[None]
            seen = column <= own if part == "own" else column < prompt
            if window is not None:
                position = column + prompt if part == "own" else column
                seen = seen & (position > prompt + own - window)
            bias = torch.zeros(seen.shape, device=own.device).masked_fill_(~seen, float("-inf"))
            self._biases[part, window] = bias[:, None, None]
        return self._biases[part, window]
