"""KL controllers against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from trimtab.config import KLConfig
from trimtab.errors import ConfigError
from trimtab.monitor import (
    AdaptiveKLController,
    BoundedKLController,
    ClippedKLController,
    FixedKLController,
    KLController,
    build_kl_controller,
    controlled_metric,
)


def test_adaptive_defaults_and_first_update() -> None:
    """R15: defaults 0.001, 0.1, 10000; KL twice the target gives 0.001 · (1 + 1/10000)."""
    controller = AdaptiveKLController()
    assert (controller.kl_coef, controller.target_kl, controller.horizon) == (0.001, 0.1, 10_000)
    assert controller.update(0.2) == pytest.approx(0.0010001, rel=1e-12)
    assert controller.kl_coef == pytest.approx(0.0010001, rel=1e-12)


def test_adaptive_sequence_by_hand() -> None:
    """R15: horizon 10, target 0.1: ×(1 + 4/10) at KL 0.5, unchanged at 0.1, ×(1 − 1/10) at 0."""
    controller = AdaptiveKLController(init_kl_coef=0.01, target_kl=0.1, horizon=10)
    assert controller.update(0.5) == pytest.approx(0.014)
    assert controller.update(0.1) == pytest.approx(0.014)
    assert controller.update(0.0) == pytest.approx(0.0126)


def test_adaptive_is_not_clipped_and_ignores_the_batch() -> None:
    """R15: an error of 99 counts in full, whatever the number of samples."""
    controller = AdaptiveKLController(init_kl_coef=0.01, target_kl=0.1, horizon=100)
    assert controller.update(10.0, num_samples=64) == pytest.approx(0.0199)


def test_adaptive_floor() -> None:
    """R15: the coefficient never goes under 1e-4, even for a negative KL estimate."""
    controller = AdaptiveKLController(init_kl_coef=1.05e-4, target_kl=0.1, horizon=10)
    assert controller.update(0.0) == 1e-4
    assert controller.update(-50.0) == 1e-4
    assert AdaptiveKLController(init_kl_coef=0.0).update(0.0) == 1e-4


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_kl_changes_nothing(bad: float) -> None:
    """R15, R14: a KL that is NaN or infinite leaves every controller where it was."""
    for controller in (AdaptiveKLController(0.01), ClippedKLController(0.01), FixedKLController(0.01)):
        assert controller.update(bad) == 0.01
        assert controller.kl_coef == 0.01


def test_clipped_by_hand() -> None:
    """R15: error clipped to ±0.2, times samples / horizon: 0.1 · (1 + 0.2 · 50/100) and back by 0.2."""
    controller = ClippedKLController(init_kl_coef=0.1, target_kl=0.1, horizon=100)
    assert controller.update(5.0, num_samples=50) == pytest.approx(0.11)
    assert controller.update(0.0, num_samples=100) == pytest.approx(0.11 * 0.8)
    # Within the clip: error 0.1, one sample.
    assert ClippedKLController(0.1, 0.1, 100).update(0.11) == pytest.approx(0.1 * 1.001)


def test_clipped_pace_does_not_depend_on_the_batch_size() -> None:
    """R15: ten steps of one sample move about as far as one step of ten."""
    ten, one = ClippedKLController(0.1, 0.1, 10_000), ClippedKLController(0.1, 0.1, 10_000)
    for _ in range(10):
        ten.update(1.0, num_samples=1)
    one.update(1.0, num_samples=10)
    assert ten.kl_coef == pytest.approx(one.kl_coef, rel=1e-6)


def test_clipped_stays_positive_on_a_batch_over_the_horizon() -> None:
    """R15: a step of more samples than the horizon counts as one horizon."""
    assert ClippedKLController(0.1, 0.1, horizon=10).update(0.0, num_samples=1000) == pytest.approx(0.08)


def test_fixed_never_moves() -> None:
    """R15: the fixed controller returns the coefficient it was given, 0 included (R16)."""
    assert FixedKLController(0.0).update(3.0, num_samples=8) == 0.0


def test_state_round_trip() -> None:
    """R15: the state is in the checkpoint: a restored controller goes on with the same numbers."""
    for make in (AdaptiveKLController, ClippedKLController, FixedKLController):
        one, other = make(0.01), make(0.5)
        one.update(0.4, num_samples=8)
        other.load_state(one.state())
        assert other.update(0.3, num_samples=8) == one.update(0.3, num_samples=8)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("fixed", FixedKLController), ("adaptive", AdaptiveKLController), ("clipped", ClippedKLController)],
)
def test_build_from_recipe(kind: str, expected: type[KLController]) -> None:
    """R15: `rl.kl.controller` picks the controller, with the recipe's coefficient and target per token."""
    config = KLConfig.model_validate(
        {"controller": kind, "coef": 0.02, "target_per_token": 0.3, "horizon": 7}
    )
    controller = build_kl_controller(config)
    inner = controller.inner if isinstance(controller, BoundedKLController) else controller
    assert type(inner) is expected
    assert controller.kl_coef == 0.02
    if isinstance(inner, AdaptiveKLController | ClippedKLController):
        assert (inner.target_kl, inner.horizon) == (0.3, 7)


