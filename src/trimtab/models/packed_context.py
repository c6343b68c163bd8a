"""What attention does over a packed row: each completion sees its group's prompt and its own past.

Two parts, each by the fused kernel of the device, without a mask: every stretch of the row causally over
itself, and the completions of each group over their prompt. A token seen by both parts has the softmax of
both, joined by their log-sum-exps. Backward, every part is called with the joined output and log-sum-exp:
then its probabilities and their correction are those of the whole row, so the gradients of the parts simply
add up (as in ring attention, Liu et al. 2023). Hq query and Hkv key heads, T tokens, D head size.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from trimtab.models.attention import ScoreRule, UnsupportedAttentionError
from trimtab.models.packed_choice import cpu_kernel
from trimtab.models.packed_cpu import Parts
from trimtab.models.packed_cuda import CudaKernel
from trimtab.models.packing import PackPlan


class PackedContext:
    """Attention over the packed row of a plan, with gradients; see ``AttentionContext``."""

    def __init__(self, plan: PackPlan) -> None:
        self._plan = plan
        self._kernel: _Kernel | None = None
        self._mask: Tensor | None = None

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rule: ScoreRule) -> Tensor:
        """``query [1, Hq, T, D]``, ``key``, ``value [1, Hkv, T, D]`` → ``[1, T, Hq, D]``.

        Raises:
            UnsupportedAttentionError: soft-capped scores, a window shorter than a sequence, or values of
                another size than the keys.
        """
        if rule.softcap is not None:
            raise UnsupportedAttentionError("packed attention has no soft cap")
        if rule.window is not None and rule.window < self._plan.longest:
            raise UnsupportedAttentionError(
                f"packed attention has no window of {rule.window} over a sequence of {self._plan.longest}"
            )
        if value.shape != key.shape or query.shape[-1] != key.shape[-1]:
            raise UnsupportedAttentionError("packed attention needs queries, keys and values of one size")
        if query.device.type == "cpu":
            self._kernel = self._kernel or cpu_kernel(self._plan, query, key)
        elif query.device.type == "cuda" and query.dtype in (torch.bfloat16, torch.float16):
            self._kernel = self._kernel or CudaKernel(self._plan, query.device)
        else:
            return self._masked(query, key, value, rule).transpose(1, 2).contiguous()
        output = _PackedAttention.apply(query, key, value, self._kernel, rule.scaling)  # type: ignore[no-untyped-call]
        return output.transpose(1, 2).contiguous()

    def _masked(self, query: Tensor, key: Tensor, value: Tensor, rule: ScoreRule) -> Tensor:
        """Where no kernel gives log-sum-exps (fp32 on a GPU): the whole row under a mask ``[T, T]``."""
        if self._mask is None:
            self._mask = block_mask(self._plan).to(query.device)
        return F.scaled_dot_product_attention(
            query, key, value, self._mask, scale=rule.scaling, enable_gqa=True
        )


def block_mask(plan: PackPlan) -> Tensor:
    """What each position of the packed row sees, ``[T, T]`` bool."""
    lengths = torch.tensor(plan.segments)
    segment = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    mask = (segment[:, None] == segment[None]).tril()
    for (start, stop), (first, last) in zip(plan.prompts, plan.completions, strict=True):
        mask[first:last, start:stop] = True
    return mask


class _Kernel(Protocol):
    """The parts of a packed row's attention on one device."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Parts: ...

    def backward(self, grad: Tensor, saved: tuple[Tensor, ...], scaling: float) -> tuple[Tensor, ...]: ...


class _PackedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, kernel: _Kernel, scaling: float
    ) -> Tensor:
        output, logsumexp, more = kernel.forward(query, key, value, scaling)
        ctx.save_for_backward(query, key, value, output, logsumexp, *more)
        ctx.kernel, ctx.scaling = kernel, scaling
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (*ctx.kernel.backward(grads[0], ctx.saved_tensors, ctx.scaling), None, None)
