"""What is known of the keys: every one explained, every leaf listed."""

from __future__ import annotations

import re

import pytest

from trimtab.config import Recipe
from trimtab.config.rl import RewardSpec
from trimtab.config.schema import Key, field_type, key_names, keys

KEYS = list(keys(Recipe))
# Keys that scripts rely on: renaming one is a breaking change.
STABLE = [
    "seed",
    "rl.algorithm",
    "rl.steps",
    "rl.data",
    "rl.rewards",
    "rl.num_prompts",
    "rl.num_generations",
    "rl.max_new_tokens",
    "rl.temperature",
    "rl.top_p",
    "rl.learning_rate",
    "rl.kl.coef",
    "sft.data",
    "reward_model.data",
]


@pytest.mark.parametrize("key", [*KEYS, *keys(RewardSpec, "rl.rewards.")], ids=lambda key: key.name)
def test_every_key_has_one_sentence(key: Key) -> None:
    """Style 10: every knob has one sentence, which is its help."""
    assert re.fullmatch(r"\S.*\.", key.description), f"{key.name} needs a sentence"
    assert len(key.description) <= 120


def test_the_keys_of_the_issue_exist() -> None:
    """Issue 2: the keys that scripts rely on keep their names."""
    assert set(STABLE) <= {key.name for key in KEYS}
    assert len({key.name for key in KEYS}) == len(KEYS)


def test_types_and_defaults() -> None:
    """Issue 2: `trimtab run --keys` shows name, type, default and sentence of every leaf."""
    found = {key.name: key for key in KEYS}
    assert (found["seed"].type, found["seed"].default) == ("int", "42")
    assert found["rl.data"].default == "required"
    assert found["rl.kl.coef"].default == "0.001"
    assert "rl" not in found
    assert "rl.kl" not in found
    assert key_names(Recipe) == [key.name for key in KEYS]
    assert field_type(Recipe, "rl.kl.coef") == "float"
    assert field_type(Recipe, "rl.kl") is None
    assert field_type(Recipe, "nothing") is None
