"""The weight of a constraint, by hand and against hostile numbers (R24)."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.config import ConstraintConfig
from trimtab.errors import ConfigError
from trimtab.monitor import ConstraintController


def test_projected_dual_ascent_by_hand() -> None:
    """R24: λ moves by learning_rate · (rate − target), up and down, and never under 0."""
    controller = ConstraintController(target=0.25, learning_rate=2.0)
    assert controller.weight == 0.0
    assert controller.update(0.75) == 1.0  # 0 + 2 · 0.5
    assert controller.update(0.5) == 1.5  # + 2 · 0.25
    assert controller.update(0.0) == 1.0  # − 2 · 0.25
    assert [controller.update(0.0) for _ in range(3)] == [0.5, 0.0, 0.0]
    assert controller.update(0.5) == 0.5  # from 0 at once: nothing was wound up below it


def test_at_the_target_nothing_moves() -> None:
    """R24: a rate at the target leaves the weight as it is."""
    controller = ConstraintController(target=0.125, initial_weight=0.7)
    assert controller.update(0.125) == 0.7


def test_the_weight_is_bounded_and_comes_back() -> None:
    """R24: max_weight is the highest, and the way down starts there, not where the sum would be."""
    controller = ConstraintController(target=0.0, learning_rate=4.0, max_weight=5.0)
    assert [controller.update(1.0) for _ in range(4)] == [4.0, 5.0, 5.0, 5.0]
    controller.target = 0.5
    assert controller.update(0.0) == 3.0


def test_damping_by_hand() -> None:
    """R24: the weight is λ + damping · error, projected; λ itself does not remember the damping."""
    controller = ConstraintController(target=0.5, learning_rate=1.0, initial_weight=1.0, damping=2.0)
    assert controller.update(1.0) == 2.5  # λ = 1.5, + 2 · 0.5
    assert controller.update(0.5) == 1.5
    assert controller.update(0.0) == 0.0  # λ = 1, − 2 · 0.5
    assert controller.multiplier == 1.0


def test_a_margin_steers_below_the_target_by_hand() -> None:
    """R24: with a margin the weight rests at target − margin, in λ and in the damping alike."""
    controller = ConstraintController(
        target=0.5, learning_rate=1.0, initial_weight=1.0, damping=2.0, margin=0.25
    )
    assert controller.update(0.25) == 1.0
    assert controller.update(0.5) == 1.75  # λ = 1.25, + 2 · 0.25: at the target it already charges more
    assert controller.multiplier == 1.25


@pytest.mark.parametrize("rate", [math.nan, math.inf, -math.inf])
def test_a_rate_that_is_no_number_changes_nothing(rate: float) -> None:
    """R24: not-a-number never reaches the weight."""
    controller = ConstraintController(initial_weight=0.3)
    assert controller.update(rate) == 0.3
    assert controller.state() == {"multiplier": 0.3, "weight": 0.3}


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=30), st.floats(0, 3))
def test_the_weight_stays_in_its_bounds(rates: list[float], damping: float) -> None:
    """R24: whatever is measured, the weight is finite and within 0 and max_weight."""
    controller = ConstraintController(learning_rate=10.0, max_weight=2.0, damping=damping)
    for rate in rates:
        assert 0.0 <= controller.update(rate) <= 2.0


def test_state_goes_on_exactly() -> None:
    """R24: restored from its state, a controller continues bit for bit."""
    rng = random.Random(3)
    rates = [rng.random() for _ in range(40)]
    whole = ConstraintController(damping=0.3)
    for rate in rates[:20]:
        whole.update(rate)
    resumed = ConstraintController(damping=0.3)
    resumed.load_state(whole.state())
    assert resumed.weight == whole.weight
    assert [resumed.update(rate) for rate in rates[20:]] == [whole.update(rate) for rate in rates[20:]]


def test_it_finds_the_weight_that_holds_the_target() -> None:
    """R24: where the rate falls as the weight rises, it settles where rate = target, from both sides."""

    def rate_at(weight: float) -> float:
        return math.exp(-weight)

    for start in (0.0, 6.0):
        controller = ConstraintController(target=0.1, learning_rate=0.5, initial_weight=start)
        for _ in range(400):
            controller.update(rate_at(controller.weight))
        assert controller.weight == pytest.approx(math.log(10), abs=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"target": -0.1},
        {"target": math.nan},
        {"learning_rate": math.inf},
        {"initial_weight": 11.0},
        {"margin": 0.06},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, float]) -> None:
    """R24: a sentence that names the setting."""
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ConstraintController(**wrong)


def test_the_recipe_and_the_controller_agree_on_defaults() -> None:
    """R24: a bare ``constraint = {}`` is a bare ConstraintController()."""
    assert vars(ConstraintController.of(ConstraintConfig())) == vars(ConstraintController())
