"""Which completions are sampled when, and what has been sampled of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trimtab.errors import RolloutError
from trimtab.rollout.completion import RowLogprobs, StopStrings, build_completion
from trimtab.rollout.draws import Draws
from trimtab.types import Completion


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


class Transcript:
    """What has been sampled of every completion so far. N completions, in rows of any order."""

    def __init__(
        self, num_completions: int, max_new_tokens: int, eos_ids: frozenset[int], stop: StopStrings
    ) -> None:
        self.lengths = torch.zeros(num_completions, dtype=torch.long)
        self.has_ended = torch.zeros(num_completions, dtype=torch.bool)  # by itself, not by the limit
        self.max_new_tokens = max_new_tokens
        self._tokens = torch.zeros(num_completions, max_new_tokens, dtype=torch.long)
        self._logprobs = torch.zeros(num_completions, max_new_tokens)
        self._sampling_logprobs: Tensor | None = None  # made when the first truncated draw comes
        self._eos, self._stop = torch.tensor(sorted(eos_ids), dtype=torch.long), stop

    def add(self, which: Tensor, draws: Draws) -> Tensor:
        """Record one token of each completion in ``which [A]``; return which of them are over, ``[A]``."""
        tokens, at = draws.tokens.cpu(), self.lengths[which]
        self._tokens[which, at] = tokens
        self._logprobs[which, at] = draws.logprobs.cpu()
        if draws.sampling_logprobs is not None:
            if self._sampling_logprobs is None:
                self._sampling_logprobs = torch.zeros_like(self._logprobs)
            self._sampling_logprobs[which, at] = draws.sampling_logprobs.cpu()
        self.lengths[which] += 1
        ended = torch.isin(tokens, self._eos)
        if self._stop:
            for i in (~ended).nonzero().flatten().tolist():
                row = which[i]
                ended[i] = self._stop.completed_by(self._tokens[row, : self.lengths[row]].tolist())
        self.has_ended[which] = ended
        return ended | (at + 1 == self.max_new_tokens)

    def add_steps(self, which: Tensor, steps: Sequence[Draws]) -> bool:
        """Record several tokens of each completion at once, on the host; False, and nothing is done, where
        one of them may end within."""
        tokens, at = torch.stack([draws.tokens for draws in steps], dim=1), self.lengths[which]
        may_end = bool(torch.isin(tokens, self._eos).any())
        if self._stop or may_end or int(at.max()) + len(steps) >= self.max_new_tokens:
            return False
        places = (which[:, None], at[:, None] + torch.arange(len(steps)))
        self._tokens[places] = tokens
        self._logprobs[places] = torch.stack([draws.logprobs for draws in steps], dim=1)
        cut = [draws.sampling_logprobs for draws in steps if draws.sampling_logprobs is not None]
        if cut:
            if self._sampling_logprobs is None:
                self._sampling_logprobs = torch.zeros_like(self._logprobs)
            self._sampling_logprobs[places] = torch.stack(cut, dim=1)
        self.lengths[which] += len(steps)
        return True

    def completions(self, policy_version: int) -> list[Completion]:
        """All completions, in order."""
        found = []
        for row, (count, ended) in enumerate(
            zip(self.lengths.tolist(), self.has_ended.tolist(), strict=True)
        ):
            cut = self._sampling_logprobs
            logprobs = RowLogprobs(
                tuple(self._logprobs[row, :count].tolist()),
                () if cut is None else tuple(cut[row, :count].tolist()),
            )
            found.append(
                build_completion(
                    self._tokens[row, :count].tolist(),
                    logprobs,
                    "stop" if ended else "length",
                    self._stop,
                    policy_version,
                )
            )
        return found


class Waiting:
    """Completions that have not started, prompt by prompt in order."""

    def __init__(self, num_prompts: int, num_generations: int) -> None:
        self._next, self._end, self._group = 0, num_prompts * num_generations, num_generations

    def __len__(self) -> int:
        return self._end - self._next

    def peek(self) -> int:
        """The prompt of the next completion."""
        return self._next // self._group

    def take(self, most: int) -> list[int]:
        """Take at most ``most`` completions of the next prompt; prompt p's are p · G … p · G + G − 1."""
        end = min(self._next + most, (self.peek() + 1) * self._group)
        taken = list(range(self._next, end))
        self._next = end
        return taken


def bucket(rows: int) -> int:
    """The batch size that ``rows`` rows run in: few different sizes, since each is prepared for once."""
    if rows <= 8:
        return 1 << max(0, rows - 1).bit_length()
    return -(-rows // 8) * 8 if rows <= 64 else -(-rows // 32) * 32
