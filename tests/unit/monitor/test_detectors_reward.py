"""Detectors of the reward and the completions: hand-computed limits, just above and just below."""

from __future__ import annotations

import math
import random

import pytest

from trimtab.monitor import detectors


def test_reward_far_below_its_best_window() -> None:
    """R14: the fall exceeds 5 times the noise from step to step, and a twentieth of the best.

    By hand: 0.49 and 0.51 in turn step by 0.02, so the noise is 0.02 · 1.4826 / √2 = 0.02097.
    """
    calm = [0.49, 0.51] * 10
    assert detectors.reward_below_best([*calm, 0.5], best=0.52) is None
    assert detectors.reward_below_best([*calm, 0.5], best=0.604) is None
    alarm = detectors.reward_below_best([*calm, 0.5], best=0.606)
    assert alarm is not None and alarm.threshold == pytest.approx(0.606 - 5 * 0.02097, abs=1e-4)
    assert detectors.reward_below_best(calm, best=0.9) is None  # 2 windows and one more
    assert detectors.reward_below_best([0.96] * 21, best=1.0) is None
    assert detectors.reward_below_best([0.94] * 21, best=1.0) is not None


def test_reward_saturation_against_the_start() -> None:
    """R14: the deviation of the rewards under a tenth of the first window's."""
    assert detectors.reward_saturation([0.021] * 10, start=0.2) is None
    alarm = detectors.reward_saturation([0.019] * 10, start=0.2)
    assert alarm is not None and (alarm.metric, alarm.threshold) == ("reward/std", pytest.approx(0.02))
    assert detectors.reward_saturation([0.0] * 9, start=0.2) is None
    assert detectors.reward_saturation([0.0] * 10, start=0.0) is None
    assert detectors.reward_saturation([0.0] * 10, start=math.nan) is None


def parts(style: float, accuracy: float, weight: float = 0.5) -> tuple[list[float], dict[str, list[float]]]:
    """Rewards and components over 30 steps, where the two move by so much from the first to the last ten."""
    noise = random.Random(1)
    made = {"style": [0.3 + style * min(1, max(0, (s - 9) / 10)) for s in range(30)]}
    made["accuracy"] = [0.6 + accuracy * min(1, max(0, (s - 9) / 10)) for s in range(30)]
    for values in made.values():
        values[:] = [value + noise.gauss(0, 0.01) for value in values]
    total = [0.5 * a + weight * b for a, b in zip(made["style"], made["accuracy"], strict=True)]
    return total, {f"reward/part/{name}": values for name, values in made.items()}


def test_one_component_pays_for_another() -> None:
    """R14: style gains 0.5 · 0.4 = 0.2 of a gain of 0.2, accuracy loses 0.5 · 0.2 = 0.1."""
    alarm = detectors.component_share(*parts(0.4, -0.2))
    assert alarm is not None and (alarm.metric, alarm.value) == ("reward/part/style", 1.0)
    assert alarm.evidence["rise"] == pytest.approx(0.2, abs=0.01)
    assert alarm.evidence["fall"] == pytest.approx(-0.1, abs=0.01)
    assert detectors.component_share(*parts(0.4, 0.3)) is None  # both learn
    assert detectors.component_share(*parts(0.4, 0.0)) is None  # nobody pays
    assert detectors.component_share(*parts(0.2, -0.4)) is None  # the reward does not rise


def test_the_weight_of_a_penalty_is_found_from_the_series() -> None:
    """R14: a component with weight −0.5 that falls by 0.2 is a gain of 0.1, not a victim."""
    assert detectors.component_share(*parts(0.4, -0.2, weight=-0.5)) is None


def test_components_that_do_not_make_up_the_reward() -> None:
    """R14: with gates the sum does not fit, and nothing is said."""
    total, made = parts(0.4, -0.2)
    noise = random.Random(2)
    gated = [value if noise.random() < 0.8 else 0.0 for value in total]
    assert detectors.component_share([a + b for a, b in zip(total, total, strict=True)], made) is not None
    assert detectors.component_share(gated, made) is None
    assert detectors.component_share(total[1:], {n: v[1:] for n, v in made.items()}) is None  # warm-up


def test_only_the_form_is_learnt() -> None:
    """R14, reward against format: late in a run the format alone rises; early, that is how runs begin."""
    total, made = parts(0.4, 0.0)
    named = {
        "reward/part/format": made["reward/part/style"],
        "reward/part/accuracy": made["reward/part/accuracy"],
    }
    alarm = detectors.component_share(total, named, is_late=True)
    assert alarm is not None and alarm.metric == "reward/part/format"
    assert detectors.component_share(total, named) is None
    assert detectors.component_share(total, made, is_late=True) is None  # style is not form


def test_reward_that_follows_the_length() -> None:
    """R14: growth by half, and the reward moves as the length does (ρ = 1); two bare trends do not."""
    noise = random.Random(3)
    lengths = [100 + 1.7 * step + noise.gauss(0, 5) for step in range(40)]
    alarm = detectors.reward_by_length([length / 200 for length in lengths], lengths)
    assert alarm is not None and alarm.value == pytest.approx(1.0)
    apart = [0.5 + 0.01 * step + noise.gauss(0, 0.05) for step in range(40)]
    assert detectors.reward_by_length(apart, lengths) is None
    flat = [100 + noise.gauss(0, 5) for _ in range(40)]
    assert detectors.reward_by_length([length / 200 for length in flat], flat) is None
    assert detectors.reward_by_length(lengths[:39], lengths[:39]) is None


def test_length_either_way() -> None:
    """R17: a factor of 2 within four windows, up or down."""
    assert detectors.length_drift([100.0] * 10 + [200.0] * 10) is None
    alarm = detectors.length_drift([100.0] * 10 + [201.0] * 10)
    assert alarm is not None and (alarm.value, alarm.threshold) == (201.0, 200.0)
    assert detectors.length_drift([100.0] * 10 + [50.0] * 10) is None
    alarm = detectors.length_drift([100.0] * 10 + [49.0] * 10)
    assert alarm is not None and alarm.threshold == 50.0
    assert detectors.length_drift([100.0] * 9 + [999.0] * 10) is None
    slow = [100.0 * 1.01**step for step in range(100)]  # 1.01^30 = 1.35 within four windows
    assert detectors.length_drift(slow) is None


def test_repetition_allows_for_longer_text() -> None:
    """R17: four times the tokens have about half the share of new pairs (Heaps)."""
    assert detectors.repetition([0.3] * 10, baseline=0.8, share=0.5) is not None
    assert detectors.repetition([0.3] * 10, baseline=0.8, share=0.5, growth=4.0) is None
    assert detectors.repetition([0.19] * 10, baseline=0.8, share=0.5, growth=4.0) is not None
