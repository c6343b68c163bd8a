"""Reading recipes: overrides by type, and errors that name file, line, key and the nearest valid one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trimtab.config import Recipe, load_recipe
from trimtab.errors import ConfigError

TEXT = """name = "mine"
seed = 7

[model]
path = "somewhere"

[rl]
data = "p.json"
rewards = ["sales"]
steps = 5

[rl.kl]
coef = 0.01

[eval]
num_prompts = 8
"""


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def value_of(recipe: Recipe, key: str) -> Any:
    found: Any = recipe
    for part in key.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("seed", "3", 3),
        ("name", "42", "42"),
        ("rl.kl.coef", "0.05", 0.05),
        ("rl.kl.coef", "0", 0.0),
        ("rl.learning_rate", "1e-6", 1e-6),
        ("rl.algorithm", "dapo", "dapo"),
        ("rl.kl.estimator", "k2", "k2"),
        ("rl.dynamic_sampling.enabled", "true", True),
        ("rl.dynamic_sampling.enabled", "True", True),
        ("rl.dynamic_sampling.enabled", "false", False),
        ("rl.stop", "a,b", ["a", "b"]),
        ("rl.stop", '["a, b"]', ["a, b"]),
        ("monitor.trackers", "tensorboard", ["tensorboard"]),
        ("rl.hidden_data", "12", "12"),
        ("model.path", "true", "true"),
        ("threads", "2", 2),
        ("eval.judge", "sales_quality", "sales_quality"),
    ],
)
def test_overrides_take_the_type_of_their_key(
    recipe_file: Path, key: str, text: str, expected: object
) -> None:
    """Issue 2: every key can be overridden; text stays text, the rest is read as the key's type."""
    found = value_of(load_recipe(recipe_file, [(key, text)]), key)
    assert found == expected
    assert type(found) is type(expected)


def test_rewards_on_the_command_line(recipe_file: Path) -> None:
    """Issue 2: `--rl.rewards a,b.py:f` names several rewards, of weight 1."""
    rl = load_recipe(recipe_file, [("rl.rewards", "sales, my.py:score")]).rl
    assert rl is not None
    assert [(spec.name, spec.weight, spec.options) for spec in rl.rewards] == [
        ("sales", 1.0, {}),
        ("my.py:score", 1.0, {}),
    ]


def test_rewards_as_tables(tmp_path: Path) -> None:
    """R19: names and tables with weight and options mix; options keep their types."""
    path = tmp_path / "r.toml"
    path.write_text(
        '[rl]\ndata = "p"\n'
        'rewards = ["sales", { name = "regex", weight = 0.5, options = { pattern = "a" } }]\n'
    )
    rl = load_recipe(path).rl
    assert rl is not None
    assert [(s.name, s.weight) for s in rl.rewards] == [("sales", 1.0), ("regex", 0.5)]
    assert rl.rewards[1].options == {"pattern": "a"}


@pytest.mark.parametrize(
    ("before", "after", "line", "words"),
    [
        ("steps = 5", "stepz = 5", 10, "'rl.stepz' is not a known key (did you mean 'steps'?)"),
        ("coef = 0.01", "ceof = 0.01", 13, "'rl.kl.ceof' is not a known key (did you mean 'coef'?)"),
        ("seed = 7", "sede = 7", 2, "'sede' is not a known key (did you mean 'seed'?)"),
        ("[eval]", "[evla]", 15, "'evla' is not a known key (did you mean 'eval'?)"),
        ("steps = 5", "steps = 0", 10, "'rl.steps' is not valid"),
        ("steps = 5", 'steps = "many"', 10, "'rl.steps' is not valid"),
        ("steps = 5", 'loss = "clipp"', 10, "(did you mean 'clip'?)"),
        ("steps = 5", "kl.ceof = 0.01", 10, "'rl.kl.ceof' is not a known key (did you mean 'coef'?)"),
        (
            "steps = 5",
            "clip = { lwo = 0.1 }",
            10,
            "'rl.clip.lwo' is not a known key (did you mean 'low'?)",
        ),
        (
            'rewards = ["sales"]',
            'rewards = [{ name = "sales", wieght = 2 }]',
            9,
            "(did you mean 'weight'?)",
        ),
    ],
)
def test_errors_name_file_line_and_nearest_key(
    recipe_file: Path, before: str, after: str, line: int, words: str
) -> None:
    """Issue 2: a wrong key or value is one sentence with the file, the line and the nearest valid name."""
    text = TEXT.replace(before, after)
    if "kl.ceof" in after:  # a table cannot be opened twice
        text = text.replace("[rl.kl]\ncoef = 0.01\n", "")
    recipe_file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe_file)
    assert f"mine.toml:{line}: " in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_override_blames_the_command_line(recipe_file: Path) -> None:
    """Issue 2: the line of the file is not at fault when the value came from an override."""
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe_file, [("rl.steps", "0")])
    assert str(caught.value).startswith("--rl.steps")
    assert "mine.toml" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("rl.kl.cof", "--rl.kl.cof is not a key of a recipe (did you mean 'rl.kl.coef'?)"),
        ("rl.learning_rte", "(did you mean 'rl.learning_rate'?)"),
        ("rl.steps.more", "is not a key of a recipe"),
    ],
)
def test_unknown_overrides(recipe_file: Path, key: str, words: str) -> None:
    """Issue 2: an override that no recipe has is refused with the nearest key."""
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe_file, [(key, "1")])
    assert words in str(caught.value)


