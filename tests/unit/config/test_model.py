"""The tables [model] and [model.lora]: what they take, and the sentence for what they do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimtab.config import build_recipe, load_recipe
from trimtab.errors import ConfigError

RL = {"data": "p", "rewards": ["length"]}


def test_no_table_no_adapter() -> None:
    """Issue 3 (3): an adapter is asked for by its table; every key of it has a default."""
    assert build_recipe({}).model.lora is None and not build_recipe({}).model.keeps_adapter
    lora = build_recipe({"model": {"lora": {}}}).model.lora
    assert lora is not None
    assert (lora.rank, lora.alpha, lora.target_modules) == (16, 32.0, ["all-linear"])


def test_one_key_on_the_command_line_is_enough(tmp_path: Path) -> None:
    """Issue 2 (overrides): `--model.lora.rank 8` turns the adapter on; targets are a list or one name."""
    (tmp_path / "r.toml").write_text("name = 'r'\n", encoding="utf-8")
    overrides = [("model.lora.rank", "8"), ("model.lora.target_modules", "q_proj, v_proj")]
    lora = load_recipe(str(tmp_path / "r.toml"), overrides).model.lora
    assert lora is not None and lora.rank == 8 and lora.target_modules == ["q_proj", "v_proj"]
    lora = build_recipe({"model": {"lora": {"target_modules": "all-linear"}}}).model.lora
    assert lora is not None and lora.target_modules == ["all-linear"]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"dropout": 0.1}, "use 0, since dropout would make the policy that learns another"),
        ({"rank": 0}, "greater than or equal to 1"),
        ({"target_modules": []}, "at least 1 item"),
        ({"target_modules": ["all-linear", "q_proj"]}, "either 'all-linear' or names of layers"),
        ({"ranks": 4}, "did you mean 'rank'"),
    ],
)
def test_what_an_adapter_cannot_be(keys: dict[str, object], words: str) -> None:
    """Trap 8, R25: dropout is refused with its reason, other mistakes in one sentence."""
    with pytest.raises(ConfigError, match=words):
        build_recipe({"model": {"lora": keys}})


def test_a_reference_under_an_adapter_cannot_move() -> None:
    """Issue 3 (3), R10: refused when the recipe is read, not after the first stages."""
    tree = {"model": {"lora": {}}, "rl": {**RL, "reference_refresh_steps": 5}}
    with pytest.raises(ConfigError, match=r"^recipe: rl\.reference_refresh_steps must be 0 with \[model\.l"):
        build_recipe(tree)
    assert build_recipe({**tree, "model": {}}).rl is not None
