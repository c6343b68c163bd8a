"""The settings that the guard moves: notches, bounds, and the recipe's values exactly at notch 0."""

from __future__ import annotations

import json

import pytest

from trimtab.config import HealConfig, RLConfig, build_recipe
from trimtab.monitor import KNOBS, Controls


def rl_of(**keys: object) -> RLConfig:
    recipe = build_recipe({"rl": {"data": "prompts", "rewards": ["length"], **keys}})
    assert recipe.rl is not None
    return recipe.rl


def test_a_neutral_control_changes_nothing() -> None:
    """R14: without an action the settings are the recipe's very object, the coefficient the very number."""
    rl = rl_of()
    assert Controls().settings(rl) is rl
    assert Controls().kl_coef(0.0, 10.0) == 0.0


def test_one_notch_of_everything_by_hand() -> None:
    """R14: lr × 0.3, log of the clip factor × 0.7, entropy + 0.01, temperature × 1.15, KL × 3."""
    controls = Controls()
    assert all(controls.push(knob) for knob in KNOBS)
    ppo = {"critic_learning_rate": 1e-4}
    now = controls.settings(rl_of(learning_rate=1e-5, temperature=0.8, entropy_coef=0.002, ppo=ppo))
    assert now.learning_rate == pytest.approx(3e-6)
    assert now.ppo.policy_learning_rate is None
    assert now.ppo.critic_learning_rate == pytest.approx(3e-5)
    assert now.clip.ratio == pytest.approx(10**0.7)
    assert (now.clip.low, now.clip.high) == (pytest.approx(0.14), pytest.approx(0.14))
    assert now.entropy_coef == pytest.approx(0.012)
    assert now.temperature == pytest.approx(0.92)
    assert controls.kl_coef(0.001, 10.0) == pytest.approx(0.003)
    assert controls.kl_coef(0.0, 10.0) == pytest.approx(0.03), "0 cannot be multiplied: kl_start is"


def test_the_coefficient_stays_under_its_bound_and_above_the_controllers() -> None:
    """R15: raising never goes over rl.kl.max_coef, and never lowers what is above it already."""
    controls = Controls()
    for _ in range(4):
        controls.push("kl_coef")
    assert controls.kl_coef(1.0, 10.0) == 10.0
    assert controls.kl_coef(20.0, 10.0) == 20.0


def test_a_raised_kl_in_the_loss_has_a_gradient_that_is_right() -> None:
    """Trap 1: a recipe may name k1 while its coefficient is 0; once it is charged, it is k3."""
    controls, rl = Controls(), rl_of(kl={"coef": 0.0, "estimator": "k1"})
    controls.push("temperature")
    assert controls.settings(rl).kl.estimator == "k1"
    controls.push("kl_coef")
    assert controls.settings(rl).kl.estimator == "k3"
    in_reward = rl_of(kl={"coef": 0.0, "estimator": "k1", "placement": "reward"})
    assert controls.settings(in_reward).kl.estimator == "k1"


def test_notches_are_bounded_and_return_to_the_recipe_exactly() -> None:
    """R14: no setting moves further than max_notches, and back at 0 nothing is left of it."""
    controls, rl = Controls(HealConfig(max_notches=2)), rl_of()
    for knob in KNOBS:
        assert [controls.push(knob) for _ in range(3)] == [True, True, False]
    saved = json.loads(json.dumps(controls.state()))
    for knob in KNOBS:
        assert [controls.relax(knob) for _ in range(3)] == [True, True, False]
    assert controls.is_neutral
    assert controls.settings(rl) is rl
    controls.load_state(saved)
    assert set(controls.notches.values()) == {2}
