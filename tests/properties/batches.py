"""Random batches for the properties: log-probabilities, masks with holes and empty rows, advantages."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Everything a policy loss needs, ``[B, T]``; advantages ``[B]``."""

    logprobs: Tensor
    old_logprobs: Tensor
    ref_logprobs: Tensor
    advantages: Tensor
    mask: Tensor

    def rows(self, index: object) -> Batch:
        return Batch(*(tensor[index] for tensor in vars(self).values()))

    def padded(self, left: int, right: int) -> Batch:
        """More columns on both sides, filled with numbers that must not matter."""
        pad = torch.nn.functional.pad
        token_level = (self.logprobs, self.old_logprobs, self.ref_logprobs)
        filled = [
            pad(tensor, (left, right), value=junk)
            for tensor, junk in zip(token_level, (-70.0, 30.0, 9.0), strict=True)
        ]
        return Batch(*filled, self.advantages, pad(self.mask, (left, right), value=False))


def random_batch(seed: int, rows: int = 6, columns: int = 9) -> Batch:
    """Log-probabilities around −2, policies 0.3 apart, a third of the tokens masked, one row empty."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    logprobs = -2 + normal(rows, columns)
    mask = torch.rand(rows, columns, generator=generator) < 0.67
    mask[0, 0], mask[-1] = True, False
    old, reference = logprobs + 0.3 * normal(rows, columns), logprobs + 0.3 * normal(rows, columns)
    return Batch(logprobs, old, reference, normal(rows), mask)


seeds = st.integers(min_value=0, max_value=2**31 - 1)
