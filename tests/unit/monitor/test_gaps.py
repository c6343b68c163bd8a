"""Training against hidden: the two gaps, their noise, and what the alarms carry."""

from __future__ import annotations

import json
import math
import random

import pytest

from trimtab.config import MonitorConfig
from trimtab.monitor import GapTracker, Guard, Measure, detectors

FLAT = [0.5, 0.5, 0.5, 0.5]


def test_measures_by_hand() -> None:
    """R21: 0, 1, 1, 0: deviation sqrt(1/3), error that over 2; a rate of 4 of 4 has the error of 5 of 6."""
    measure = Measure.of([0.0, 1.0, 1.0, 0.0])
    assert (measure.mean, measure.count) == (0.5, 4)
    assert measure.spread == pytest.approx(math.sqrt(1 / 3))
    assert measure.error == measure.rate_error == pytest.approx(math.sqrt(1 / 3) / 2)
    certain = Measure.of([1.0] * 4)
    assert certain.error == 0
    assert certain.rate_error == pytest.approx(math.sqrt(5 / 6 * 1 / 6 / 4))
    assert math.isnan(Measure.of([]).mean)


def test_hidden_gap_by_hand() -> None:
    """R21: a gap of 0.4 after one of 0.0, errors 0.05 each: 3 · 0.05 = 0.15 is its limit, 0.4 is above."""
    train, errors = [0.5, 0.5, 0.9, 0.9], [0.05] * 4
    alarm = detectors.hidden_gap(train, FLAT, errors)
    assert alarm is not None and alarm.kind == "hidden_gap"
    assert (alarm.value, alarm.threshold) == (pytest.approx(0.4), pytest.approx(0.15))
    assert alarm.evidence == pytest.approx(
        {"train": 0.9, "hidden": 0.5, "train_before": 0.5, "hidden_before": 0.5, "trend": 0.2, "error": 0.05}
    )
    assert "train 0.9" in alarm.message() and "hidden 0.5" in alarm.message("zh")


def test_hidden_gap_stays_quiet() -> None:
    """R21: both rise; the gap is within its noise or limit; training does not rise; too few evaluations."""
    train, errors = [0.5, 0.5, 0.9, 0.9], [0.05] * 4
    assert detectors.hidden_gap(train, train, errors) is None
    assert detectors.hidden_gap(train, FLAT, [0.14] * 4) is None
    assert detectors.hidden_gap(train, FLAT, errors, limit=0.41) is None
    assert detectors.hidden_gap(FLAT, [0.5, 0.5, 0.1, 0.1], errors) is None
    assert detectors.hidden_gap(train[1:], FLAT[1:], errors[1:]) is None
    # A gap that was there from the start does not widen.
    assert detectors.hidden_gap([0.8, 0.8, 0.9, 0.9], [0.4, 0.4, 0.5, 0.5], errors) is None


def series(*means: float, error: float = 0.1) -> list[tuple[float, float]]:
    return [(mean, error) for mean in means]


def test_quality_gap_by_hand() -> None:
    """R20, R21: reward +2, judge −1 standard deviations; errors of 0.1 give 3 · 0.1 = 0.3 for both."""
    alarm = detectors.quality_gap(series(0, 0, 2, 2), series(0, 0, -1, -1))
    assert alarm is not None and (alarm.kind, alarm.metric) == ("quality_gap", "eval/judge")
    assert (alarm.value, alarm.threshold) == (-1, pytest.approx(-0.3))
    assert alarm.evidence["gap"] == 3 and alarm.evidence["trained_rise"] == 2
    up_then_down = detectors.quality_gap(series(0, 0, 1, 1, 2, 2), series(0, 0, 1, 1, 0.1, 0.1))
    assert up_then_down is not None and up_then_down.value == pytest.approx(-0.9)


def test_quality_gap_stays_quiet() -> None:
    """R21: both rise; both fall; the judge holds; the fall is within its noise; too few evaluations."""
    up, down = series(0, 0, 2, 2), series(0, 0, -1, -1)
    assert detectors.quality_gap(up, up) is None
    assert detectors.quality_gap(down, down) is None
    assert detectors.quality_gap(up, series(0, 0, 0, 0)) is None
    assert detectors.quality_gap(up, series(0, 0, -1, -1, error=0.34)) is None
    assert detectors.quality_gap(up, down, limit=1.1) is None
    assert detectors.quality_gap(up[1:], down[1:]) is None


