"""Continuous batching: finished rows leave, waiting completions enter, the batch shrinks at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from trimtab.models.kv_context import LayerCache
from trimtab.rollout.bursts import BurstDecoder
from trimtab.rollout.draws import Draws
from trimtab.rollout.engine import SamplingParams
from trimtab.rollout.sampling import Sampler, uniform_table
from trimtab.rollout.scheduler import Transcript, Waiting, bucket

_PREFILL_TOKENS = 4096  # prompt tokens that run together
_ENTER_AT = 1 / 8  # completions enter when so much of the batch is free: each entry costs a pass of its own


class Forward(Protocol):
    """The model over a cache."""

    cache: LayerCache
    kernel_dtype: torch.dtype | None  # of the logits, where tokens may be drawn by the compiled kernel
    bursts: BurstDecoder | None  # where several steps can run without the host

    def prefill(self, prompts: Sequence[Sequence[int]], slots: Sequence[int]) -> Tensor:
        """Run prompts into slots; logits ``[P, V]`` after each."""
        ...

    def decode(self, tokens: Tensor) -> Tensor:
        """One token per row; logits ``[R, V]``."""
        ...


class RunningBatch:
    """R rows that work on completions; ``work[r]`` is the completion of row r, −1 while it rests."""

    def __init__(
        self, forward: Forward, transcript: Transcript, params: SamplingParams, eos_ids: frozenset[int]
    ) -> None:
        self._forward, self._cache, self._state = forward, forward.cache, forward.cache.state
        self._transcript, self._params = transcript, params
        room, device = self._state.room, self._state.slots.device
        self._sampler = Sampler(params, eos_ids, device, forward.kernel_dtype)
        self._work = torch.full((self._state.num_rows,), -1)
        is_plain = params.top_p == 1.0 and not params.top_k and not params.is_greedy
        self._bursts = forward.bursts if is_plain else None
        self._tokens, self._uniforms = self._buffers(self._state.num_rows)
        self._slot_rows = [0] * room.prompts  # rows that use each prompt slot
        self._reserved: int | None = None  # the slot of a prompt that has completions waiting
        self._held = torch.empty(0)  # the logits after that prompt
        self._numbers: Sequence[int] = ()  # whose stream each prompt draws from

    def _buffers(self, rows: int) -> tuple[Tensor, Tensor]:
        """The rows' next input tokens, and the uniforms that decide what they draw."""
        draws = self._params.max_new_tokens
        if self._bursts is not None:
            self._bursts.start(self._params)
            return self._bursts.tokens[:rows], self._bursts.uniforms[:rows, :draws]
        like = self._state.slots
        return like.new_zeros(rows), like.new_zeros((rows, draws), dtype=torch.float64)

    def run(
        self,
        prompts: Sequence[Sequence[int]],
        waiting: Waiting,
        num_generations: int,
        numbers: Sequence[int] | None = None,
    ) -> None:
        """Sample every completion that waits; ``numbers[i]`` says whose stream prompt i draws from."""
        self._numbers = range(len(prompts)) if numbers is None else numbers
        while True:
            while self._may_enter(waiting):
                self._enter(prompts, waiting, num_generations)
            if not bool((self._work >= 0).any()):
                return
            self._shrink(waiting)
            rows = torch.arange(len(self._work))
            if self._bursts is None:
                self._sample(rows, self._forward.decode(self._tokens))
                continue
            burst = self._bursts.run()
            is_full = bool((self._work >= 0).all())
            if not (is_full and self._transcript.add_steps(self._work, burst)):
                for draws in burst:
                    self._record(rows, draws)

    def _may_enter(self, waiting: Waiting) -> bool:
        if not len(waiting) or (self._reserved is None and min(self._slot_rows) > 0):
            return False
        free = int((self._work < 0).sum())
        return free == len(self._work) or free >= max(1, _ENTER_AT * len(self._work))

    def _enter(self, prompts: Sequence[Sequence[int]], waiting: Waiting, num_generations: int) -> None:
        """Let waiting completions take the free rows, and draw their first tokens."""
        free = (self._work < 0).nonzero().flatten().tolist()
        new_prompts: list[tuple[int, int]] = []  # (prompt, slot)
        entered: list[tuple[int, int, int]] = []  # (row, completion, place of its logits)
        held, tokens = self._reserved is not None, 0
        while free and len(waiting):
            prompt, slot = waiting.peek(), self._reserved
            if slot is None:
                tokens += len(prompts[prompt])
                unused = [i for i, rows in enumerate(self._slot_rows) if not rows]
                if not unused or (new_prompts and tokens > _PREFILL_TOKENS):
                    break
                slot = unused[0]
                new_prompts.append((prompt, slot))
            taken = waiting.take(len(free))
            place = len(new_prompts) - 1 + held
            self._slot_rows[slot] += len(taken)
            rows, free = free[: len(taken)], free[len(taken) :]
            self._state.start(torch.tensor(rows, device=self._state.slots.device), slot)
            entered += [(row, completion, place) for row, completion in zip(rows, taken, strict=True)]
            self._reserved = slot if (taken[-1] + 1) % num_generations else None
        logits = self._first_logits(prompts, new_prompts, held)
        at, completions, places = (torch.tensor(column) for column in zip(*entered, strict=True))
        self._work[at] = completions
        pairs = (divmod(completion, num_generations) for completion in completions.tolist())
        streams = [(self._numbers[prompt], generation) for prompt, generation in pairs]
        table = uniform_table(self._params.seed, streams, self._params.max_new_tokens)
        self._uniforms[at.to(self._uniforms.device)] = table.to(self._uniforms.device)
        self._cache.arrange()
        self._sample(at, logits[places.to(logits.device)])

    def _first_logits(
        self, prompts: Sequence[Sequence[int]], new: Sequence[tuple[int, int]], held: bool
    ) -> Tensor:
        """Logits after the prompts that enter; first those of the one that entered in part, if any."""
        parts = [self._held] if held else []
        if new:
            parts.append(self._forward.prefill([prompts[p] for p, _ in new], [slot for _, slot in new]))
        logits = torch.cat(parts)
        self._held = logits[-1:] if self._reserved is not None else torch.empty(0)
        return logits

    def _sample(self, rows: Tensor, logits: Tensor) -> None:
        """Draw the next token of ``rows [A]`` from ``logits [A, V]`` and let finished rows rest."""
        work = self._work[rows]
        steps = self._transcript.lengths[work.clamp(min=0)].clamp(max=self._params.max_new_tokens - 1)
        on_device = rows.to(self._tokens.device)
        uniforms = self._uniforms[on_device, steps.to(self._tokens.device)]
        draws = self._sampler(logits, uniforms, steps)
        self._tokens[on_device] = draws.tokens
        self._record(rows, draws)

    def _record(self, rows: Tensor, draws: Draws) -> None:
        """Count what was drawn for the rows that work; those that are over rest from here on."""
        running = self._work[rows] >= 0
        if not bool(running.any()):
            return
        over = self._transcript.add(
            self._work[rows][running], draws if bool(running.all()) else draws.rows(running)
        )
        finished = rows[running][over]
        if not len(finished):
            return
        for slot in self._state.slots[finished.to(self._state.slots.device)].tolist():
            self._slot_rows[slot] -= 1
        self._work[finished] = -1
        self._state.stop(finished.to(self._state.slots.device))

    def _shrink(self, waiting: Waiting) -> None:
        """Once nothing waits, drop resting rows when a smaller batch size holds the others."""
        running = self._work >= 0
        size = bucket(int(running.sum()))
        if len(waiting) or size >= len(self._work):
            return
        resting = (~running).nonzero().flatten()[: size - int(running.sum())]
        rows = torch.cat((running.nonzero().flatten(), resting)).sort().values
        self._work = self._work[rows]
        on_device = rows.to(self._tokens.device)
        self._tokens, self._uniforms = _moved(self._tokens, on_device), _moved(self._uniforms, on_device)
        self._cache.keep(on_device)
        self._state.keep(on_device)
        self._cache.arrange()


def _moved(x: Tensor, rows: Tensor) -> Tensor:
    """``x[rows]`` in the memory of ``x``: graphs that were captured read it there."""
    x[: len(rows)] = x[rows]
    return x[: len(rows)]
