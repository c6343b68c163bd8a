"""What to do when a micro-batch does not fit into memory: the same work again, in smaller micro-batches."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from trimtab.errors import MemoryShortError

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Shrink:
    """Memory ran out over a micro-batch of so many rows and tokens; from now on they hold ``max_tokens``.

    ``key`` is the key of the recipe that sets that.
    """

    num_rows: int
    num_tokens: int
    max_tokens: int
    cause: str
    key: str = "train.max_tokens"

    def sentence(self) -> str:
        """The event as one line for a user."""
        return (
            f"out of memory in a micro-batch of {self.num_rows} rows, {self.num_tokens} tokens: from now on "
            f"at most {self.max_tokens} tokens ({self.key})"
        )


@dataclass
class Room:
    """The memory that micro-batches may take, as all models of a system have found out together.

    ``key`` and ``length_key`` are keys of the recipe for its sentences: the size of a micro-batch, and the
    length of a row.
    """

    limit: int | None = None  # tokens per micro-batch; None: nothing has gone wrong
    key: str = "train.max_tokens"
    length_key: str = "rl.max_new_tokens"
    news: list[Shrink] = field(default_factory=list)

    def shrink(self, num_rows: int, num_tokens: int, cause: str) -> None:
        """Halve what a micro-batch may hold, after one of this size did not fit.

        Raises:
            MemoryShortError: it was one row: there is nothing left to split.
        """
        known = num_tokens if self.limit is None else min(self.limit, num_tokens)
        if num_rows <= 1 or known <= 1:
            raise MemoryShortError(
                f"A single row of {num_tokens} tokens does not fit into memory ({cause}); set "
                f"model.gradient_checkpointing = true, model.dtype = bfloat16, or lower {self.length_key}."
            )
        self.limit = known // 2
        self.news.append(Shrink(num_rows, num_tokens, self.limit, cause, self.key))

    def take_limit(self, limit: int | None) -> None:
        """Take over the limit of a checkpoint; where memory has run out since, the smaller one stays."""
        known = [one for one in (self.limit, limit) if one is not None]
        self.limit = min(known, default=None)

    def take_news(self) -> list[Shrink]:
        """What happened since the last call."""
        news, self.news = self.news, []
        return news


def run_with_room(attempt: Callable[[], Found], shrink: Callable[[str], None]) -> Found:
    """Return what ``attempt`` returns; when it runs out of memory, ``shrink`` (with the cause) and try again.

    ``attempt`` starts from the beginning each time: what a failed one has left must not count.
    """
    while True:
        cause = ""
        try:
            return attempt()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            cause = " ".join(str(error).split())[:200] or type(error).__name__
        # Here, outside the handler, the frames that held the activations are gone.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        shrink(cause)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out: Python's, torch's on an accelerator, or on a CPU.

    Example:
        >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."))
        True
    """
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error) and "memory" in str(error)