def evaluation(reward: float, judge: float, passed: float = 0.5) -> dict[str, Measure]:
    return {
        "eval/reward": Measure(reward, 0.2, 64),
        "eval/judge": Measure(judge, 0.1, 64),
        "eval/pass_rate": Measure(passed, 0.5, 64),
    }


def test_the_tracker_normalises_and_alarms() -> None:
    """R21: in deviations of the first window: reward +0.4/0.2 = 2, judge −0.2/0.1 = −2, so a gap of 4."""
    guard = Guard()
    raised = []
    for reward, judge in ((0.4, 0.6), (0.4, 0.6), (0.8, 0.4), (0.8, 0.4), (0.8, 0.4)):
        guard.gaps.observe([0.5, 0.5])
        figures, alarms = guard.after_evaluation(evaluation(reward, judge))
        raised.append([alarm.kind for alarm in alarms])
    assert figures["eval/quality_gap/judge"] == pytest.approx(4.0)
    assert figures["train/pass_rate"] == 0.5 and figures["eval/gap"] == 0.0
    assert raised == [[], [], [], ["quality_gap"], []]  # once, until the window of steps has passed


def test_training_prompts_since_the_last_evaluation_only() -> None:
    """R21: the training rate is that of the recent steps; without steps there is no gap."""
    tracker = GapTracker()
    tracker.observe([1.0, 1.0])
    tracker.observe([0.0])
    assert tracker.evaluate(evaluation(0, 0))[0]["train/pass_rate"] == pytest.approx(2 / 3)
    tracker.observe([0.0])
    assert tracker.evaluate(evaluation(0, 0))[0]["train/pass_rate"] == 0.0
    assert "eval/gap" not in tracker.evaluate(evaluation(0, 0))[0]


def test_state_round_trip() -> None:
    """Runs: a resumed guard raises the same alarm with the same figures."""
    before = Guard()
    for reward, judge in ((0.4, 0.6), (0.4, 0.6), (0.8, 0.4)):
        before.after_evaluation(evaluation(reward, judge))
    before.gaps.observe([1.0, 0.5])
    after = Guard()
    after.load_state(json.loads(json.dumps(before.state())))
    last = evaluation(0.8, 0.4)
    assert after.after_evaluation(last) == before.after_evaluation(last)


@pytest.mark.parametrize("drift", [0.0, 0.02])
def test_noise_rarely_alarms(drift: float) -> None:
    """R21: 100 runs of 20 evaluations on 32 prompts, nothing amiss, learning or not: at most 3 alarm."""
    rng = random.Random(1)
    alarms = 0
    for _ in range(100):
        tracker, found = GapTracker(MonitorConfig()), 0
        talents = [rng.betavariate(2, 2) for _ in range(32)]
        for number in range(20):
            up = drift * number
            tracker.observe([min(1.0, rng.betavariate(2, 2) + up) for _ in range(40)])
            measures = {
                "eval/pass_rate": Measure.of([float(rng.random() < min(1.0, t + up)) for t in talents]),
                "eval/reward": Measure.of([rng.gauss(t + up, 0.2) for t in talents]),
                "eval/judge": Measure.of([rng.gauss(t, 0.2) for t in talents]),
            }
            found += len(tracker.evaluate(measures)[1])
        alarms += found > 0
    assert alarms <= 3


def test_many_evaluations_ask_for_more_errors() -> None:
    """R21: at the n-th evaluation z² = 9 + 2·ln(n / 4); by hand 3 at the 4th, 3.79 at the 44th.

    The error of a gap of means of two with 0.1 each is 0.1 (0.0707 at either end), so 0.35 is enough at
    first and not later.
    """
    for count, is_raised in ((4, True), (44, False)):
        train = [0.5] * (count - 2) + [0.85] * 2
        alarm = detectors.hidden_gap(train, [0.5] * count, [0.1] * count)
        assert (alarm is not None) is is_raised
