"""The health check of R18, at and around each threshold."""

from __future__ import annotations

import math

import pytest

from trimtab.config import MonitorConfig
from trimtab.monitor import RLMonitor
from trimtab.monitor.rl_monitor import build_monitor


def kinds(monitor: RLMonitor) -> list[str]:
    return [alarm.kind for alarm in monitor.alarms()]


def test_nothing_logged_is_healthy() -> None:
    """R18: the shape of the answer, before anything was logged."""
    assert RLMonitor().check_health() == {"healthy": True, "issues": []}


def test_kl_mean_of_the_last_ten() -> None:
    """R18: mean KL of the last 10 above 0.5; 0.5 itself is fine, and older values do not count."""
    monitor = RLMonitor()
    for value in [9.0] * 5 + [0.5] * 10:
        monitor.log({"kl_divergence": value})
    assert monitor.check_health()["healthy"]
    monitor.log({"kl_divergence": 0.6})  # mean 0.51
    assert kinds(monitor) == ["kl_too_high"]


def test_kl_with_fewer_than_ten_values_takes_those() -> None:
    """R18: one value of 0.6 is judged on its own."""
    monitor = RLMonitor()
    monitor.log({"kl_divergence": 0.6})
    assert kinds(monitor) == ["kl_too_high"]
    monitor.log({"kl_divergence": 0.2})  # mean 0.4
    assert kinds(monitor) == []


def test_reward_needs_more_than_twenty_values() -> None:
    """R18: 20 falling rewards say nothing yet; the 21st does."""
    monitor = RLMonitor()
    for step in range(20):
        monitor.log({"mean_reward": 1.0 - step / 100})
    assert kinds(monitor) == []
    monitor.log({"mean_reward": 0.8})
    assert kinds(monitor) == ["reward_falling"]


def test_reward_compares_the_last_ten_with_the_ten_before() -> None:
    """R18: equal means are not a fall, the smallest fall is, and a rise is not."""
    for last, expected in ((0.5, []), (0.499999, ["reward_falling"]), (0.6, [])):
        monitor = RLMonitor()
        for value in [9.0] + [0.5] * 10 + [last] * 10:
            monitor.log({"mean_reward": value})
        assert kinds(monitor) == expected


def test_last_entropy() -> None:
    """R18: only the last entropy counts; below 0.5 is too little diversity, 0.5 is not."""
    monitor = RLMonitor()
    for value, expected in ((0.49, ["entropy_collapse"]), (0.5, []), (0.1, ["entropy_collapse"])):
        monitor.log({"entropy": value})
        assert kinds(monitor) == expected


def test_both_spellings_and_missing_keys() -> None:
    """R18, R17: our names and those of R17 feed the same rules; None and absent keys are skipped."""
    monitor = RLMonitor()
    monitor.log({"kl/ref": 0.9, "policy/entropy": 0.2, "reward/mean": None, "loss/total": 1.0})
    monitor.log({})
    assert kinds(monitor) == ["kl_too_high", "entropy_collapse"]


def test_messages_in_both_languages_name_the_remedy() -> None:
    """R18: English and Chinese, each with what is wrong and a key to turn."""
    monitor = RLMonitor(language="zh")
    for _ in range(10):
        monitor.log({"kl_divergence": 1.0, "mean_reward": 1.0, "entropy": 0.1})
    for _ in range(11):
        monitor.log({"kl_divergence": 1.0, "mean_reward": 0.0, "entropy": 0.1})
    chinese, english = monitor.check_health(), monitor.check_health(language="en")
    assert not chinese["healthy"] and len(chinese["issues"]) == len(english["issues"]) == 3
    assert "KL too high" in english["issues"][0] and "raise the KL penalty" in english["issues"][0]
    assert "over-fitting" in english["issues"][1] and "Too little diversity" in english["issues"][2]
    assert "KL 散度过高" in chinese["issues"][0] and "增加 KL 惩罚" in chinese["issues"][0]
    assert "过拟合" in chinese["issues"][1] and "多样性过低" in chinese["issues"][2]
    assert all("rl." in issue for issue in chinese["issues"] + english["issues"])


def test_thresholds_are_configurable() -> None:
    """R18: limits and window come from `[monitor]`."""
    config = MonitorConfig(max_kl=0.1, min_entropy=2.0, window=2, language="zh")
    monitor = build_monitor(config)
    for reward in (1.0, 1.0, 1.0, 0.0, 0.0):
        monitor.log({"kl_divergence": 0.2, "mean_reward": reward, "entropy": 1.9})
    assert kinds(monitor) == ["kl_too_high", "reward_falling", "entropy_collapse"]
    assert monitor.language == "zh"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_not_healthy(bad: float) -> None:
    """R14: NaN passes every comparison, so it has a rule of its own."""
    monitor = RLMonitor()
    monitor.log({"kl_divergence": 0.1, "mean_reward": bad, "entropy": 2.0})
    assert kinds(monitor) == ["non_finite"]
    assert "NaN" in monitor.check_health()["issues"][0]


def test_one_nan_does_not_hide_a_high_kl() -> None:
    """R18: NaN is left out of the mean."""
    monitor = RLMonitor()
    for value in (0.9, math.nan, 0.9):
        monitor.log({"kl_divergence": value})
    assert kinds(monitor) == ["kl_too_high"]


def test_state_round_trip() -> None:
    """R18: a resumed run judges by the same history."""
    monitor, resumed = RLMonitor(), RLMonitor()
    for step in range(25):
        monitor.log({"mean_reward": -step, "kl_divergence": 0.1, "entropy": 1.0})
    resumed.load_state(monitor.state())
    assert resumed.check_health() == monitor.check_health()
    assert not resumed.check_health()["healthy"]
