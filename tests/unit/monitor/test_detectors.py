"""Detectors: each fires where it should and stays quiet where it should."""

from __future__ import annotations

import math
import re
from typing import get_args

import pytest

from trimtab.config import ModelConfig, RLConfig
from trimtab.monitor import SIGNALS, Alarm, AlarmKind, detectors


def test_non_finite_names_the_metric() -> None:
    """R14: numerical crash; the alarm says which number."""
    alarm = detectors.non_finite({"loss/total": 1.0, "train/grad_norm": math.inf})
    assert alarm == Alarm("non_finite", "train/grad_norm", math.inf, math.inf)
    assert detectors.non_finite({"loss/total": 1.0}) is None


def test_kl_explosion() -> None:
    """R14: KL explosion; an infinite KL counts too."""
    assert detectors.kl_too_high([0.5] * 10) is None
    alarm = detectors.kl_too_high([0.0] * 5 + [0.7] * 10)
    assert alarm is not None and alarm.value == pytest.approx(0.7) and alarm.threshold == 0.5
    assert detectors.kl_too_high([0.1, math.inf]) is not None
    assert detectors.kl_too_high([]) is None


def test_entropy_collapse() -> None:
    """R14: entropy collapse by the last value."""
    assert detectors.entropy_collapse([2.0, 0.4]) is not None
    assert detectors.entropy_collapse([0.4, 2.0]) is None
    assert detectors.entropy_collapse([]) is None


def test_reward_hacking_needs_both_trends() -> None:
    """R14: reward hacking is reward up and quality down by more than a tenth; one alone is not."""
    up, flat = [0.2] * 10 + [0.6] * 10, [0.4] * 20
    quality_down, quality_dip = [0.9] * 10 + [0.6] * 10, [0.9] * 10 + [0.85] * 10
    alarm = detectors.reward_hacking(up, quality_down)
    assert alarm is not None and alarm.value == pytest.approx(0.6) and alarm.threshold == pytest.approx(0.81)
    assert detectors.reward_hacking(flat, quality_down) is None
    assert detectors.reward_hacking(up, quality_dip) is None
    assert detectors.reward_hacking(up[:19], quality_down[:19]) is None


def test_reward_falling_with_a_margin_for_noise() -> None:
    """R18: exact by default; with `num_errors` a fall within the noise is none.

    By hand: 0, 1 alternating has variance 10 · 0.25 / 9 = 0.2778, so the error of the difference of two means
    of ten is sqrt(2 · 0.02778) = 0.2357; a fall of 0.1 is within two of them, one of 0.6 is not.
    """
    before = [0.0, 1.0] * 5
    small, large = [value - 0.1 for value in before], [value - 0.6 for value in before]
    assert detectors.reward_falling([0.0, *before, *small]) is not None
    assert detectors.reward_falling([0.0, *before, *small], num_errors=2) is None
    alarm = detectors.reward_falling([0.0, *before, *large], num_errors=2)
    assert alarm is not None and alarm.threshold == pytest.approx(0.5 - 2 * 0.2357, abs=1e-4)


@pytest.mark.parametrize(
    ("detector", "limit"),
    [(detectors.truncation, 0.5), (detectors.zero_variance, 0.5), (detectors.clip_saturation, 0.3)],
)
def test_shares_over_a_full_window(detector: object, limit: float) -> None:
    """R17: truncation, groups without variance and clipfrac (healthy < 0.3), by a full window's mean."""
    assert callable(detector)
    assert detector([limit] * 10) is None
    assert detector([1.0] * 9) is None
    assert detector([0.0] * 10 + [limit + 0.01] * 10) is not None


def test_repetition_against_the_first_window() -> None:
    """R17, R20: distinct_2 under 0.7 of the start."""
    assert detectors.repetition([0.56] * 10, baseline=0.8) is None
    alarm = detectors.repetition([0.55] * 10, baseline=0.8)
    assert alarm is not None and alarm.threshold == pytest.approx(0.56)
    assert detectors.repetition([0.1] * 9, baseline=0.8) is None
    assert detectors.repetition([0.1] * 10, baseline=math.nan) is None


def test_every_alarm_is_explained_in_both_languages() -> None:
    """R14, R18: symptom, cause and remedy, in English and Chinese, for every kind."""
    assert set(SIGNALS) == set(get_args(AlarmKind))
    for texts in SIGNALS.values():
        assert set(texts) == {"en", "zh"}
        for text in texts.values():
            assert text.symptom and text.cause and text.remedy
        assert re.search("[\u4e00-\u9fff]", texts["zh"].symptom)
        assert not re.search("[\u4e00-\u9fff]", texts["en"].symptom + texts["en"].cause + texts["en"].remedy)


def test_every_remedy_is_a_switch_of_the_recipe() -> None:
    """R14: each key that a remedy names exists in the recipe, and both languages name the same keys."""
    for kind, texts in SIGNALS.items():
        named = {
            language: set(re.findall(r"(?:rl|model)(?:\.[a-z_]+)+", t.remedy))
            for language, t in texts.items()
        }
        assert named["en"], kind
        assert named["zh"] <= named["en"] or named["en"] <= named["zh"], kind
        for key in named["en"] | named["zh"]:
            section: object = {"rl": RLConfig, "model": ModelConfig}[key.split(".")[0]]
            for part in key.split(".")[1:]:
                fields = section.model_fields  # type: ignore[attr-defined]
                assert part in fields, f"{kind} names {key}, which no recipe has"
                section = fields[part].annotation


def test_alarm_as_data() -> None:
    """R14: the event of an alarm holds its figures and its message in both languages."""
    data = Alarm("kl_too_high", "kl/ref", 0.75, 0.5).as_dict()
    assert (data["kind"], data["metric"], data["value"], data["threshold"]) == (
        "kl_too_high",
        "kl/ref",
        0.75,
        0.5,
    )
    assert "kl/ref = 0.75, limit 0.5" in data["message"]["en"]
    assert "kl/ref = 0.75, 界限 0.5" in data["message"]["zh"]
