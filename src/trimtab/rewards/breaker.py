"""A circuit breaker: a server that keeps failing is left alone for a while, so that it costs seconds."""

from __future__ import annotations

from collections.abc import Callable

LONGEST_PAUSE = 300.0  # seconds


class Breaker:
    """After ``failures`` failed requests in a row nothing is asked for ``pause_s`` seconds; then one request
    is, and either closes the breaker or opens it again for twice as long (at most 300 s).

    Example:
        >>> now = [0.0]
        >>> breaker = Breaker(1, 10.0, lambda: now[0])
        >>> breaker.failed("refused"); breaker.refusal()
        'not asked: 1 failure in a row, the last was: refused; it is asked again in 10.0 s'
    """

    def __init__(self, failures: int, pause_s: float, clock: Callable[[], float]) -> None:
        self.failures, self.first_pause, self.clock = failures, pause_s, clock
        self.count = 0  # failed requests since the last good one
        self.pause = pause_s
        self.open_until: float | None = None
        self.reason = ""

    @property
    def is_trial(self) -> bool:
        """Whether the pause is over and nothing has been asked since: the next request decides."""
        return self.open_until is not None and self.clock() >= self.open_until

    def refusal(self) -> str | None:
        """Why nothing is asked now, or None when it may be."""
        if self.open_until is None or self.is_trial:
            return None
        times = f"{self.count} failure{'s' if self.count > 1 else ''} in a row"
        left = self.open_until - self.clock()
        return f"not asked: {times}, the last was: {self.reason}; it is asked again in {left:.1f} s"

    def succeeded(self) -> None:
        """Note a good answer: everything is forgotten."""
        self.count, self.pause, self.open_until = 0, self.first_pause, None

    def failed(self, reason: str) -> None:
        """Note a failed request. One under way when the breaker opened does not prolong the pause."""
        is_trial = self.is_trial
        self.count += 1
        self.reason = reason
        if is_trial:
            self.pause = min(self.pause * 2, max(LONGEST_PAUSE, self.first_pause))
        if is_trial or (self.open_until is None and self.count >= self.failures):
            self.open_until = self.clock() + self.pause
