"""The learn seam. Whatever trains hides behind ``Learner``: this process, or workers elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from trimtab.distributed.room import Shrink
from trimtab.models.finite import FiniteCheck
from trimtab.types import TrainBatch


@dataclass(frozen=True, slots=True)
class Scores:
    """What a model says of a micro-batch; token-level tensors ``[B, T]`` aligned to ``token_ids``."""

    logprobs: Tensor | None = None
    entropy: Tensor | None = None
    values: Tensor | None = None


class Objective(Protocol):
    """A loss over one micro-batch, and its share of the metrics.

    Both are divided by denominators of the whole mini-batch, so that shares add up however it is split.
    """

    def __call__(self, scores: Scores, batch: TrainBatch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the scalar loss share and scalar metric shares."""
        ...

    @property
    def is_token_level(self) -> bool:
        """Whether the loss is a sum over tokens, each by its own scores: tokens may come in any order."""
        ...

    def active_rows(self, batch: TrainBatch) -> Tensor:
        """Which rows may have a gradient, ``[B]`` bool; the others have exactly none."""
        ...

    def for_metrics_of(self, batch: TrainBatch) -> Objective:
        """The same loss, with metrics counted over ``batch``: the rows that run of the mini-batch."""
        ...


class Learner(Protocol):
    """A model under training; ``finite`` tells whether its weights and moments are numbers."""

    @property
    def finite(self) -> FiniteCheck:
        """What knows the weights and the optimizer's state."""
        ...

    def logprobs(self, batch: TrainBatch) -> Tensor:
        """Log-probabilities ``[B, T]`` of the completion tokens, without gradient."""
        ...

    def values(self, batch: TrainBatch) -> Tensor:
        """The critic's values ``[B, T]``, without gradient."""
        ...

    @property
    def is_untrained(self) -> bool:
        """Whether it has made no optimizer step yet."""
        ...

    def level_values(self, by: float) -> None:
        """Add ``by`` to every value from now on."""
        ...

    def forward_backward(self, batch: TrainBatch, objective: Objective) -> dict[str, float]:
        """Accumulate the gradients of ``objective`` over a mini-batch; return its metrics."""
        ...

    def clip_gradients(self, max_norm: float) -> float:
        """Scale the gradients to ``max_norm`` at most; return the norm before that."""
        ...

    def optimizer_step(self, learning_rate: float) -> None:
        """Apply the gradients and clear them."""
        ...

    def discard_gradients(self) -> None:
        """Clear the gradients without applying them."""
        ...

    def take_news(self) -> list[Shrink]:
        """Where memory ran out since the last call."""
        ...

    def set_temperature(self, temperature: float) -> None:
        """Divide the logits by this from now on, in every pass."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything that training needs to go on: parameters and optimizer."""
        ...

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state`` returned."""
        ...
