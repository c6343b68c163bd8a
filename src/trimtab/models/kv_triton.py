"""The key-value cache of the CUDA kernel: one program per row and key head, each with its own lengths.

Imported only on a CUDA device: Triton comes with torch there.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from trimtab.models.attention import ScoreRule, UnsupportedAttentionError
from trimtab.models.kv_rows import RowState
from trimtab.models.kv_torch import TokenRows

_BLOCK = tl.constexpr(64)  # tokens that a program looks at together
_FLOOR = tl.constexpr(
    -1e30
)  # below every score; minus infinity would make NaN of a block in which nothing is seen


class TritonCache:
    """See ``LayerCache``; laid out as ``TokenRows``.

    Nothing depends on numbers that only the host knows, so a decode step can be captured in a CUDA graph.
    """

    def __init__(self, state: RowState) -> None:
        self.state, self._stores = state, TokenRows(state)
        self.write_prompts, self.keep = self._stores.write_prompts, self._stores.keep

    def arrange(self) -> None:
        """Nothing to do: the kernel reads slots and lengths themselves."""

    def stepped(self) -> None:
        """Nothing to do, for the same reason."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rule: ScoreRule) -> Tensor:
        """See ``LayerCache``."""
        rows, heads, _, size = query.shape
        key_heads = key.shape[1]
        group = heads // key_heads
        if size & (size - 1) or size < 16:
            raise UnsupportedAttentionError(
                f"the CUDA kernel takes head sizes that are powers of two, not {size}"
            )
        room = self.state.room
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        output = torch.empty_like(query)
        _attend[(rows, key_heads)](
            (query, key, value, output),
            self._stores.own_of(layer, key, value),
            self._stores.prompts[layer],
            (self.state.slots, self.state.prompt_lengths, self.state.lengths),
            (rule.scaling, rule.softcap or 0.0, rule.window or 0),
            (
                *(key_heads, group, max(16, triton.next_power_of_2(group)), size),
                *(room.own_room, room.prompt_room, rule.softcap is not None),
            ),
        )
        return output.transpose(1, 2)


@triton.jit
def _attend(new, own_store, prompt_store, state, rule, SIZES: tl.constexpr):
    """One row, one key head and the GROUP query heads that share it, padded to QUERIES for tensor cores."""
    KEY_HEADS: tl.constexpr = SIZES[0]
    GROUP: tl.constexpr = SIZES[1]
    QUERIES: tl.constexpr = SIZES[2]
    SIZE: tl.constexpr = SIZES[3]
    OWN_ROOM: tl.constexpr = SIZES[4]
    PROMPT_ROOM: tl.constexpr = SIZES[5]
    HAS_CAP: tl.constexpr = SIZES[6]
    query, key, value, output = new
    own_keys, own_values = own_store
    prompt_keys, prompt_values = prompt_store
    slots, prompt_lengths, own_lengths = state
    scaling, softcap, window = rule
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    slot, own = tl.load(slots + row), tl.load(own_lengths + row)
    prompt = tl.load(prompt_lengths + slot)
    unseen = tl.where(window > 0, prompt + own + 1 - window, 0)
    d, h = tl.arange(0, SIZE), tl.arange(0, QUERIES)
    at = ((row * KEY_HEADS + head) * GROUP + h[:, None]) * SIZE + d[None, :]
    q = tl.load(query + at, mask=h[:, None] < GROUP, other=0.0)

    # The new token comes from registers: what another thread stores now need not be visible yet.
    new_at = (row * KEY_HEADS + head) * SIZE + d
    k, v = tl.load(key + new_at), tl.load(value + new_at)
    own_at = (row * KEY_HEADS + head) * OWN_ROOM
    tl.store(own_keys + (own_at + own) * SIZE + d, k)
    tl.store(own_values + (own_at + own) * SIZE + d, v)
    highest = _score(tl.sum(q.to(tl.float32) * k.to(tl.float32)[None, :], 1), scaling, softcap, HAS_CAP)
    total = tl.full((QUERIES,), 1.0, tl.float32)
    sums = tl.zeros((QUERIES, SIZE), tl.float32) + v.to(tl.float32)[None, :]

    prompt_at = (slot * KEY_HEADS + head) * PROMPT_ROOM
    for part in tl.static_range(2):
        count = prompt if part == 0 else own
        first = unseen if part == 0 else unseen - prompt
        keys = prompt_keys + prompt_at * SIZE if part == 0 else own_keys + own_at * SIZE
        values = prompt_values + prompt_at * SIZE if part == 0 else own_values + own_at * SIZE
        for start in range(0, count, _BLOCK):
            t = start + tl.arange(0, _BLOCK)
            seen = (t < count) & (t >= first)
            ks = tl.load(keys + t[None, :] * SIZE + d[:, None], mask=seen[None, :], other=0.0)
            vs = tl.load(values + t[:, None] * SIZE + d[None, :], mask=seen[:, None], other=0.0)
            x = _score(tl.dot(q, ks, input_precision="ieee"), scaling, softcap, HAS_CAP)
            x = tl.where(seen[None, :], x, _FLOOR)
            top = tl.maximum(highest, tl.max(x, 1))
            weights = tl.where(seen[None, :], tl.exp(x - top[:, None]), 0.0)
            decay = tl.exp(highest - top)
            total = total * decay + tl.sum(weights, 1)
            sums = sums * decay[:, None] + tl.dot(weights.to(vs.dtype), vs, input_precision="ieee")
            highest = top
    tl.store(output + at, (sums / total[:, None]).to(q.dtype), mask=h[:, None] < GROUP)


@triton.jit
def _score(products, scaling, softcap, HAS_CAP: tl.constexpr):
    x = products * scaling
    if HAS_CAP:
        x = (2.0 * tl.sigmoid(2.0 * x / softcap) - 1.0) * softcap  # tanh
    return x
