from __future__ import annotations

from trimtab.rewards.breaker import LONGEST_PAUSE, Breaker


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_it_opens_after_failures_in_a_row_and_asks_again_after_the_pause() -> None:
    """R31: a dead server is left alone; a good answer in between starts the count anew."""
    clock = Clock()
    breaker = Breaker(2, 10.0, clock)
    breaker.failed("a")
    breaker.succeeded()
    breaker.failed("b")
    assert breaker.refusal() is None
    breaker.failed("c")
    assert breaker.refusal() == "not asked: 2 failures in a row, the last was: c; it is asked again in 10.0 s"
    clock.now = 9.5
    assert "in 0.5 s" in str(breaker.refusal()) and not breaker.is_trial
    clock.now = 10.0
    assert breaker.refusal() is None and breaker.is_trial
    breaker.succeeded()
    assert breaker.refusal() is None and not breaker.is_trial
    breaker.failed("d")
    assert breaker.refusal() is None


def test_a_failed_trial_doubles_the_pause_up_to_a_bound() -> None:
    """R31: the longer a server is dead, the less often it costs time; one good answer resets that."""
    clock = Clock()
    breaker = Breaker(1, 10.0, clock)
    breaker.failed("a")
    pauses = []
    for _ in range(7):
        assert breaker.open_until is not None
        clock.now = breaker.open_until
        breaker.failed("a")
        pauses.append(breaker.open_until - clock.now)
    assert pauses == [20.0, 40.0, 80.0, 160.0, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]
    clock.now = breaker.open_until or 0.0
    breaker.succeeded()
    breaker.failed("a")
    assert breaker.open_until == clock.now + 10.0


def test_failures_under_way_do_not_prolong_the_pause() -> None:
    """R31: requests that were sent before it opened may fail after it."""
    clock = Clock()
    breaker = Breaker(1, 10.0, clock)
    breaker.failed("a")
    clock.now = 5.0
    breaker.failed("b")
    assert breaker.open_until == 10.0 and breaker.count == 2
