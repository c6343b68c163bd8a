"""The guard: what is kept from the weights, when a run is stopped, when an alarm is raised."""

from __future__ import annotations

import json
import math

import pytest

from trimtab.config import MonitorConfig
from trimtab.errors import ConfigError
from trimtab.monitor import Guard

GOOD = {"loss/total": 0.1, "train/grad_norm": 1.0}
BAD = {"loss/total": math.nan, "train/grad_norm": 1.0}


def test_finite_numbers_proceed() -> None:
    """R14: an ordinary update goes through without a reason."""
    decision = Guard().before_update(GOOD)
    assert (decision.verdict, decision.reason) == ("proceed", "")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["loss/total", "train/grad_norm", "logprob"])
def test_non_finite_is_skipped_by_name(name: str, bad: float) -> None:
    """R14: a loss, gradient or log-probability that is not finite is kept out, and named."""
    decision = Guard().before_update({**GOOD, name: bad})
    assert decision.verdict == "skip_update"
    assert f"{name} is {bad}" in decision.reason


def test_stop_after_too_many_skips_in_a_row() -> None:
    """R14: three skips by default, the fourth stops; a good update in between starts the count again."""
    guard = Guard()
    assert [guard.before_update(BAD).verdict for _ in range(3)] == ["skip_update"] * 3
    assert guard.before_update(GOOD).verdict == "proceed"
    verdicts = [guard.before_update(BAD).verdict for _ in range(4)]
    assert verdicts == ["skip_update"] * 3 + ["stop"]
    assert Guard(max_skips=0).before_update(BAD).verdict == "stop"


def test_alarms_warn_once_per_window() -> None:
    """R14: a persisting alarm is raised when it starts and again after a window, not at every step."""
    guard = Guard(config=MonitorConfig(window=3))
    raised = [[alarm.kind for alarm in guard.after_log({"kl/ref": 2.0})] for _ in range(7)]
    assert raised == [["kl_too_high"], [], [], ["kl_too_high"], [], [], ["kl_too_high"]]


def test_alarms_only_of_metrics_that_were_logged() -> None:
    """R14: a step without a metric does not repeat that metric's old alarm."""
    guard = Guard(config=MonitorConfig(window=1))
    assert guard.after_log({"policy/entropy": 2.0}) == []
    assert guard.after_log({"policy/entropy": 0.1})
    assert guard.after_log({"loss/total": 1.0}) == []


def test_every_watched_failure_is_raised() -> None:
    """R14, R17: KL, entropy, hacking, truncation, zero variance, clipping and repetition."""
    guard = Guard(config=MonitorConfig(window=2))
    good = {
        "kl/ref": 0.1,
        "reward/mean": 0.3,
        "policy/entropy": 2.0,
        "completions/truncated": 0.0,
        "reward/zero_variance_groups": 0.0,
        "policy/clipfrac": 0.1,
        "completions/distinct_2": 0.8,
    }
    for _ in range(4):
        assert guard.after_log(good) == []
    bad = {
        "kl/ref": 3.0,
        "reward/mean": 0.9,
        "policy/entropy": 0.1,
        "completions/truncated": 1.0,
        "reward/zero_variance_groups": 1.0,
        "policy/clipfrac": 0.9,
        "completions/distinct_2": 0.1,
    }
    seen = {alarm.kind for _ in range(2) for alarm in guard.after_log(bad)}
    assert seen == {
        "kl_too_high",
        "kl_explosion",
        "entropy_collapse",
        "reward_hacking",
        "truncation",
        "zero_variance",
        "clip_saturation",
        "repetition",
    }


def test_falling_reward_and_nan_are_raised() -> None:
    """R14, R18: a clear fall of the reward, and a metric that is NaN."""
    guard = Guard(config=MonitorConfig(window=2))
    kinds = [a.kind for r in (1.0, 1.0, 1.0, 0.1, 0.1) for a in guard.after_log({"reward/mean": r})]
    assert kinds == ["reward_falling"]
    assert [a.kind for a in guard.after_log({"loss/total": math.nan})] == ["non_finite"]


def test_state_round_trip_through_json() -> None:
    """R14: a resumed guard counts skips and alarms as the first one would have."""
    guard = Guard(config=MonitorConfig(window=3))
    for step in range(5):
        guard.before_update(BAD if step > 2 else GOOD)
        guard.after_log({"kl/ref": 2.0, "completions/distinct_2": 0.9, "reward/mean": step})
    resumed = Guard(config=MonitorConfig(window=3))
    resumed.load_state(json.loads(json.dumps(guard.state())))
    for _ in range(6):
        metrics = {"kl/ref": 2.0, "completions/distinct_2": 0.1, "reward/mean": 9.0}
        assert resumed.after_log(metrics) == guard.after_log(metrics)
        assert resumed.before_update(BAD) == guard.before_update(BAD)


def test_unknown_mode() -> None:
    """R14: a mode that does not exist is refused by name."""
    with pytest.raises(ConfigError, match="'bold' is unknown"):
        Guard("bold")