def test_missing_table_keys_and_files(tmp_path: Path) -> None:
    """Issue 2: what is missing is named with what to add."""
    with pytest.raises(ConfigError, match=r"no recipe at .*nowhere\.toml"):
        load_recipe(tmp_path / "nowhere.toml")
    path = tmp_path / "r.toml"
    path.write_text("[rl]\nsteps = 1\nrewards = ['sales']\n")
    with pytest.raises(ConfigError, match=r"'rl\.data' is missing; add it to the table \[rl\]"):
        load_recipe(path)
    path.write_text("[rl\n")
    with pytest.raises(ConfigError, match=r"r\.toml is not valid TOML"):
        load_recipe(path)
    path.write_text("[rl]\nalgorithm = 'grop'\ndata = 'p'\nrewards = ['sales']\n")
    with pytest.raises(ConfigError, match="did you mean 'grpo'"):
        load_recipe(path)


def test_output_moves_everything(recipe_file: Path) -> None:
    """R3: `--output DIR` gives DIR/sft, DIR/rm, DIR/prm, DIR/policy, DIR/run and DIR/summary.json."""
    paths = load_recipe(recipe_file, output="there").paths
    assert paths.model_dump() == {
        "sft": "there/sft",
        "reward_model": "there/rm",
        "process_reward": "there/prm",
        "policy": "there/policy",
        "run": "there/run",
        "summary": "there/summary.json",
    }


def test_a_path_of_its_own_beside_output(recipe_file: Path) -> None:
    """`--output there --paths.sft elsewhere`: both were said, and both hold."""
    paths = load_recipe(recipe_file, [("paths.sft", "elsewhere")], output="there").paths
    assert (paths.sft, paths.reward_model, paths.run) == ("elsewhere", "there/rm", "there/run")


def test_algorithm_in_paths(tmp_path: Path) -> None:
    """R3: `{algorithm}` in a path becomes the algorithm, also an overridden one."""
    path = tmp_path / "r.toml"
    path.write_text("[paths]\npolicy = 'out/sales_{algorithm}'\n[rl]\ndata = 'p'\nrewards = 'sales'\n")
    assert load_recipe(path).paths.policy == "out/sales_grpo"
    assert load_recipe(path, [("rl.algorithm", "ppo")]).paths.policy == "out/sales_ppo"


def test_stages_are_the_tables_in_order(recipe_file: Path) -> None:
    """R1: stages are alone or together, always in the order SFT, reward model, RL, evaluation."""
    assert load_recipe(recipe_file).stages == ("rl", "eval")
    recipe_file.write_text(TEXT + "[reward_model]\ndata = 'd'\n[sft]\ndata = 'd'\n", encoding="utf-8")
    assert load_recipe(recipe_file).stages == ("sft", "reward_model", "rl", "eval")


def test_recipes_are_frozen_and_resolve(recipe_file: Path) -> None:
    """Design: a loaded recipe never changes; the resolved form holds every default."""
    recipe = load_recipe(recipe_file)
    with pytest.raises(Exception, match="frozen"):
        recipe.seed = 3  # type: ignore[misc]
    resolved = recipe.resolved()
    assert resolved["rl"]["kl"]["coef"] == 0.01
    assert resolved["rl"]["ppo"]["gae_lambda"] == 0.95
    assert Recipe.model_validate(resolved) == recipe
