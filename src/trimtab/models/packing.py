"""Which tokens of a batch must run, each of them once: the plan of a packed row.

A plan lays the rows of a batch out in one row ``[1, T]`` without padding. Rows with the same prompt (the
tokens before the first trained one) share it, rows with the same tokens are one sequence, and tokens after
the last one that is trained, or that predict nothing, are left out. Nothing is lost: ``scatter`` brings what
was computed per token back to ``[B, T]``, and gradients of rows that were merged add up by themselves.

Layout: the shared prompts, then their completions group by group, then the rows that share nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from trimtab.types import TrainBatch

Span = tuple[int, int]  # first position of a stretch of the packed row, and the one after its last


@dataclass(frozen=True, slots=True)
class PackPlan:
    """One packed row. N: different (source, target) pairs; M: trained tokens of the batch, in row order."""

    input_ids: Tensor  # [1, T]
    position_ids: Tensor  # [1, T] of each token in its own sequence
    prompts: tuple[Span, ...]  # shared prompts, at the start of the row
    completions: tuple[Span, ...]  # for each of them the completions that see it, after the last prompt
    segments: tuple[int, ...]  # lengths of the stretches that see themselves causally; they cover the row
    longest: int  # tokens of the longest sequence
    sources: Tensor  # [N] the packed position that predicts
    targets: Tensor  # [N] the token predicted
    spread: Tensor  # [M] which of the N pairs each trained token is
    trained: Tensor  # [B, T] bool: the trained tokens; column 0 is predicted by nothing and never is

    def to(self, device: torch.device) -> PackPlan:
        """The same plan with its tensors on ``device``."""
        names = ("input_ids", "position_ids", "sources", "targets", "spread", "trained")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def scatter(self, values: Tensor) -> Tensor:
        """Bring ``values [N]`` to where they belong in ``[B, T]``, zeros elsewhere; carries gradients."""
        blank = torch.zeros(self.trained.shape, dtype=values.dtype, device=values.device)
        return blank.masked_scatter(self.trained, values[self.spread])


class _Rows:
    """The rows of a batch as keys: prompt, and the tokens that must run after it."""

    def __init__(self, batch: TrainBatch) -> None:
        trained = batch.completion_mask.bool().cpu().clone()
        trained[:, 0] = False
        self.trained = trained
        self.ids = batch.token_ids.cpu().long().numpy()
        mask = trained.numpy()
        self.used = np.flatnonzero(mask.any(axis=1)).tolist()
        self.first = mask.argmax(axis=1)  # of the trained tokens
        self.last = mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)

    def prompt(self, row: int) -> bytes:
        return bytes(self.ids[row, : self.first[row]].tobytes())

    def completion(self, row: int) -> bytes:
        """Its last token is left out: it predicts nothing that is trained."""
        return bytes(self.ids[row, self.first[row] : self.last[row]].tobytes())

    def groups(self) -> dict[bytes, dict[bytes, list[int]]]:
        """Rows by prompt and by completion; long completions first, so that equals lie side by side."""
        found: dict[bytes, dict[bytes, list[int]]] = {}
        for row in self.used:
            found.setdefault(self.prompt(row), {}).setdefault(self.completion(row), []).append(row)
        return {
            prompt: dict(sorted(rows.items(), key=lambda item: -len(item[0])))
            for prompt, rows in found.items()
        }


def can_pack(batch: TrainBatch) -> bool:
    """Whether rows start at column 0 and have no holes in their attention mask (right-padded)."""
    mask = batch.attention_mask.bool()
    return bool((mask[:, 1:] <= mask[:, :-1]).all())


def make_plan(batch: TrainBatch) -> PackPlan:
    """Plan the packed row of a right-padded batch, on the CPU.

    Raises:
        ValueError: no row has a trained token after its first one.
    """
    rows = _Rows(batch)
    if not rows.used:
        raise ValueError("make_plan: the batch has no trained token; leave it out")
    layout = _Layout()
    groups = rows.groups()
    shared = {p: rows for p, rows in groups.items() if sum(len(c) > 0 for c in rows) > 1}
    for prompt in shared:
        layout.add_prompt(prompt)
    for prompt, completions in shared.items():
        layout.add_completions(prompt, [c for c in completions if c])
    for prompt, completions in groups.items():
        if prompt not in shared:
            layout.add_lone(prompt, max(completions, key=len))
    return layout.plan(rows, groups)


class _Layout:
    """The packed row while it is being laid out. Keys are the bytes of int64 tokens."""

    def __init__(self) -> None:
        self.pieces: list[np.ndarray] = []
        self.positions: list[np.ndarray] = []
        self.segments: list[int] = []
        self.prompts: dict[bytes, Span] = {}
        self.completions: list[Span] = []
        self.starts: dict[tuple[bytes, bytes], int] = {}  # where each completion starts
        self.ends: dict[bytes, int] = {}  # the last position of each prompt
        self.size, self.longest = 0, 0

    def add_prompt(self, prompt: bytes) -> None:
        start = self._add(prompt, 0)
        self.prompts[prompt] = (start, self.size)
        self.ends[prompt] = self.size - 1

    def add_completions(self, prompt: bytes, completions: Sequence[bytes]) -> None:
        first = self.size
        for completion in completions:
            self.starts[prompt, completion] = self._add(completion, len(prompt) // 8)
        self.completions.append((first, self.size))

    def add_lone(self, prompt: bytes, completion: bytes) -> None:
        start, length = self._add(prompt + completion, 0), len(prompt) // 8
        self.ends[prompt] = start + length - 1
        self.starts[prompt, completion] = start + length

    def _add(self, tokens: bytes, position: int) -> int:
        piece, start = np.frombuffer(tokens, dtype=np.int64), self.size
        self.pieces.append(piece)
        self.positions.append(np.arange(position, position + len(piece)))
        self.segments.append(len(piece))
        self.size += len(piece)
        self.longest = max(self.longest, position + len(piece))
        return start

    def plan(self, rows: _Rows, groups: dict[bytes, dict[bytes, list[int]]]) -> PackPlan:
        sources = np.zeros(rows.ids.shape, dtype=np.int64)
        for prompt, completions in groups.items():
            for completion, members in completions.items():
                first = rows.first[members[0]]  # the same for all: it is the length of the prompt
                start = self.starts.get((prompt, completion), 0)
                for row in members:
                    last = rows.last[row]
                    sources[row, first] = self.ends[prompt]
                    sources[row, first + 1 : last + 1] = np.arange(start, start + last - first)
        trained = rows.trained.numpy()
        base = int(rows.ids.max()) + 1
        unique, spread = np.unique(sources[trained] * base + rows.ids[trained], return_inverse=True)
        return PackPlan(
            input_ids=torch.from_numpy(np.concatenate(self.pieces))[None],
            position_ids=torch.from_numpy(np.concatenate(self.positions))[None],
            prompts=tuple(self.prompts.values()),
            completions=tuple(self.completions),
            segments=tuple(self.segments),
            longest=self.longest,
            sources=torch.from_numpy(unique // base),
            targets=torch.from_numpy(unique % base),
            spread=torch.from_numpy(spread.reshape(-1)),
            trained=rows.trained,
        )


def split_by_tokens(batch: TrainBatch, max_tokens: int, max_rows: int | None = None) -> list[Tensor]:
    """Row indices of micro-batches of at most ``max_tokens`` packed tokens (and ``max_rows`` rows).

    Groups stay together where they fit; larger ones are split, and their prompt runs once per part. A single
    row over the limit is a micro-batch of its own. Rows without a trained token are in none.
    """
    return [
        torch.tensor(sorted(members)) for _, members in _bins(_Rows(batch).groups(), max_tokens, max_rows)
    ]


def frugal_tokens(batch: TrainBatch, least: int, most: int, max_rows: int | None = None) -> int:
    """The least ``max_tokens`` that makes a batch at most 3 % longer than ``most`` does.

    Small micro-batches keep fewer activations; where they cut groups apart, prompts run more than once.
    """
    groups = _Rows(batch).groups()

    def length(max_tokens: int) -> int:
        return sum(size for size, _ in _bins(groups, max_tokens, max_rows))

    bound = 1.03 * length(most)
    sizes = range(least, most, 128)
    return next((size for size in sizes if length(size) <= bound), most)


def _bins(
    groups: dict[bytes, dict[bytes, list[int]]], max_tokens: int, max_rows: int | None
) -> list[tuple[int, list[int]]]:
    """Packed tokens and rows of each micro-batch."""
    parts: list[tuple[int, list[int]]] = []
    for prompt, completions in groups.items():
        size, part = len(prompt) // 8, list[int]()
        for completion, members in completions.items():
            cost = len(completion) // 8
            for row in members:
                if part and (size + cost > max_tokens or len(part) == max_rows):
                    parts.append((size, part))
                    size, part, cost = len(prompt) // 8, [], len(completion) // 8
                part.append(row)
                size, cost = size + cost, 0  # a row that is merged with the one before costs nothing
        parts.append((size, part))
    bins: list[tuple[int, list[int]]] = []
    for size, part in sorted(parts, key=lambda item: -item[0]):
        for number, (filled, members) in enumerate(bins):
            is_room = max_rows is None or len(members) + len(part) <= max_rows
            if filled + size <= max_tokens and is_room:
                bins[number] = (filled + size, members + part)
                break
        else:
            bins.append((size, part))
    return bins
