"""Attention over a packed row on a CPU by a compiled kernel: one softmax over prompt and completion.

Measured at 25 + 128 tokens, 9 query and 3 key heads: 2.3 times as fast as torch's flash kernel in parts
(``packed_cpu.py``), which stays for machines without a compiler. Shapes as in ``packed_context.py``.
"""

from __future__ import annotations

from ctypes import CDLL, c_float, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor

from trimtab.models.kernels.build import load_kernel
from trimtab.models.kv_rows import BLOCK
from trimtab.models.packed_cpu import Parts
from trimtab.models.packing import PackPlan

_PARTS = 8  # units that a group is cut into: work for as many threads, whatever their number


class CompiledKernel:
    """The parts of a packed row's attention; deterministic, whatever the number of threads."""

    def __init__(self, plan: PackPlan, library: CDLL) -> None:
        self._library = library
        self._units, self._stretches, self._prefixes = _units(plan)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Parts:
        """``query [1, Hq, T, D]``, ``key``, ``value [1, Hkv, T, D]`` → output and log-sum-exp ``[T, Hq]``."""
        q, k, v = (_token_major(x) for x in (query, key, value))
        output, sums = torch.empty_like(q), q.new_empty(q.shape[:2], dtype=torch.float32)
        tensors = (q, k, v, output, sums, self._units, self._stretches)
        self._run("packed_forward", tensors, q, k, scaling)
        return output.transpose(0, 1)[None], sums, ()

    def backward(self, grad: Tensor, saved: tuple[Tensor, ...], scaling: float) -> tuple[Tensor, ...]:
        """Gradients of query, key and value from the output's; ``saved`` is what the forward saved."""
        q, k, v, output = (_token_major(x) for x in saved[:4])
        dq, (dk, dv) = torch.empty_like(q), torch.empty(2, *k.shape)
        parts = torch.empty(2, sum(count * len(starts) for _, count, starts in self._prefixes), *k.shape[1:])
        tensors = (q, k, v, output, saved[4], _token_major(grad), dq, dk, dv, *parts)
        self._run("packed_backward", (*tensors, self._units, self._stretches), q, k, scaling)
        for first, count, starts in self._prefixes:
            for total, part in zip((dk, dv), parts, strict=True):
                found = part[starts[0] : starts[0] + count * len(starts)]
                total[first : first + count] += found.unflatten(0, (len(starts), count)).sum(dim=0)
        return tuple(x.to(q.dtype).transpose(0, 1)[None] for x in (dq, dk, dv))

    def _run(self, name: str, tensors: tuple[Tensor, ...], q: Tensor, k: Tensor, scaling: float) -> None:
        pointers = (c_void_p(x.data_ptr()) for x in tensors)
        sizes = (c_int64(n) for n in (len(self._units), q.shape[1], k.shape[1]))
        getattr(self._library, name)(*pointers, *sizes, c_float(scaling))


def compiled_kernel(plan: PackPlan, query: Tensor) -> CompiledKernel | None:
    """The kernel for the precision and head size of ``query``, or None where it cannot be had."""
    library = _library(query.dtype, query.shape[-1])
    return None if library is None else CompiledKernel(plan, library)


def can_compile(dtype: torch.dtype, size: int) -> bool:
    """Whether this machine has the kernel for a precision and a head size."""
    return _library(dtype, size) is not None


def _library(dtype: torch.dtype, size: int) -> CDLL | None:
    if dtype not in (torch.bfloat16, torch.float32) or size % BLOCK:
        return None
    return load_kernel("packed_attention", {"SIZE": size, "IS_BF16": int(dtype == torch.bfloat16)})


def _token_major(x: Tensor) -> Tensor:
    """``[1, heads, T, D]`` → ``[T, heads, D]``; a view of what a projection leaves."""
    return x[0].transpose(0, 1).contiguous()


def _units(plan: PackPlan) -> tuple[Tensor, Tensor, list[tuple[int, int, list[int]]]]:
    """The kernel's lists of units and stretches; and for each shared prompt its first token, its length, and
    where the parts of its gradient lie."""
    lengths = torch.tensor(plan.segments)
    starts = lengths.cumsum(0) - lengths
    units: list[tuple[int, ...]] = []
    prefixes, place, in_group = [], 0, set[int]()
    for (first, last), (begin, end) in zip(plan.prompts, plan.completions, strict=True):
        members = [at for at, start in enumerate(starts.tolist()) if begin <= start < end]
        in_group.update(members)
        size, mine = -(-len(members) // _PARTS), list[int]()
        for some in range(0, len(members), size):
            chunk = members[some : some + size]
            units.append((first, last - first, chunk[0], len(chunk), place))
            mine.append(place)
            place += last - first
        prefixes.append((first, last - first, mine))
    units += [(0, 0, at, 1, 0) for at in range(len(lengths)) if at not in in_group]
    units.sort(key=lambda unit: -_work(unit, plan.segments))  # the largest first: threads end together
    return torch.tensor(units), torch.stack((starts, lengths), dim=1), prefixes


def _work(unit: tuple[Any, ...], lengths: tuple[int, ...]) -> int:
    return sum(n * (unit[1] + n) for n in lengths[unit[2] : unit[2] + unit[3]])
