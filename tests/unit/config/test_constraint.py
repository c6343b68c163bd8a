"""What a recipe may say about constraints and components (R24)."""

from __future__ import annotations

from typing import Any

import pytest

from trimtab.config import build_recipe
from trimtab.errors import ConfigError


def rl_of(entry: dict[str, Any], **keys: Any) -> Any:
    return build_recipe(
        {"rl": {"data": "p", "rewards": ["length", {"name": "no_promise", **entry}], **keys}}
    ).rl


def test_a_constraint_is_a_table_of_its_entry() -> None:
    """R24: target and pace are given, the rest has defaults."""
    spec = rl_of({"constraint": {"target": 0.1, "learning_rate": 2.0}}).rewards[1]
    assert spec.constraint.model_dump() == {
        "target": 0.1,
        "learning_rate": 2.0,
        "initial_weight": 0.0,
        "max_weight": 10.0,
        "damping": 0.0,
        "margin": 0.0,
    }


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"constraint": {"target": 0.1}, "gate": True}, "a gate and a constraint"),
        ({"constraint": {"target": 0.1}, "weight": 0.5}, "weight = 0.5 would do nothing"),
        ({"constraint": {"target": 1.0}}, "target"),
        ({"constraint": {"max_weight": 1.0, "initial_weight": 2.0}}, "above max_weight"),
        ({"constraint": {"target": 0.1, "margin": 0.2}}, "margin = 0.2 is above target = 0.1"),
        ({"constraint": {"taget": 0.1}}, "target"),
    ],
)
def test_what_makes_no_sense_is_refused(entry: dict[str, Any], says: str) -> None:
    """R24: one sentence that names the key."""
    with pytest.raises(ConfigError, match=says):
        rl_of(entry)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"algorithm": "ppo"}, "PPO has none"),
        ({"reward_clip": 1.0}, "reward_clip"),
        ({"reward_normalisation": "running"}, "reward_normalisation"),
        ({"algorithm": "rloo"}, "KL in the reward"),
    ],
)
def test_components_that_are_compared_apart_have_no_sum(keys: dict[str, Any], says: str) -> None:
    """GDPO: what acts on the sum of the rewards is refused beside it."""
    with pytest.raises(ConfigError, match=says):
        rl_of({}, advantage={"components": "normalised"}, **keys)
