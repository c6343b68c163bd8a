"""Drawing problems of a procedural task: seeded, without repeats, each problem in one split for good."""

from __future__ import annotations

import random
from collections.abc import Callable
from hashlib import sha256
from typing import Protocol, TypeVar

from trimtab.errors import DataError, nearest

HIDDEN_SHARE = 5  # one problem in five is hidden
_MAX_MISSES = 2000  # draws in a row that bring nothing new: the problems are used up
LANGUAGES = ("zh", "en")


class HasKey(Protocol):
    """A problem; problems with the same content have the same key, whatever their wording."""

    @property
    def key(self) -> str:
        """What the problem is, without its wording and language."""
        ...


P = TypeVar("P", bound=HasKey)


def is_hidden_key(key: str, share: int = HIDDEN_SHARE) -> bool:
    """Whether a problem belongs to the hidden split: its content decides, not a seed.

    Example:
        >>> is_hidden_key("multiply:7"), is_hidden_key("multiply:8")
        (False, False)
    """
    return int.from_bytes(sha256(key.encode()).digest()[:4], "big") % share == 0


def draw_problems(
    name: str, make: Callable[[random.Random], P], split: str, count: int, seed: int
) -> list[P]:
    """Return ``count`` problems of a split, in random order.

    None comes twice before all came; then the train split starts over, and of the hidden one there are no
    more. ``make`` draws a problem of either split.

    Raises:
        DataError: an unknown split, or a split without any problem.
    """
    check_split(name, split)
    rng = random.Random(f"{name}:{split}:{seed}")
    chosen: list[P] = []
    while len(chosen) < count:
        found = _without_repeats(make, split, count - len(chosen), rng)
        if not found and not chosen:
            raise DataError(f"task:{name} has no {split} problem with these options: widen them.")
        chosen += found
        if split == "hidden":
            break
    return chosen


def _without_repeats(
    make: Callable[[random.Random], P], split: str, count: int, rng: random.Random
) -> list[P]:
    """As many different problems of a split as there are, ``count`` at most."""
    found: dict[str, P] = {}
    misses = 0
    while len(found) < count and misses < _MAX_MISSES:
        problem = make(rng)
        if problem.key in found or is_hidden_key(problem.key) != (split == "hidden"):
            misses += 1
        else:
            found[problem.key], misses = problem, 0
    return list(found.values())


def check_split(name: str, split: str) -> None:
    """Raise a DataError where ``split`` is neither train nor hidden."""
    if split not in ("train", "hidden"):
        raise DataError(f"task:{name} has no split {split!r} (known: hidden, train).")


def check_choice(name: str, option: str, value: object, known: tuple[object, ...]) -> None:
    """Raise a DataError where an option has none of its values; the nearest one is told."""
    if value not in known:
        hint = nearest(str(value), [str(item) for item in known])
        raise DataError(f"task:{name}: {option} = {value!r} is not known{hint}.")
