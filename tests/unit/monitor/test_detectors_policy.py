"""Detectors of the policy, its updates and the machine: hand-computed limits, just above and just below."""

from __future__ import annotations

import math

import pytest

from trimtab.monitor import detectors
from trimtab.monitor.detectors import robust


def test_robust_statistics_by_hand() -> None:
    """R14: of 1, 2, 3, 4, 100 the median is 3, the distances 2, 1, 0, 1, 97 and their median 1."""
    values = [1.0, 2.0, 3.0, 4.0, 100.0]
    assert robust.median(values) == 3 and robust.median([1.0, 2.0]) == 1.5 and math.isnan(robust.median([]))
    assert robust.spread(values) == pytest.approx(1.4826)
    assert robust.noise(values) == pytest.approx(1.4826 / math.sqrt(2))  # differences 1, 1, 1, 96
    assert robust.noise([1.0]) == 0


def test_entropy_is_judged_by_the_limit_and_the_start() -> None:
    """R14: below 0.5 in a run that began at 2; below half its start in one that began at 0.45."""
    assert detectors.entropy_low([0.5] * 3, start=2.0) is None
    alarm = detectors.entropy_low([0.49] * 3, start=2.0)
    assert alarm is not None and (alarm.threshold, alarm.evidence["baseline"]) == (0.5, 2.0)
    assert detectors.entropy_low([0.23] * 3, start=0.45) is None
    alarm = detectors.entropy_low([0.22] * 3, start=0.45)
    assert alarm is not None and alarm.threshold == pytest.approx(0.225)
    assert detectors.entropy_low([0.9, 0.9, 0.1], start=2.0) is None  # one step is none
    assert detectors.entropy_low([0.1] * 2, start=2.0) is None
    assert detectors.entropy_low([0.1] * 3, start=math.nan) is None


def test_entropy_that_halves_within_a_window() -> None:
    """R14: a fast relative fall, at any level; its own noise is allowed for.

    By hand: 1 and 3 in turn step by 2, so the noise is 2 · 1.4826 / √2 = 2.1 and six of it allow anything.
    """
    assert detectors.entropy_falling([3.0] * 10 + [1.5] * 3) is None
    alarm = detectors.entropy_falling([3.0] * 10 + [1.49] * 3)
    assert alarm is not None and (alarm.value, alarm.threshold) == (1.49, 1.5)
    assert detectors.entropy_falling([3.0] * 9 + [1.0] * 3) is None
    assert detectors.entropy_falling([1.0, 3.0] * 5 + [0.9] * 3) is None


def test_entropy_explosion_needs_a_factor_and_nats() -> None:
    """R14: twice the start, and 0.3 nats more at least."""
    assert detectors.entropy_explosion([2.0] * 3, start=1.0) is None
    alarm = detectors.entropy_explosion([2.01] * 3, start=1.0)
    assert alarm is not None and (alarm.kind, alarm.threshold) == ("entropy_explosion", 2.0)
    assert detectors.entropy_explosion([0.4] * 3, start=0.1) is None
    assert detectors.entropy_explosion([0.41] * 3, start=0.1) is not None
    assert detectors.entropy_explosion([9.0] * 3, start=math.nan) is None


def test_gradient_spikes_come_in_numbers_or_are_huge() -> None:
    """R14: three of ten above 5 times the median, or one above 50 times; a lone spike is normal."""
    calm, burst = [1.0] * 10, [1.0] * 7 + [5.1] * 3
    alarm = detectors.gradient_spike(calm + burst)
    assert alarm is not None and alarm.threshold == pytest.approx(5.0)
    assert alarm.evidence == {"window": 10, "baseline": 1.0, "count": 3}
    assert detectors.gradient_spike(calm + [1.0] * 7 + [4.9] * 3) is None
    assert detectors.gradient_spike(calm + [1.0] * 8 + [5.1] * 2) is None
    assert detectors.gradient_spike(calm + [1.0] * 9 + [49.0]) is None
    assert detectors.gradient_spike(calm + [1.0] * 9 + [51.0]) is not None
    assert detectors.gradient_spike(calm + [1.0] * 6 + [5.1] * 3 + [1.0]) is None  # it is over
    assert detectors.gradient_spike(calm[:9] + burst) is None


def test_gradient_spikes_allow_for_heavy_tails() -> None:
    """R14: norms of 1 and e² in turn have log deviation 1.4826, so six allow exp(1 + 8.9) = 19,790."""
    wild = [1.0, math.e**2] * 10
    assert detectors.gradient_spike(wild + [1.0] * 7 + [10_000.0] * 3) is None
    assert detectors.gradient_spike([1.0] * 20 + [1.0] * 7 + [10_000.0] * 3) is not None


