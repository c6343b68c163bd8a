"""Attention over a packed row on a CPU: torch's flash kernel on padded batches of similar stretches.

Shapes as in ``packed_context.py``; the one sequence's leading dimension is dropped inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trimtab.models.packing import PackPlan, Span

Parts = tuple[Tensor, Tensor, tuple[Tensor, ...]]  # output, log-sum-exp, what else the backward needs
_MAX_PADDING = 1.25  # stretches of one kernel call, padded to the longest, over what they hold


def join(output: Tensor, logsumexp: Tensor, more: Tensor, more_logsumexp: Tensor) -> None:
    """Join the attention over more keys into ``output [..., D]`` and ``logsumexp [...]``, in place."""
    joint = torch.logaddexp(logsumexp, more_logsumexp)
    kept = torch.exp(logsumexp - joint).unsqueeze(-1)
    output.copy_(output * kept + more * torch.exp(more_logsumexp - joint).unsqueeze(-1))
    logsumexp.copy_(joint)


def _token_major(like: Tensor) -> Tensor:
    """An empty ``[heads, T, D]`` stored token by token, as the layers around want it."""
    return like.new_empty(like.shape[1], like.shape[0], like.shape[2]).transpose(0, 1)


@dataclass(frozen=True, slots=True)
class _Stretches:
    """n stretches of the row as one padded batch; a view where they are equally long and side by side."""

    count: int
    length: int
    start: int
    index: Tensor | None = None  # [n · length] packed positions; padding repeats a stretch's last token
    real: Tensor | None = None  # positions in ``index`` that are not padding

    def take(self, x: Tensor) -> Tensor:
        """``x [heads, T, ...]`` → ``[n, heads, length, ...]``."""
        if self.index is None:
            picked = x[:, self.start : self.start + self.count * self.length]
        else:
            picked = x.index_select(1, self.index)
        return picked.unflatten(1, (self.count, self.length)).transpose(0, 1)

    def take_gradient(self, x: Tensor) -> Tensor:
        """As ``take``, but zero in the padding, so that it changes no gradient."""
        if self.index is None or self.real is None:
            return self.take(x)
        picked = x.new_zeros(x.shape[0], len(self.index), *x.shape[2:])
        picked.index_copy_(1, self.real, x.index_select(1, self.index[self.real]))
        return picked.unflatten(1, (self.count, self.length)).transpose(0, 1)

    def put(self, x: Tensor, value: Tensor) -> None:
        """Write ``value [n, heads, length, ...]`` where it belongs in ``x [heads, T, ...]``."""
        value = value.transpose(0, 1)
        if self.index is None or self.real is None:
            place = x[:, self.start : self.start + self.count * self.length]
            place.unflatten(1, (self.count, self.length)).copy_(value)
        else:
            x.index_copy_(1, self.index[self.real], value.flatten(1, 2).index_select(1, self.real))


class CpuKernel:
    """Flash attention of torch on a CPU: padded batches of stretches of similar length.

    Also bf16 inputs in fp32: measured 1.2 to 3.5 times as fast backward, on stretches of 60 to 1000 tokens.
    """

    def __init__(self, plan: PackPlan) -> None:
        self._stretches = _stretches(plan.segments)
        self._groups = list(zip(plan.prompts, plan.completions, strict=True))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Parts:
        """``query [1, Hq, T, D]``, ``key``, ``value [1, Hkv, T, D]`` → output and log-sum-exp ``[Hq, T]``."""
        run = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        q, k, v = (_wide(x[0]) for x in (query, key, value))
        output = _token_major(q)
        logsumexp = q.new_empty(q.shape[1], q.shape[0]).transpose(0, 1)
        for some in self._stretches:
            found, sums = run(some.take(q), some.take(k), some.take(v), 0.0, True, scale=scaling)
            some.put(output, found)
            some.put(logsumexp, sums)
        for prompt, own in self._groups:
            k_seen, v_seen = (_part(x, prompt) for x in (k, v))
            found, sums = run(_part(q, own), k_seen, v_seen, 0.0, False, scale=scaling)
            join(_part(output, own)[0], _part(logsumexp, own)[0], found[0], sums[0])
        return output[None].to(query.dtype), logsumexp, ()

    def backward(self, grad: Tensor, saved: tuple[Tensor, ...], scaling: float) -> tuple[Tensor, ...]:
        """Gradients of query, key and value from the output's; ``saved`` is what the forward saved."""
        run = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        query, key, value, output, logsumexp = saved
        q, k, v, o, dout = (_wide(x[0]) for x in (query, key, value, output, grad))
        grads = [_token_major(x) for x in (q, k, v)]
        for some in self._stretches:
            inputs = (some.take(x) for x in (q, k, v, o, logsumexp))
            found = run(some.take_gradient(dout), *inputs, 0.0, True, scale=scaling)
            for total, part in zip(grads, found, strict=True):
                some.put(total, part)
        for prompt, own in self._groups:
            q_own, o_own, sums = (_part(x, own) for x in (q, o, logsumexp))
            k_seen, v_seen = (_part(x, prompt) for x in (k, v))
            found = run(_part(dout, own), q_own, k_seen, v_seen, o_own, sums, 0.0, False, scale=scaling)
            for total, part, span in zip(grads, found, (own, prompt, prompt), strict=True):
                _part(total, span).add_(part)
        return tuple(total[None].to(query.dtype) for total in grads)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _part(x: Tensor, span: Span) -> Tensor:
    """``x [heads, T, ...]`` → ``[1, heads, span, ...]``, a view."""
    return x[None, :, span[0] : span[1]]


def _stretches(lengths: tuple[int, ...]) -> list[_Stretches]:
    """Batches of stretches of similar length, so that at most a fifth of each is padding."""
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    batches: list[list[int]] = []
    size = 0
    for number in sorted(range(len(lengths)), key=lambda n: (-lengths[n], n)):
        longest = lengths[batches[-1][0]] if batches else 0
        if batches and longest * (len(batches[-1]) + 1) <= _MAX_PADDING * (size + lengths[number]):
            batches[-1].append(number)
            size += lengths[number]
        else:
            batches.append([number])
            size = lengths[number]
    return [_batch(batch, [(starts[n], starts[n + 1]) for n in batch]) for batch in batches]


def _batch(numbers: list[int], spans: list[Span]) -> _Stretches:
    length = spans[0][1] - spans[0][0]
    is_view = all(stop - start == length for start, stop in spans) and numbers == list(
        range(numbers[0], numbers[0] + len(numbers))
    )
    if is_view:
        return _Stretches(len(spans), length, spans[0][0])
    column = torch.arange(length)
    first = torch.tensor([start for start, _ in spans])[:, None]
    last = torch.tensor([stop for _, stop in spans])[:, None] - 1
    index = (first + column).minimum(last)
    real = (first + column <= last).flatten().nonzero().squeeze(1)
    return _Stretches(len(spans), length, 0, index.flatten(), real)
