"""Where stages take models and prompts from, and which counts do not fit together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.pipeline.tiny_recipe import changed, tiny_tree

from trimtab.errors import ConfigError, DataError
from trimtab.pipeline import prompts_for, run_pipeline
from trimtab.pipeline.sources import hidden_source, policy_start, reward_model_path, sft_model
from trimtab.pipeline.training import check_batches, num_steps


def test_prompts_of_a_file_and_of_a_task(tmp_path: Path) -> None:
    """R3, R21: a JSON list of strings, or a procedural task whose splits share nothing."""
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(["a", "b", "c"]))
    assert [p.text for p in prompts_for(str(path), "train", 1)] == ["a", "b", "c"]
    assert [p.text for p in prompts_for(str(path), "train", 1, limit=2)] == ["a", "b"]
    train = {p.text for p in prompts_for("task:arithmetic", "train", 1, limit=50)}
    hidden = {p.text for p in prompts_for("task:arithmetic", "hidden", 1, limit=50)}
    assert train
    assert hidden
    assert not train & hidden


def test_where_models_come_from(tmp_path: Path) -> None:
    """R1: an earlier stage's output, or what the recipe names instead."""
    tree = tiny_tree(tmp_path)
    base = tree["model"]["path"]
    assert sft_model(changed(tree, sft=None)) == base
    assert policy_start(changed(tree, rl={"model": "elsewhere"})) == "elsewhere"
    rewards = {"rewards": ["length"]}
    assert reward_model_path(changed(tree, rl=rewards)) is None  # nothing asks for it
    assert reward_model_path(changed(tree, reward_model=None, rl=rewards)) is None
    assert reward_model_path(changed(tree, rl={"reward_model": "mine"})) == "mine"
    run_pipeline(changed(tree), stage="sft")
    assert sft_model(changed(tree)) == str(tmp_path / "out" / "sft")
    assert policy_start(changed(tree)) == str(tmp_path / "out" / "sft")


def test_hidden_prompts(tmp_path: Path) -> None:
    """R20: eval.data, else rl.hidden_data; neither is an error with a fix."""
    tree = tiny_tree(tmp_path)
    assert hidden_source(changed(tree)) == tree["rl"]["hidden_data"]
    assert hidden_source(changed(tree, eval={"data": "other.json"})) == "other.json"
    with pytest.raises(ConfigError, match=r"eval\.data or rl\.hidden_data"):
        hidden_source(changed(tree, rl={"hidden_data": None}))


def test_training_on_hidden_prompts_is_refused(tmp_path: Path) -> None:
    """R20: a hidden prompt that is also a training prompt stops the run before a model is loaded."""
    tree = tiny_tree(tmp_path)
    (tmp_path / "hidden.json").write_text(json.dumps(["question number 3", "fresh"]))
    with pytest.raises(DataError, match="hidden"):
        run_pipeline(changed(tree, sft=None, reward_model=None), stage="rl")


def test_counts_that_do_not_fit(tmp_path: Path) -> None:
    """Issue 2: more prompts per step than there are, or mini-batches than rows: one sentence."""
    tree = tiny_tree(tmp_path)
    rl = changed(tree, rl={"num_prompts": 9}).rl
    assert rl is not None
    with pytest.raises(ConfigError, match=r"rl\.num_prompts = 9 but .* has 6 prompts"):
        check_batches(rl, 6)
    rl = changed(tree, rl={"num_minibatches": 5}).rl
    assert rl is not None
    with pytest.raises(ConfigError, match="more than the 4 completions"):
        check_batches(rl, 6)


def test_number_of_steps(tmp_path: Path) -> None:
    """Design: given, or enough for the epochs; the evaluation has none."""
    tree = tiny_tree(tmp_path)
    recipe = changed(
        tree,
        sft={"steps": None, "epochs": 3, "batch_size": 5},
        rl={"steps": None, "epochs": 2, "num_prompts": 4},
    )
    assert [num_steps(recipe, name) for name in ("sft", "reward_model", "rl", "eval")] == [5, 2, 3, 0]
