"""Drawn tokens, and the compiled kernel that draws them straight from the logits."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor

from trimtab.errors import DivergedError
from trimtab.models.kernels.build import load_kernel
from trimtab.rollout.engine import SamplingParams

NOT_FINITE = "the logits of the policy are not finite; lower the learning rate"
_BLOCK = 256  # as in sample.c


class Draws(NamedTuple):
    """One token for each row, each ``[A]``."""

    tokens: Tensor
    logprobs: Tensor  # fp32, of softmax(logits / temperature), whatever was cut
    sampling_logprobs: Tensor | None  # fp32, of what was drawn from; None where nothing was cut

    def rows(self, which: Tensor) -> Draws:
        """The draws of some rows only."""
        which = which.to(self.tokens.device)
        cut = None if self.sampling_logprobs is None else self.sampling_logprobs[which]
        return Draws(self.tokens[which], self.logprobs[which], cut)


class KernelDrawer:
    """Draws from the whole distribution: one pass for the maximum, one for the sums, one block searched."""

    def __init__(
        self, library: ctypes.CDLL, dtype: torch.dtype, params: SamplingParams, ends: Tensor
    ) -> None:
        self.dtype, self._library, self._ends = dtype, library, ends
        self._inverse, self._is_truncated = ctypes.c_float(1.0 / params.scale), params.is_truncated
        library.draw_rows.restype = ctypes.c_int64

    def __call__(self, logits: Tensor, uniforms: Tensor, barred: Tensor) -> Draws:
        """``logits [A, V]`` contiguous, ``uniforms [A]`` fp64, ``barred [A]`` (or one for all): where end
        tokens may not be drawn.

        Raises:
            DivergedError: logits are not finite.
        """
        rows, size = logits.shape
        uniforms, flags = uniforms.contiguous(), barred.expand(rows).to(torch.uint8).contiguous()
        tokens, logprobs, drawn = torch.empty(rows, dtype=torch.long), torch.empty(rows), torch.empty(rows)
        sums = torch.empty(rows, -(-size // _BLOCK), dtype=torch.float64)
        pointers = [
            ctypes.c_void_p(x.data_ptr())
            for x in (logits, uniforms, flags, self._ends, sums, tokens, logprobs, drawn)
        ]
        bad = self._library.draw_rows(
            *pointers[:4],
            ctypes.c_int64(len(self._ends)),
            self._inverse,
            ctypes.c_int64(rows),
            ctypes.c_int64(size),
            *pointers[4:],
        )
        if bad:
            raise DivergedError(NOT_FINITE)
        return Draws(tokens, logprobs, drawn if self._is_truncated else None)


def kernel_drawer(dtype: torch.dtype | None, params: SamplingParams, ends: Tensor) -> KernelDrawer | None:
    """The drawer for logits of ``dtype`` on the CPU; None where there is no kernel for these ``params``."""
    is_plain = params.top_p == 1.0 and not params.top_k and not params.is_greedy
    if not is_plain or dtype not in (torch.float32, torch.bfloat16) or ends.device.type != "cpu":
        return None
    library = load_kernel("sample", {"IS_BF16": int(dtype == torch.bfloat16)})
    return None if library is None else KernelDrawer(library, dtype, params, ends)
