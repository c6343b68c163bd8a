"""The watch: warm-up, cooldown, starts, gaps in the series, exact state."""

from __future__ import annotations

import json
import math
import random

import pytest

from trimtab.config import MonitorConfig, build_recipe
from trimtab.monitor import Watch
from trimtab.monitor.watch import WATCHED
from trimtab.runs.names import METRICS


def kinds(watch: Watch, name: str, values: list[float]) -> list[str]:
    """The alarms that the values of one metric raise."""
    return [alarm.kind for value in values for alarm in watch.see({name: value})]


def step(rng: random.Random, share: float) -> dict[str, float]:
    """A step of a noisy run; ``share`` moves everything."""
    metrics = {key: rng.uniform(0.4, 0.6) + share * rng.random() for key in WATCHED.values()}
    style, accuracy = rng.random() + share, rng.random() - share
    return metrics | {
        "reward/part/style": style,
        "reward/part/accuracy": accuracy,
        "reward/mean": 0.5 * style + 0.5 * accuracy,
    }


def test_every_watched_metric_exists() -> None:
    """R17: detectors look at names that trainers log."""
    assert set(WATCHED.values()) <= set(METRICS)


def test_low_entropy_from_the_start_is_no_collapse() -> None:
    """R14, R18: arithmetic begins at 0.45 and ends at 0.35; falling to 0.2 is a collapse there, too."""
    watch = Watch()
    assert kinds(watch, "policy/entropy", [0.45] * 10 + [0.35] * 30) == []
    assert kinds(watch, "policy/entropy", [0.2] * 3) == ["entropy_collapse"]
    assert kinds(Watch(), "policy/entropy", [2.0] * 10 + [0.49] * 2) == ["entropy_collapse"]


def test_entropy_collapse_in_the_first_steps() -> None:
    """R14: the start is the median of the first 5 steps, so that a collapse at step 5 is seen."""
    assert kinds(Watch(), "policy/entropy", [2.0] * 5 + [0.3] * 2) == ["entropy_collapse"]


def test_one_alarm_of_a_kind_per_step_and_window() -> None:
    """R14: two rules see the same collapse; one alarm is raised, and the next after a window."""
    watch = Watch(MonitorConfig(window=4))
    raised = [len(watch.see({"policy/entropy": value})) for value in [2.0] * 8 + [0.1] * 10]
    assert raised == [0] * 9 + [1, 0, 0, 0, 1, 0, 0, 0, 1]


def test_gaps_and_nan_do_not_count() -> None:
    """R14: a step without the metric, or with NaN, leaves the series alone; NaN is an alarm of its own."""
    watch = Watch()
    for value in [0.1] * 10:
        assert watch.see({"kl/ref": value}) == []
        assert watch.see({"loss/total": 1.0}) == []
    assert [alarm.kind for alarm in watch.see({"kl/ref": math.nan})] == ["non_finite"]
    assert kinds(watch, "kl/ref", [0.31] * 2) == []  # 10 and 3 values are needed
    assert kinds(watch, "kl/ref", [0.31]) == ["kl_explosion"]
    assert "kl_too_high" in [alarm.kind for alarm in watch.see({"kl/ref": math.inf})]


def test_series_are_bounded() -> None:
    """R14: a long run costs what a short one does, in memory and in its checkpoint."""
    watch, rng = Watch(), random.Random(0)
    for _ in range(200):
        watch.see(step(rng, 0.0))
    state = watch.state()
    assert {len(values) for name, values in state["series"].items() if name != "reward"} == {40}
    assert {len(state["series"]["reward"]), *map(len, state["parts"].values())} == {60}


@pytest.mark.parametrize("cut", [0, 1, 7, 33, 95])
def test_state_is_exact(cut: int) -> None:
    """R14: a watch that was saved as JSON and loaded raises the same alarms and ends in the same state."""
    rng = random.Random(cut)
    steps = [step(rng, max(0.0, (index - 60) / 20)) for index in range(140)]
    whole, first = Watch(), Watch()
    expected = [whole.see(metrics) for metrics in steps]
    assert len({alarm.kind for found in expected for alarm in found}) >= 4
    for metrics in steps[:cut]:
        first.see(metrics)
    second = Watch()
    second.load_state(json.loads(json.dumps(first.state())))
    assert [second.see(metrics) for metrics in steps[cut:]] == expected[cut:]
    assert second.state() == whole.state()


