"""Several decode steps in a row on a GPU, sampling included, without asking the host in between.

One step (forward, draw, bookkeeping) is captured as a CUDA graph per batch size and replayed; the host looks
at the tokens after a burst. Rows that end inside a burst rest on the device from the next step on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from trimtab.errors import DivergedError
from trimtab.models.kv_rows import RowState
from trimtab.rollout.draws import NOT_FINITE, Draws
from trimtab.rollout.engine import SamplingParams
from trimtab.rollout.graphs import GraphedDecode
from trimtab.rollout.sampling import draw_unchecked

SIZE = 8  # steps per burst: a stop string, or a place that became free, is noticed so much later at most


class BurstDecoder:
    """Draws from the whole distribution; truncated sampling goes step by step.

    ``tokens [R]`` are the next inputs, ``uniforms [R, own_room]`` decide the draws: buffers that the captured
    graphs read, to be filled in place.
    """

    def __init__(self, step: Callable[[Tensor], Tensor], state: RowState, eos_ids: Iterable[int]) -> None:
        """``step(tokens [R]) -> logits [R, V]`` advances ``state``."""
        self._state, device, rows = state, state.slots.device, state.room.rows
        self.tokens = torch.zeros(rows, dtype=torch.long, device=device)
        self.uniforms = torch.zeros(rows, state.room.own_room, dtype=torch.float64, device=device)
        self._ends = torch.tensor(sorted(eos_ids), dtype=torch.long, device=device)
        self._inverse = torch.ones((), device=device)  # of the temperature
        self._limits = torch.zeros(2, dtype=torch.long, device=device)  # fewest and most new tokens
        self._drawn = torch.zeros(SIZE, rows, dtype=torch.long, device=device)
        self._logprobs = torch.zeros(SIZE, 2, rows, device=device)
        self._at = torch.zeros(1, dtype=torch.long, device=device)
        self._step = step
        self._graphed = GraphedDecode(self._once, state)

    def start(self, params: SamplingParams) -> None:
        """Sample as ``params`` say from now on."""
        self._inverse.fill_(1.0 / params.scale)
        self._limits.copy_(torch.tensor([params.min_new_tokens, params.max_new_tokens]))
        self._is_truncated = params.is_truncated

    def run(self) -> list[Draws]:
        """Run ``SIZE`` steps over the rows of the state; the draws of each step, on the host.

        Raises:
            DivergedError: logits are not finite.
        """
        rows = self._state.num_rows
        self._at.zero_()  # a capture runs steps, which count
        self._graphed.prepare(self.tokens[:rows])
        self._at.zero_()
        running = self._state.is_running.bool().cpu()
        for _ in range(SIZE):
            self._graphed(self.tokens[:rows])
        tokens, logprobs = self._drawn[:, :rows].cpu(), self._logprobs[..., :rows].cpu()
        if not bool(torch.isfinite(logprobs[..., running]).all()):
            raise DivergedError(NOT_FINITE)
        return [
            Draws(tokens[i], logprobs[i, 0], logprobs[i, 1] if self._is_truncated else None)
            for i in range(SIZE)
        ]

    def _once(self, tokens: Tensor) -> Tensor:
        """One step; the returned tokens are those drawn."""
        state, rows = self._state, len(tokens)
        scaled = self._step(self.tokens[:rows]).float() * self._inverse
        # The token before this draw was counted by the step: a row's length is what it has sampled so far.
        sampled = state.lengths
        allowed = scaled.clone()
        barred = (sampled < self._limits[0])[:, None]
        allowed[:, self._ends] = allowed[:, self._ends].masked_fill(barred, float("-inf"))
        place = sampled.clamp(max=self.uniforms.shape[1] - 1)[:, None]
        drawn, inner = draw_unchecked(allowed, self.uniforms[:rows].gather(1, place).squeeze(1))
        logprobs = scaled.gather(1, drawn[:, None]).squeeze(1) - torch.logsumexp(scaled, dim=-1)
        self._drawn[:, :rows].index_copy_(0, self._at, drawn[None])
        self._logprobs[..., :rows].index_copy_(0, self._at, torch.stack((logprobs, inner))[None])
        self._at += 1
        over = (drawn[:, None] == self._ends).any(dim=1) | (sampled + 1 >= self._limits[1])
        state.is_running *= ~over
        self.tokens[:rows] = drawn
        return drawn
