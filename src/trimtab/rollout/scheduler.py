"""Which rows are sampled together, and what has been sampled of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trimtab.errors import RolloutError
from trimtab.rollout.completion import RowLogprobs, StopStrings, build_completion
from trimtab.types import Completion

# Rows that finished go on being computed until so many of the batch did; every departure copies the cache.
_LEAVE_AT = 1 / 8


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows sampled together, sorted by prompt; ``rows[i]`` is (index of the prompt, generation)."""

    prompts: tuple[int, ...]  # indices of the prompts that occur, ascending
    rows: tuple[tuple[int, int], ...]

    @property
    def row_prompts(self) -> Tensor:
        """For each row, the place ``[R]`` of its prompt in ``prompts``."""
        place = {prompt: i for i, prompt in enumerate(self.prompts)}
        return torch.tensor([place[prompt] for prompt, _ in self.rows])


def chunks(num_prompts: int, num_generations: int, max_rows: int) -> Iterator[Chunk]:
    """Split all rows into chunks of at most ``max_rows``, whole groups where they fit."""
    rows = [(p, g) for p in range(num_prompts) for g in range(num_generations)]
    size = max_rows - max_rows % num_generations if num_generations <= max_rows else max_rows
    for start in range(0, len(rows), size):
        part = tuple(rows[start : start + size])
        yield Chunk(tuple(sorted({prompt for prompt, _ in part})), part)


def check_prompts(prompts: Sequence[Sequence[int]], num_generations: int, room: int | None, new: int) -> None:
    """Refuse empty prompts and those that with ``new`` tokens do not fit into ``room`` positions."""
    if num_generations < 1:
        raise RolloutError(f"num_generations = {num_generations} must be at least 1")
    for index, prompt in enumerate(prompts):
        if not len(prompt):
            raise RolloutError(f"prompt {index} is empty; a completion needs at least one token before it")
        if room is not None and len(prompt) + new > room:
            raise RolloutError(
                f"prompt {index} has {len(prompt)} tokens and with {new} new ones exceeds the model's {room} "
                "positions; shorten it or lower max_new_tokens"
            )


class Progress:
    """What a chunk has sampled so far, and which rows still run."""

    def __init__(
        self, num_rows: int, max_new_tokens: int, eos_ids: frozenset[int], stop: StopStrings
    ) -> None:
        self._tokens = torch.zeros(num_rows, max_new_tokens, dtype=torch.long)
        self._logprobs = torch.zeros(num_rows, max_new_tokens)
        self._sampling_logprobs: Tensor | None = None  # made when the first truncated draw comes
        self._lengths = torch.zeros(num_rows, dtype=torch.long)  # 0 while running
        self._eos, self._stop = torch.tensor(sorted(eos_ids), dtype=torch.long), stop
        self.rows = torch.arange(num_rows)  # the rows of the running batch, in its order
        self.step = 0

    def add(self, tokens: Tensor, logprobs: Tensor, sampling_logprobs: Tensor | None = None) -> None:
        """Record one token ``[A]`` of every row of the batch; those of finished rows do not count."""
        tokens = tokens.cpu()
        self._tokens[self.rows, self.step] = tokens
        self._logprobs[self.rows, self.step] = logprobs.cpu()
        if sampling_logprobs is not None:
            if self._sampling_logprobs is None:
                self._sampling_logprobs = torch.zeros_like(self._logprobs)
            self._sampling_logprobs[self.rows, self.step] = sampling_logprobs.cpu()
        self.step += 1
        ended = torch.isin(tokens, self._eos)
        if self._stop:
            for i in (~ended & self._is_running()).nonzero().flatten().tolist():
                ended[i] = self._stop.completed_by(self._tokens[self.rows[i], : self.step].tolist())
        self._lengths[self.rows[ended & self._is_running()]] = self.step

    def leave(self) -> Tensor | None:
        """Drop finished rows when enough did; return the indices that stay in the batch, or None for all."""
        running = self._is_running()
        num_running = int(running.sum())
        if len(self.rows) - num_running < max(1, _LEAVE_AT * len(self.rows)):
            return None
        staying = running.nonzero().flatten()
        self.rows = self.rows[staying]
        return staying

    @property
    def has_ended(self) -> Tensor:
        """Which rows of the whole chunk ended by themselves, ``[R]`` bool."""
        return self._lengths > 0

    def completions(self, tokenizer: Any, policy_version: int) -> list[Completion]:
        """All rows' completions, in the chunk's order."""
        found = []
        for row, length in enumerate(self._lengths.tolist()):
            count = length or self.step
            cut = self._sampling_logprobs
            logprobs = RowLogprobs(
                tuple(self._logprobs[row, :count].tolist()),
                () if cut is None else tuple(cut[row, :count].tolist()),
            )
            found.append(
                build_completion(
                    tokenizer,
                    self._tokens[row, :count].tolist(),
                    logprobs,
                    "stop" if length else "length",
                    self._stop,
                    policy_version,
                )
            )
        return found

    def _is_running(self) -> Tensor:
        return self._lengths[self.rows] == 0
