"""Attention over a packed row on a GPU: torch's flash kernel on stretches of any length, end to end.

Shapes as in ``packed_context.py``; here tokens come first: ``[T, heads, D]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trimtab.models.attention import UnsupportedAttentionError
from trimtab.models.packed_cpu import Parts, join
from trimtab.models.packing import PackPlan


class CudaKernel:
    """Flash attention of torch on a GPU: stretches of any length, end to end; bf16 and fp16 only."""

    def __init__(self, plan: PackPlan, device: torch.device) -> None:
        self._causal = _Lengths.of(plan.segments, device)
        self._prompts = _Lengths.of([stop - start for start, stop in plan.prompts], device)
        self._completions = _Lengths.of([stop - start for start, stop in plan.completions], device)
        self._shared = slice(0, self._prompts.total)
        self._own = slice(self._prompts.total, self._prompts.total + self._completions.total)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Parts:
        """``query [1, Hq, T, D]``, ``key``, ``value [1, Hkv, T, D]`` → output and log-sum-exp ``[Hq, T]``."""
        run = torch.ops.aten._flash_attention_forward
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # [T, heads, D]
        one, two, three = self._causal, self._completions, self._prompts
        output, logsumexp, *more = run(
            q, k, v, one.ends, one.ends, one.longest, one.longest, 0.0, True, False, scale=scaling
        )[:4]
        if logsumexp.shape != (q.shape[1], q.shape[0]):
            raise UnsupportedAttentionError("the GPU's flash attention has another layout of its log-sum-exp")
        if self._completions.total:
            k_seen, v_seen = k[self._shared], v[self._shared]
            lengths = (two.ends, three.ends, two.longest, three.longest)
            found, sums, *state = run(
                q[self._own], k_seen, v_seen, *lengths, 0.0, False, False, scale=scaling
            )[:4]
            join(output[self._own].transpose(0, 1), logsumexp[:, self._own], found.transpose(0, 1), sums)
            more += state
        return output.transpose(0, 1)[None], logsumexp, tuple(more)

    def backward(self, grad: Tensor, saved: tuple[Tensor, ...], scaling: float) -> tuple[Tensor, ...]:
        """Gradients of query, key and value from the output's; ``saved`` is what the forward saved."""
        run = torch.ops.aten._flash_attention_backward
        query, key, value, output, logsumexp, *more = saved
        q, k, v, o, dout = (x[0].transpose(0, 1) for x in (query, key, value, output, grad))
        one, two, three = self._causal, self._completions, self._prompts
        lengths = (one.ends, one.ends, one.longest, one.longest)
        grads = run(dout, q, k, v, o, logsumexp, *lengths, 0.0, True, more[0], more[1], scale=scaling)
        if self._completions.total:
            own, shared = self._own, self._shared
            parts = (dout[own], q[own], k[shared], v[shared], o[own], logsumexp[:, own].contiguous())
            lengths = (two.ends, three.ends, two.longest, three.longest)
            found = run(*parts, *lengths, 0.0, False, more[2], more[3], scale=scaling)
            for total, part, span in zip(grads, found, (own, shared, shared), strict=True):
                total[span] += part
        return tuple(total.transpose(0, 1)[None] for total in grads)


@dataclass(frozen=True, slots=True)
class _Lengths:
    """Stretches laid end to end: where each starts and the last one ends, the longest, and the sum."""

    ends: Tensor  # [n + 1] int32
    longest: int
    total: int

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> _Lengths:
        """From the length of each stretch."""
        counts = torch.tensor([0, *lengths])
        ends = counts.cumsum(0).to(torch.int32).to(device)
        return cls(ends, int(counts.max()), int(counts.sum()))
