"""Where every row of a running batch stands: the books that the key-value caches share.

R rows (completions being sampled), P prompt slots. A row that ended gives its place to another one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 16  # tokens; rooms are whole blocks, which is what the compiled kernel wants


@dataclass(frozen=True, slots=True)
class Room:
    """How much a cache holds; token counts are rounded up to whole blocks."""

    rows: int
    prompts: int
    prompt_tokens: int  # of the longest prompt
    new_tokens: int

    @property
    def prompt_room(self) -> int:
        """Tokens per prompt slot."""
        return whole_blocks(self.prompt_tokens)

    @property
    def own_room(self) -> int:
        """Tokens per row."""
        return whole_blocks(self.new_tokens)

    @property
    def tokens(self) -> int:
        """All tokens that fit."""
        return self.rows * self.own_room + self.prompts * self.prompt_room

    def holds(self, other: Room) -> bool:
        """Whether whatever needs ``other`` fits in here."""
        return (
            self.rows >= other.rows
            and self.prompts >= other.prompts
            and self.prompt_room >= other.prompt_room
            and self.own_room >= other.own_room
        )


class RowState:
    """``slots [R]`` (the prompt that each row continues), ``lengths [R]`` (tokens that it has in the cache),
    ``prompt_lengths [P]``; int64 on the device. Rows that do not run stay at length 0."""

    def __init__(self, room: Room, device: torch.device | str) -> None:
        self.room = room
        self._rows = torch.zeros(3, room.rows, dtype=torch.int64, device=device)
        self.slots, self.lengths = self._rows[0], self._rows[1]
        self.is_running = self._rows[2]  # 0 or 1: what a step adds to a row's length
        self.prompt_lengths = torch.zeros(room.prompts, dtype=torch.int64, device=device)

    @property
    def num_rows(self) -> int:
        """Rows of the batch now, running or not."""
        return len(self.slots)

    @property
    def positions(self) -> Tensor:
        """The position ``[R]`` of each row's next token in its sequence."""
        return self.prompt_lengths[self.slots] + self.lengths

    def start(self, rows: Tensor, slot: int) -> None:
        """Let ``rows`` continue the prompt in ``slot`` from its end."""
        self.slots[rows], self.lengths[rows], self.is_running[rows] = slot, 0, 1

    def stop(self, rows: Tensor) -> None:
        """Let ``rows`` rest; they are still computed, and nobody looks."""
        self.lengths[rows], self.is_running[rows] = 0, 0

    def advance(self) -> None:
        """Count the token that a step appended to every running row."""
        self.lengths += self.is_running

    def keep(self, rows: Tensor) -> None:
        """Make the batch smaller: only ``rows`` (ascending indices) stay, in this order. In place: a captured
        graph goes on reading the same memory."""
        self._rows[:, : len(rows)] = self._rows[:, rows]
        self._view(len(rows))

    def reset(self, num_rows: int) -> None:
        """Start a new batch of ``num_rows`` rows (at most the room's), all resting."""
        self._rows.zero_()
        self._view(num_rows)

    def _view(self, num_rows: int) -> None:
        self.slots, self.lengths, self.is_running = self._rows[:, :num_rows].unbind(0)


def whole_blocks(tokens: int) -> int:
    """Round up to a multiple of ``BLOCK``."""
    return -(-tokens // BLOCK) * BLOCK
