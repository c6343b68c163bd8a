"""The key-value cache of the compiled CPU kernel (``kernels/decode.c``): about five times as fast as torch's
matrix products, which are made for larger ones than a single query."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any

import torch
from torch import Tensor

from trimtab.models.attention import ScoreRule, UnsupportedAttentionError
from trimtab.models.kernels.build import load_kernel
from trimtab.models.kv_context import PromptSpans
from trimtab.models.kv_rows import BLOCK, RowState

_AT_ONCE = 4  # as in decode.c
_LARGE_PAGE, _WANT_LARGE = 2 * 2**20, 14  # Linux: MADV_HUGEPAGE
_POINTERS = (
    *("query", "key", "value", "output", "own_keys", "own_values", "prompt_keys", "prompt_values"),
    *("slots", "prompt_lengths", "own_lengths", "scratch"),
)
_NUMBERS = ("rows", "key_heads", "own_room", "prompt_room", "scratch_room", "window", "threads")


class _Step(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, ctypes.c_int64) for name in _NUMBERS),
        *((name, ctypes.c_float) for name in ("scaling", "softcap")),
    )


def kernel_for(dtype: torch.dtype, head_size: int, group: int) -> ctypes.CDLL | None:
    """The compiled kernel for a precision, a head size and a number of query heads per key head, or None."""
    if dtype not in (torch.bfloat16, torch.float32) or head_size % BLOCK or head_size > 256:
        return None
    is_bf16 = int(dtype == torch.bfloat16)
    return load_kernel("decode", {"IS_BF16": is_bf16, "HEAD_SIZE": head_size, "GROUP": group})


class KernelCache:
    """See ``LayerCache``. Rows ``[R, Hkv, own_room, D]``, prompts ``[P, Hkv, prompt_room, D]``; keys in
    blocks ``[.., room / 16, D, 16]``. Every row has its own length, so nothing is masked or padded."""

    def __init__(self, state: RowState) -> None:
        self.state = state
        self._prompts: dict[int, tuple[Tensor, Tensor]] = {}
        self._own: dict[int, tuple[Tensor, Tensor]] = {}
        self._steps: dict[int, tuple[Any, _Step]] = {}
        room = state.room.prompt_room + state.room.own_room + 2 * BLOCK
        self._scratch_room = room
        self._use_threads(torch.get_num_threads())
        self._row_prompt_lengths = state.prompt_lengths[state.slots]

    def _use_threads(self, count: int) -> None:
        """Room for ``count`` threads; no call uses more of them than the scratch that it is given has."""
        self._threads = count
        self._scratch = torch.empty(count * _AT_ONCE * self._scratch_room)
        self._steps.clear()

    def write_prompts(self, layer: int, spans: PromptSpans, keys: Tensor, values: Tensor) -> None:
        """See ``LayerCache``."""
        heads, _, size = keys.shape
        if layer not in self._prompts:
            shape = (self.state.room.prompts, heads, self.state.room.prompt_room, size)
            self._prompts[layer] = (keys.new_zeros(shape), values.new_zeros(shape))
        store_keys, store_values = self._prompts[layer]
        pieces = zip(keys.split(spans.lengths, dim=1), values.split(spans.lengths, dim=1), strict=True)
        for slot, (some_keys, some_values) in zip(spans.slots, pieces, strict=True):
            length = some_keys.shape[1]
            store_values[slot, :, :length] = some_values
            padded = torch.nn.functional.pad(some_keys, (0, 0, 0, -length % BLOCK))
            blocks = padded.view(heads, -1, BLOCK, size).transpose(2, 3)
            store_keys[slot].view(heads, -1, size, BLOCK)[:, : blocks.shape[1]] = blocks

    def keep(self, rows: Tensor) -> None:
        """See ``LayerCache``."""
        used = -(-int(self.state.lengths.max()) // BLOCK) * BLOCK if self.state.num_rows else 0
        for stores in self._own.values():
            for store in stores:
                store[: len(rows), :, :used] = store[:, :, :used].index_select(0, rows)
        self._steps.clear()

    def arrange(self) -> None:
        """See ``LayerCache``."""
        self._row_prompt_lengths = self.state.prompt_lengths[self.state.slots]
        self._steps.clear()

    def stepped(self) -> None:
        """Nothing to do: the kernel reads the lengths themselves."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rule: ScoreRule) -> Tensor:
        """See ``LayerCache``."""
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        if torch.get_num_threads() != self._threads:  # torch.set_num_threads was called since
            self._use_threads(torch.get_num_threads())
        function, step = self._steps.get(layer) or self._plan(layer, query, key, rule)
        output = torch.empty_like(query)
        step.query, step.key, step.value = query.data_ptr(), key.data_ptr(), value.data_ptr()
        step.output = output.data_ptr()
        function(ctypes.byref(step))
        return output.transpose(1, 2)

    def _plan(self, layer: int, query: Tensor, key: Tensor, rule: ScoreRule) -> tuple[Any, _Step]:
        """Everything about a layer's call that stays the same from step to step."""
        rows, heads, _, size = query.shape
        library = kernel_for(query.dtype, size, heads // key.shape[1])
        if library is None:
            raise UnsupportedAttentionError(f"no compiled kernel for head size {size} in {query.dtype}")
        state = self.state
        if layer not in self._own:
            shape = (state.room.rows, key.shape[1], state.room.own_room, size)
            self._own[layer] = (_in_large_pages(key.new_empty(shape)), _in_large_pages(key.new_empty(shape)))
        (own_keys, own_values), (prompt_keys, prompt_values) = self._own[layer], self._prompts[layer]
        step = _Step(
            own_keys=own_keys.data_ptr(),
            own_values=own_values.data_ptr(),
            prompt_keys=prompt_keys.data_ptr(),
            prompt_values=prompt_values.data_ptr(),
            slots=state.slots.data_ptr(),
            prompt_lengths=self._row_prompt_lengths.data_ptr(),
            own_lengths=state.lengths.data_ptr(),
            scratch=self._scratch.data_ptr(),
            rows=rows,
            key_heads=key.shape[1],
            own_room=state.room.own_room,
            prompt_room=state.room.prompt_room,
            scratch_room=self._scratch_room,
            window=rule.window or 0,
            threads=self._threads,
            scaling=rule.scaling,
            softcap=rule.softcap or 0.0,
        )
        self._steps[layer] = (library.attend, step)
        return self._steps[layer]


def _in_large_pages(x: Tensor) -> Tensor:
    """Zero ``x``, in pages of 2 MiB where the system gives them: a step reads all of it once, and with small
    pages it spends a fifth of that on looking addresses up."""
    address, end = x.data_ptr(), x.data_ptr() + x.nbytes
    first = -(-address // _LARGE_PAGE) * _LARGE_PAGE
    if first + _LARGE_PAGE <= end:
        with contextlib.suppress(OSError, AttributeError):  # another system: no such call
            ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), _WANT_LARGE)
    return x.zero_()