def test_impossible_settings_are_one_sentence() -> None:
    """R15: a clipped controller at 0, a target of 0, a negative coefficient are refused by name."""
    with pytest.raises(ConfigError, match=r"rl\.kl\.coef = 0"):
        build_kl_controller(KLConfig(controller="clipped", coef=0.0))
    with pytest.raises(ConfigError, match="target_kl"):
        AdaptiveKLController(target_kl=0.0)
    with pytest.raises(ConfigError, match="horizon"):
        ClippedKLController(horizon=0)
    with pytest.raises(ConfigError, match="init_kl_coef"):
        FixedKLController(-1.0)


def test_smoothing_by_hand() -> None:
    """R15: a moving average that keeps half: KL 0.4 counts as 0.4, then 0.1 as 0.2."""
    controller = BoundedKLController(AdaptiveKLController(0.01, 0.1, horizon=10), smoothing=0.5)
    assert controller.update(0.4) == pytest.approx(0.01 * 1.3)
    assert controller.update(0.1) == pytest.approx(0.013 * 1.1)  # (0.5 · 0.2 + 0.5 · 0.1) / 0.75 = 0.2
    before = controller.state()
    assert controller.update(math.nan) == controller.kl_coef and controller.state() == before


def test_bounds_hold() -> None:
    """R15: neither above nor below, and what is cut off is forgotten: the way back starts at the bound."""
    controller = BoundedKLController(AdaptiveKLController(0.01, 0.1, horizon=10), low=0.005, high=0.012)
    for _ in range(9):
        controller.update(10.0)
    assert controller.kl_coef == 0.012
    assert controller.update(0.05) == pytest.approx(0.012 * 0.95)
    for _ in range(90):
        controller.update(0.0)
    assert controller.kl_coef == 0.005


def test_bounded_state_goes_round() -> None:
    """R15: saved and loaded in the middle, the path is the same bit for bit."""
    config = KLConfig(controller="clipped", horizon=40, smoothing=0.7, target_per_sequence=3.0)
    path = [abs(math.sin(i)) * 9 for i in range(40)]
    whole, first, second = (build_kl_controller(config) for _ in range(3))
    expected = [whole.update(kl, 8) for kl in path]
    found = [first.update(kl, 8) for kl in path[:17]]
    second.load_state(first.state())
    assert found + [second.update(kl, 8) for kl in path[17:]] == expected


def test_the_unit_is_that_of_the_target() -> None:
    """Trap 10: a target per sequence follows the KL per sequence."""
    assert controlled_metric(KLConfig()) == "kl/ref"
    assert controlled_metric(KLConfig(target_per_sequence=6.0)) == "kl/ref_sequence"
    config = KLConfig(controller="adaptive", coef=0.01, target_per_sequence=6.0, horizon=10)
    assert build_kl_controller(config).update(12.0) == pytest.approx(0.011)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"smoothing": 1.0}, "smoothing = 1.0"), ({"low": 0.2, "high": 0.1}, "bounds 0.2 and 0.1")],
)
def test_bad_bounds_are_refused(settings: dict[str, float], words: str) -> None:
    """R25: one sentence that names the value."""
    with pytest.raises(ConfigError, match=words):
        BoundedKLController(FixedKLController(), **settings)
