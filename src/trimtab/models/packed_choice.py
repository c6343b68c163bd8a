"""Attention over a packed row on a CPU: the compiled kernel or torch's, whichever measures faster here."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from trimtab.models.choice import choose
from trimtab.models.packed_compiled import CompiledKernel, compiled_kernel
from trimtab.models.packed_cpu import CpuKernel
from trimtab.models.packing import PackPlan
from trimtab.models.trials import OWN, TORCH, Budget, Way

_PROMPT, _OWN, _GROUPS, _ROWS = 32, 64, 2, 4  # of the trial: tokens, groups and completions of each


def cpu_kernel(plan: PackPlan, query: Tensor, key: Tensor) -> CompiledKernel | CpuKernel:
    """The attention of a packed row for ``query [1, Hq, T, D]`` and ``key [1, Hkv, T, D]``."""
    compiled = compiled_kernel(plan, query)
    if compiled is None or packed_way(query.dtype, query.shape[1], key.shape[1], query.shape[-1]) != OWN:
        return CpuKernel(plan)
    return compiled


def packed_way(
    dtype: torch.dtype, heads: int, key_heads: int, size: int, budget: Budget | None = None
) -> str:
    """How it is computed for these heads, forward and backward; see ``choice``. A row's gradient depends on
    its batch anyway, since all of a micro-batch is summed."""
    name = f"packed attention {heads}x{key_heads}x{size} {str(dtype).removeprefix('torch.')}"
    return choose(name, partial(_ways, dtype, heads, key_heads, size), (OWN, TORCH), budget)


@torch.no_grad()
def _ways(dtype: torch.dtype, heads: int, key_heads: int, size: int) -> dict[str, Way]:
    plan = _plan()
    tokens = plan.input_ids.shape[1]
    q, k, v, grad = (
        torch.sin(torch.arange(1.0 * tokens * count * size) * step)
        .view(1, tokens, count, size)
        .to(dtype)
        .transpose(1, 2)
        for count, step in ((heads, 0.3), (key_heads, 0.5), (key_heads, 0.7), (heads, 0.9))
    )
    kernels = {OWN: compiled_kernel(plan, q), TORCH: CpuKernel(plan)}
    return {
        name: Way(partial(_both, kernel, q, k, v, grad))
        for name, kernel in kernels.items()
        if kernel is not None
    }


@torch.no_grad()
def _both(kernel: CompiledKernel | CpuKernel, q: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> None:
    output, sums, more = kernel.forward(q, k, v, 0.125)
    kernel.backward(grad, (q, k, v, output, sums, *more), 0.125)


def _plan() -> PackPlan:
    """Some groups as a step has them."""
    first = _GROUPS * _PROMPT
    each, none = _ROWS * _OWN, torch.zeros(0, dtype=torch.long)
    tokens = torch.zeros(1, first + _GROUPS * each, dtype=torch.long)
    return PackPlan(
        input_ids=tokens,
        position_ids=tokens,
        prompts=tuple((at * _PROMPT, (at + 1) * _PROMPT) for at in range(_GROUPS)),
        completions=tuple((first + at * each, first + (at + 1) * each) for at in range(_GROUPS)),
        segments=(_PROMPT,) * _GROUPS + (_OWN,) * (_GROUPS * _ROWS),
        longest=_PROMPT + _OWN,
        sources=none,
        targets=none,
        spread=none,
        trained=torch.zeros(0, 0, dtype=torch.bool),
    )