def test_critic_worse_than_a_constant_or_than_itself() -> None:
    """R8: after four windows; below −0.05, or half a unit lost and near 0."""
    assert detectors.critic_collapse([-0.05] * 40, best=-0.05) is None
    alarm = detectors.critic_collapse([-0.06] * 40, best=-0.05)
    assert alarm is not None and (alarm.value, alarm.threshold) == (-0.06, -0.05)
    assert detectors.critic_collapse([-0.06] * 39, best=-0.05) is None
    fallen = [0.6] * 20 + [0.04] * 20
    assert detectors.critic_collapse(fallen, best=0.6) is not None
    assert detectors.critic_collapse(fallen, best=0.5) is None  # lost 0.46 only
    noisy = [-0.5, 0.3] * 20  # median −0.1, spread 0.593: two errors are 0.27
    assert detectors.critic_collapse(noisy, best=0.0) is None


def test_speed_and_stall() -> None:
    """R17: half the start's speed; a step of 10 times the median and 10 s more."""
    assert detectors.throughput_rot([50.0] * 10, start=100.0) is None
    alarm = detectors.throughput_rot([49.0] * 10, start=100.0)
    assert alarm is not None and (alarm.metric, alarm.threshold) == ("speed/tokens_per_s", 50.0)
    assert detectors.throughput_rot([49.0] * 9, start=100.0) is None
    assert detectors.throughput_rot([1.0] * 10, start=math.nan) is None
    assert detectors.stall([2.0] * 10 + [20.0]) is None
    alarm = detectors.stall([2.0] * 10 + [20.1])
    assert alarm is not None and (alarm.threshold, alarm.evidence["baseline"]) == (20.0, 2.0)
    assert detectors.stall([2.0] * 9 + [99.0]) is None
    assert detectors.stall([0.1] * 10 + [9.0]) is None  # 90 times, and nobody waits for it
    assert detectors.stall([0.5] * 10 + [10.4]) is None  # 10 s more are 10.5


def test_shares_allow_for_their_noise() -> None:
    """R17: 0.3 and 0.8 in turn have mean 0.55 and standard error 0.0833: no alarm at a limit of 0.5."""
    assert detectors.zero_variance([0.3, 0.8] * 5) is None
    alarm = detectors.zero_variance([0.7, 0.8] * 5)
    assert alarm is not None and alarm.threshold == pytest.approx(0.5 + 3 * math.sqrt(0.0025 / 9))


def test_a_policy_that_has_not_moved() -> None:
    """A.10: KL never above 1e-3 and the reward within three standard errors of where it was.

    By hand: 0 and 1 in turn have mean 1/2 and variance 10/36, so the squared error of a mean of ten is 1/36,
    of a difference 1/18; three standard errors are 0.707.
    """
    flat, tiny = [0.0, 1.0] * 10, [2e-4] * 20
    alarm = detectors.policy_unmoved(tiny, flat, highest=2e-4)
    assert alarm is not None and (alarm.metric, alarm.value, alarm.threshold) == ("kl/ref", 2e-4, 1e-3)
    assert alarm.evidence["reward_gain"] == 0
    assert detectors.policy_unmoved(tiny[:19], flat[:19], highest=2e-4) is None  # two windows at least
    assert detectors.policy_unmoved(tiny, flat, highest=1.1e-3) is None  # it has moved once
    shifted = [*flat[:10], *(value + 0.70 for value in flat[10:])]
    assert detectors.policy_unmoved(tiny, shifted, highest=2e-4) is not None
    for change in (0.72, -0.72):
        shifted = [*flat[:10], *(value + change for value in flat[10:])]
        assert detectors.policy_unmoved(tiny, shifted, highest=2e-4) is None
    assert detectors.policy_unmoved(tiny, [math.nan] * 20, highest=2e-4) is None


def test_a_reward_that_abstains_alarms_at_once() -> None:
    """A.10: more than half of one step's completions, from the first step on."""
    assert detectors.reward_abstains([]) is None and detectors.reward_abstains([0.5]) is None
    alarm = detectors.reward_abstains([0.0, 0.51])
    assert alarm is not None and (alarm.kind, alarm.value, alarm.threshold) == ("reward_abstains", 0.51, 0.5)
    assert detectors.reward_abstains([1.0, 0.0]) is None  # the last step only
