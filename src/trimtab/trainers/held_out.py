"""Which rows of a supervised stage are kept apart to validate it."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from trimtab.trainers.seeds import derive_seed

T = TypeVar("T")


def split_by_prompt(
    rows: Sequence[T], prompt_of: Callable[[T], Hashable], share: float, seed: int
) -> tuple[list[T], list[T]]:
    """Shuffle and split at least two rows into (training, held out); rows of one prompt stay on one side.

    ``share`` of the prompts, at least one, is held out. A single prompt gives up its first row.
    """
    by_prompt: dict[Hashable, list[T]] = {}
    for row in rows:
        by_prompt.setdefault(prompt_of(row), []).append(row)
    prompts = list(by_prompt)
    random.Random(derive_seed(seed, "held-out")).shuffle(prompts)
    if len(prompts) == 1:
        return list(rows[1:]), list(rows[:1])
    # At least one prompt is left to train on.
    count = min(max(1, round(len(prompts) * share)), len(prompts) - 1)
    held_out = [row for prompt in prompts[:count] for row in by_prompt[prompt]]
    return [row for prompt in prompts[count:] for row in by_prompt[prompt]], held_out
