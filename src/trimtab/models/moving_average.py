"""A model that follows another one slowly: the reference of an RL run, where the recipe lets it move."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trimtab.models.halves import join, part, take


class MovingAverage:
    """Weights of ``model`` that follow another model's: w ← (1 − mix) · w + mix · other, in fp32.

    bf16 weights alone would forget small moves; the bits that they cut off are kept, as for masters. Weights
    that are no floats, and buffers, are copied.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._rests = {
            name: torch.zeros_like(p, dtype=torch.int16)
            for name, p in model.named_parameters()
            if p.dtype == torch.bfloat16
        }

    @torch.no_grad()
    def move(self, other: nn.Module, mix: float) -> None:
        """Move a share ``mix`` of the way, in place."""
        others = dict(other.named_parameters())
        for name, p in self.model.named_parameters():
            if name not in self._rests:
                p.lerp_(others[name].to(p), mix)
                continue
            average = join(p, self._rests[name]).lerp_(others[name].to(p.device, torch.float32), mix)
            part(average, p, self._rests[name])
        for mine, theirs in zip(self.model.buffers(), other.buffers(), strict=True):
            mine.copy_(theirs)

    def state(self) -> dict[str, Tensor]:
        """What the weights do not show."""
        return dict(self._rests)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over what ``state`` returned, beside weights of the same moment."""
        for name, rest in self._rests.items():
            rest.copy_(take(state, name, rest.shape))
