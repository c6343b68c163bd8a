"""Detectors of divergences: hand-computed limits, just above and just below."""

from __future__ import annotations

import math

import pytest

from trimtab.monitor import detectors


def test_kl_explosion_is_three_times_the_window_before() -> None:
    """R14: median of the last 3 above 3 · median of the 10 before, and above the floor of 0.25."""
    assert detectors.kl_explosion([0.1] * 10 + [0.30] * 3) is None  # 3 · 0.1 exactly
    alarm = detectors.kl_explosion([0.1] * 10 + [0.31] * 3)
    assert alarm is not None and alarm.evidence == {"window": 10, "baseline": 0.1}
    assert (alarm.kind, alarm.value, alarm.threshold) == ("kl_explosion", 0.31, pytest.approx(0.3))
    assert detectors.kl_explosion([0.01] * 10 + [0.24] * 3) is None  # 24 times, and still harmless
    assert detectors.kl_explosion([0.1] * 9 + [0.9] * 3) is None  # warm-up
    assert detectors.kl_explosion([0.1] * 10 + [0.9, 0.1, 0.1]) is None  # one value is no growth


def test_kl_negative_needs_a_full_window_beyond_its_noise() -> None:
    """R16, trap 1: a divergence below 0 is a measurement that went wrong; noise around 0 is not.

    By hand: −0.05 and 0.02 in turn have mean −0.015 and standard error sqrt(10 · 0.035² / 9 / 10) = 0.01167.
    """
    assert detectors.kl_negative([-0.009] * 10) is None
    assert detectors.kl_negative([-0.011] * 9) is None
    alarm = detectors.kl_negative([-0.011] * 10)
    assert alarm is not None and alarm.value == pytest.approx(-0.011) and alarm.threshold == -0.01
    assert detectors.kl_negative([-0.05, 0.02] * 5) is None  # limit −3 · 0.01167 = −0.035


def test_kl_drift_needs_a_rise_without_reward() -> None:
    """R14: the KL rises by 0.01 a step, 0.3 from the first to the last median; the reward decides."""
    rising, flat = [0.01 * step for step in range(40)], [0.5, 0.52] * 20
    alarm = detectors.kl_drift(rising, flat)
    assert alarm is not None and alarm.value == pytest.approx(0.3)
    assert alarm.evidence["slope"] == pytest.approx(0.01)
    assert detectors.kl_drift(rising, [0.5 + 0.005 * step for step in range(40)]) is None
    assert detectors.kl_drift(rising, flat, limit=0.301) is None
    assert detectors.kl_drift(rising[:39], flat[:39]) is None
    jump = [0.1] * 20 + [0.3] * 20  # risen, not rising: the interval of the slope contains 0
    assert detectors.kl_drift([0.3, 0.1] * 15 + [0.3, 0.31] * 5, flat, limit=0.05) is None
    assert detectors.kl_drift(jump, [0.5] * 20 + [0.6] * 20) is None


def test_a_reward_that_rises_slowly_is_no_drift() -> None:
    """R14: a gain of 1.5 times the noise over four windows, as in a healthy run; half the noise is none."""
    rising, noise = [0.01 * step for step in range(40)], 1.4826 / math.sqrt(2) * 0.02
    for share, is_alarm in ((1.5, False), (0.5, True)):
        trend = [share * noise * step / 30 for step in range(40)]  # between the medians lie 30 steps
        rewards = [0.5 + gain + 0.02 * (step % 2) for step, gain in enumerate(trend)]
        assert (detectors.kl_drift(rising, rewards) is not None) == is_alarm


def test_engine_mismatch_by_the_median_of_three() -> None:
    """Trap 17: sampler and learner agree at the same weights, but for rounding; either sign counts."""
    assert detectors.engine_mismatch([0.01] * 3) is None
    assert detectors.engine_mismatch([0.5, 0.001, 0.001]) is None
    assert detectors.engine_mismatch([0.011] * 2) is None
    for sign in (1, -1):
        alarm = detectors.engine_mismatch([0.0, sign * 0.011, sign * 0.011])
        assert alarm is not None and (alarm.metric, alarm.value) == ("kl/engine", 0.011)


def test_nan_in_a_series_is_no_trend() -> None:
    """R14: NaN is the business of `non_finite` alone."""
    series = [0.1] * 10 + [math.nan] * 3
    assert detectors.kl_explosion(series) is None
    assert detectors.kl_negative([-0.05] * 9 + [math.nan]) is None
    assert detectors.kl_drift([0.01 * s for s in range(39)] + [math.nan], [0.5] * 40) is None
