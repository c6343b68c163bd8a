"""Several ways to compute the same, timed in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median

OWN, PACKED, TORCH = "own", "packed", "torch"
WAYS = (OWN, PACKED, TORCH)
MARGIN = 1.05  # an own kernel must be faster by this factor: it is the one that few others have tried
STEPS = 128  # decode steps that share what is prepared once per published weights
SECONDS = 1.5  # of measuring one model, set-up included; what is running then comes to its end
_FEWEST, _MOST, _SLICE = 5, 25, 0.1  # rounds of one question, and seconds after which the fewest are enough


@dataclass(frozen=True, slots=True)
class Way:
    """``run`` computes it once; ``prepare`` is done once per published weights, such as packing them."""

    run: Callable[[], object]
    prepare: Callable[[], object] | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, and the microseconds of every way; none where nothing was measured."""

    way: str
    microseconds: dict[str, float] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """Why this way, in a few words."""
        others = {name: time for name, time in self.microseconds.items() if name != self.way}
        if not self.microseconds:
            return "not measured: no time was left"
        if not others:
            return "no other gives a row the same in every batch"
        name = min(others, key=lambda other: others[other])
        ratio = others[name] / self.microseconds[self.way]
        if ratio < 1.0:
            return f"{name} is {1 / ratio:.2f} times as fast, and must be {MARGIN}"
        return f"{ratio:.2f} times as fast as {name}"


class Budget:
    """Seconds of measuring that one model may still take; compiling the kernels is not in them."""

    def __init__(self, seconds: float = SECONDS, clock: Callable[[], float] = time.perf_counter) -> None:
        self.left, self._clock = seconds, clock

    @contextmanager
    def spending(self) -> Iterator[None]:
        """What the block takes is spent."""
        start = self._clock()
        try:
            yield
        finally:
            self.left -= self._clock() - start


def measure(
    ways: Mapping[str, Way], fallback: str, left: float = SECONDS, clock: Callable[[], float] | None = None
) -> Choice:
    """Try all in turn, at least five times; the median of each counts, with its share of the preparation.

    Where one round to warm up says that five do not fit into the seconds ``left``, the fallback serves.
    """
    clock = clock or time.perf_counter
    if len(ways) < 2:
        return Choice(fallback, {name: round(1e6 * _timed(way.run, clock), 1) for name, way in ways.items()})
    start = clock()
    for way in ways.values():
        way.run()
    if (clock() - start) * _FEWEST > left:
        return Choice(fallback)
    runs: dict[str, list[float]] = {name: [] for name in ways}
    prepares: dict[str, list[float]] = {name: [] for name in ways}
    start = clock()
    while len(runs[fallback]) < _MOST:
        if len(runs[fallback]) >= _FEWEST and clock() - start > min(_SLICE, left):
            break
        for name, way in ways.items():
            runs[name].append(_timed(way.run, clock))
            if way.prepare is not None and len(prepares[name]) < _FEWEST:
                prepares[name].append(_timed(way.prepare, clock))
    seconds = {name: median(runs[name]) + median(prepares[name] or [0.0]) / STEPS for name in ways}
    return Choice(fastest(seconds), {name: round(1e6 * taken, 1) for name, taken in seconds.items()})


def fastest(seconds: Mapping[str, float]) -> str:
    """The way with the least time; an own kernel only where it is faster by 5 %."""
    return min(seconds, key=lambda name: seconds[name] * (MARGIN if name == OWN else 1.0))


def _timed(call: Callable[[], object], clock: Callable[[], float]) -> float:
    began = clock()
    call()
    return clock() - began
