"""The order in which prompts are taken: seeded, reshuffled every epoch, resumable from four numbers."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from trimtab.errors import CheckpointError, DataError

T = TypeVar("T")


class PromptStream(Generic[T]):
    """An endless stream over ``items``: within an epoch every item exactly once.

    Epoch ``e`` is shuffled by ``random.Random(f"{seed}:{e}")`` of the standard library (Mersenne Twister,
    seeded through SHA-512 of the text), so the order depends on nothing but the seed and the epoch. With
    ``reshuffle=False`` the items keep the order of the data set.

    ``draw`` makes the stream refreshable: :meth:`refresh` replaces the items by ``draw(1)``, then
    ``draw(2)`` and so on, and starts a new pass over them. A generation must depend on its number alone.

    Example:
        >>> stream = PromptStream(["a", "b", "c"], seed=1)
        >>> sorted(stream.next_batch(3)), stream.epoch
        (['a', 'b', 'c'], 1)
    """

    def __init__(
        self,
        items: Sequence[T],
        seed: int,
        *,
        reshuffle: bool = True,
        draw: Callable[[int], Sequence[T]] | None = None,
    ) -> None:
        if not items:
            raise DataError("The prompt stream has no items: give a data set with at least one row.")
        self.items = items
        self.seed = seed
        self.reshuffle = reshuffle
        self.generation = 0  # how often the items were drawn again
        self._draw = draw
        self._epoch = 0
        self._position = 0
        self._order = self._shuffled(0)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def epoch(self) -> int:
        """Finished epochs: the number of times that every item has been taken."""
        return self._epoch

    def next_batch(self, n: int) -> list[T]:
        """Return the next ``n`` items; a batch goes on into the next epoch where one ends."""
        batch: list[T] = []
        while len(batch) < n:
            taken = self._order[self._position : self._position + n - len(batch)]
            batch.extend(self.items[index] for index in taken)
            self._position += len(taken)
            if self._position == len(self.items):
                self._epoch += 1
                self._position = 0
                self._order = self._shuffled(self._epoch)
        return batch

    def refresh(self) -> None:
        """Go on with newly drawn items, from the beginning of a pass.

        Raises:
            DataError: the items cannot be drawn again, or none were drawn.
        """
        self._go_to_generation(self.generation + 1)
        self._position = 0
        self._order = self._shuffled(self._epoch)

    def _go_to_generation(self, generation: int) -> None:
        if self._draw is None:
            raise DataError("The prompts of this stream cannot be drawn again: only those of a task can.")
        items = self._draw(generation)
        if not items:
            raise DataError(f"Generation {generation} of the prompts is empty.")
        self.items, self.generation = items, generation

    def state(self) -> dict[str, Any]:
        """Return the position as plain data for a checkpoint."""
        return {
            "epoch": self._epoch,
            "position": self._position,
            "seed": self.seed,
            "num_items": len(self.items),
            "reshuffle": self.reshuffle,
            "generation": self.generation,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go to a saved position.

        Raises:
            CheckpointError: the state is of other data, another seed or another order.
        """
        generation = int(state.get("generation", 0))
        if generation != self.generation and self._draw is None:
            raise CheckpointError(
                f"The checkpoint's prompts were drawn again {generation} times, which this run does not do: "
                "resume with the same rl.refresh_every."
            )
        if generation != self.generation:
            self._go_to_generation(generation)
        own = self.state()
        for key in ("num_items", "seed", "reshuffle"):
            if state.get(key) != own[key]:
                raise CheckpointError(
                    f"The checkpoint's prompt stream has {key} = {state.get(key)!r}, this run has "
                    f"{own[key]!r}: resume with the same data and seed, or start anew."
                )
        self._epoch, self._position = int(state["epoch"]), int(state["position"])
        self._order = self._shuffled(self._epoch)

    def _shuffled(self, epoch: int) -> list[int]:
        order = list(range(len(self.items)))
        if self.reshuffle:
            suffix = f":{self.generation}" if self.generation else ""
            random.Random(f"{self.seed}:{epoch}{suffix}").shuffle(order)
        return order
