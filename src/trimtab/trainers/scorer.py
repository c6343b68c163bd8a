"""What the reward models share: the model with its optimizer, micro-batches that fit, and what is saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from torch import nn

from trimtab.config import ProcessRewardConfig, RewardModelConfig
from trimtab.data import PromptStream
from trimtab.distributed.room import Room, run_with_room
from trimtab.models.finite import FiniteCheck
from trimtab.models.lora import load_trainable_state, trainable_state
from trimtab.models.optim import MasterAdamW
from trimtab.runs.faults import reach
from trimtab.trainers.stage import Stage
from trimtab.trainers.update import StepSettings, guarded_optimizer_step

Row = TypeVar("Row")
Found = TypeVar("Found")


class Scorer:
    """A model that scores, its optimizer, and the memory that its micro-batches may take.

    ``table`` is the recipe's table of its settings, for messages.
    """

    def __init__(self, model: nn.Module, config: RewardModelConfig | ProcessRewardConfig, table: str) -> None:
        self.model, self.config = model, config
        parameters = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.optimizer = MasterAdamW(
            parameters, learning_rate=config.learning_rate, weight_decay=config.weight_decay
        )
        self.finite = FiniteCheck(model, self.optimizer)
        self.room = room_of(table)

    def backward(
        self, rows: Sequence[Row], num_tokens: Callable[[Row], int], step: Callable[[Sequence[Row]], Found]
    ) -> list[Found]:
        """Call ``step``, which accumulates gradients, on micro-batches of ``rows``, the longest rows first.

        When memory runs out, the rows start again in smaller ones, with no gradients.

        Raises:
            MemoryShortError: not even one row fits.
        """

        def one(micro: Sequence[Row]) -> Found:
            found = step(micro)
            reach("mid_backward")
            return found

        ordered = sorted(rows, key=lambda row: -num_tokens(row))
        size = self.config.microbatch_size
        return in_microbatches(ordered, num_tokens, one, size, self.room, self.optimizer.zero_grad)

    def step(self, loss: float, stage: Stage, settings: StepSettings) -> float:
        """One optimizer step behind the guard; return the gradients' norm before clipping.

        Raises:
            DivergedError: the guard says stop.
        """
        stage.tell_memory(settings.step, self.room.take_news())
        return guarded_optimizer_step(self.optimizer, self.finite, loss, stage, settings)

    def state(self) -> dict[str, Any]:
        """Trained parameters, optimizer, and the tokens that micro-batches may hold."""
        return {
            "model": trainable_state(self.model),
            "optimizer": self.optimizer.state_dict(),
            "room": self.room.limit,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state`` returned."""
        load_trainable_state(self.model, state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.room.take_limit(state.get("room"))


def restore(stage: Stage, stream: PromptStream[Any], scorer: Scorer) -> int:
    """Take over the newest checkpoint when the run is resumed; return the step to start with."""
    if (state := stage.restore()) is None:
        return 0
    stream.load_state(state["stream"])
    scorer.load_state(state)
    return int(state["step"])


def room_of(table: str) -> Room:
    """Unlimited room for the rows of a table of the recipe, ``reward_model`` or ``process_reward``."""
    return Room(key=f"{table}.microbatch_size", length_key=f"{table}.max_length")


def in_microbatches(
    rows: Sequence[Row],
    num_tokens: Callable[[Row], int],
    step: Callable[[Sequence[Row]], Found],
    size: int,
    room: Room,
    clear: Callable[[], None] = lambda: None,
) -> list[Found]:
    """What ``step`` returns for each micro-batch of ``rows``, in order: at most ``size``, within ``room``.

    A micro-batch counts as its longest row times its rows, since rows are padded. When memory runs out, all
    of it starts again with smaller ones after ``clear``.
    """
    running: Sequence[Row] = ()

    def attempt() -> list[Found]:
        nonlocal running
        found = []
        for running in _split(rows, num_tokens, size, room.limit):
            found.append(step(running))
        return found

    def shrink(cause: str) -> None:
        clear()
        room.shrink(len(running), len(running) * max(map(num_tokens, running)), cause)

    return run_with_room(attempt, shrink)


def _split(
    rows: Sequence[Row], num_tokens: Callable[[Row], int], size: int, limit: int | None
) -> Iterator[Sequence[Row]]:
    """Runs of ``rows`` in order, as long as ``size`` and ``limit`` allow; never empty."""
    first, longest = 0, 0
    for place, row in enumerate(rows):
        longest = max(longest, num_tokens(row))
        count = place - first + 1
        if place > first and (count > size or (limit is not None and count * longest > limit)):
            yield rows[first:place]
            first, longest = place, num_tokens(row)
    if rows:
        yield rows[first:]