def test_thresholds_come_from_the_recipe() -> None:
    """R14: `[monitor.thresholds]` moves a limit; an unknown key is refused."""
    tree = {"rl": {"data": "task:arithmetic", "rewards": ["arithmetic"]}}
    recipe = build_recipe(tree | {"monitor": {"thresholds": {"clipfrac": 0.6}}})
    assert kinds(Watch(recipe.monitor), "policy/clipfrac", [0.5] * 10) == []
    assert kinds(Watch(), "policy/clipfrac", [0.5] * 10) == ["clip_saturation"]
    with pytest.raises(Exception, match="clipfraction"):
        build_recipe(tree | {"monitor": {"thresholds": {"clipfraction": 0.6}}})


def test_components_are_compared_with_what_they_make_up() -> None:
    """R14: the parts of a reward are compared with that reward, and not with other rewards."""
    watch, rng = Watch(MonitorConfig(window=5)), random.Random(4)
    found = []
    for index in range(40):
        move = min(1.0, max(0.0, (index - 15) / 10))
        style, accuracy = 0.3 + 0.4 * move + rng.gauss(0, 0.01), 0.6 - 0.2 * move + rng.gauss(0, 0.01)
        inner, other = 0.5 * style + 0.5 * accuracy, 0.5 + rng.gauss(0, 0.2)
        metrics = {"reward/mean": inner + other, "reward/part/sales": inner, "reward/part/other": other}
        metrics |= {"reward/part/sales/style": style, "reward/part/sales/accuracy": accuracy}
        found += watch.see(metrics)
    named = {(alarm.kind, alarm.metric) for alarm in found}
    assert ("component_share", "reward/part/sales/style") in named
    assert ("component_share", "reward/part/sales") not in named


def unmoved(**changes: list[float]) -> list[tuple[int, str]]:
    """Steps and kinds of the alarms of a run of 30 steps whose policy stays where it is."""
    rng, watch = random.Random(0), Watch()
    found = []
    for number in range(30):
        metrics = {"kl/ref": 1e-5, "reward/mean": 0.5 + 0.02 * rng.gauss(0, 1), "train/learning_rate": 3e-6}
        metrics |= {name.replace("__", "/"): values[number] for name, values in changes.items()}
        found += [(number + 1, alarm.kind) for alarm in watch.see(metrics)]
    return found


def test_a_policy_that_stays_is_told_after_two_windows() -> None:
    """A.10: at step 20, again ten steps later; not while the rate warms up, nor with equal rewards."""
    assert unmoved() == [(20, "policy_unmoved"), (30, "policy_unmoved")]
    assert unmoved(train__learning_rate=[1e-7 * (n + 1) for n in range(30)]) == []
    flat = unmoved(reward__zero_variance_groups=[1.0] * 30)
    assert {kind for _, kind in flat} == {"zero_variance"}
    # PPO's groups hold one completion, so they are always equal.
    ppo = unmoved(reward__zero_variance_groups=[1.0] * 30, critic__explained_variance=[0.3] * 30)
    assert (20, "policy_unmoved") in ppo
    assert unmoved(kl__ref=[0.01 * n for n in range(30)]) == []
    assert unmoved(reward__mean=[0.02 * n for n in range(30)]) == []


def test_abstaining_is_told_in_the_first_step() -> None:
    """A.10: no window is waited for; the words of the reward are part of the message."""
    from dataclasses import replace

    (alarm,) = Watch().see({"reward/abstained": 1.0})
    assert alarm.kind == "reward_abstains"
    told = replace(alarm, detail="reward boom failed: KeyError: 'x'")
    for language in ("en", "zh"):
        assert "reward boom failed: KeyError: 'x'" in told.message(language)
    assert told.as_dict()["detail"] == "reward boom failed: KeyError: 'x'"
    assert "detail" not in alarm.as_dict()
