"""The stage [process_reward] between reward model and RL: from the recipe to a policy that it paid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.pipeline.test_run import Interrupted, equal, interrupt, stages_started
from tests.unit.pipeline.tiny_recipe import Tree, changed, tiny_tree
from transformers import AutoModelForTokenClassification, AutoTokenizer

from trimtab.config import Recipe, load_recipe
from trimtab.errors import ModelError
from trimtab.pipeline import run_pipeline
from trimtab.pipeline.control import run_control
from trimtab.pipeline.estimate import estimate_stage
from trimtab.pipeline.speed import Speeds
from trimtab.pipeline.training import num_steps
from trimtab.runs import metrics_table, read_rollouts

ROWS = [
    {"prompt": f"q{i}", "completions": ["yes", "no" if i % 2 else "yes"], "labels": [True, i % 2 == 0]}
    for i in range(8)
]


def process_tree(root: Path) -> Tree:
    """The tiny recipe without its reward model, with a process reward model."""
    tree = tiny_tree(root)
    file = root / "steps.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    tree["process_reward"] = {"data": str(file), "steps": 2, "batch_size": 4}
    tree["rl"]["rewards"] = ["process_reward"]
    tree["eval"] = {"num_prompts": 3}
    return tree


def recipe_of(tree: Tree, **sections: Any) -> Recipe:
    return changed(tree, reward_model=None, **sections)


def test_the_stages_in_order(tmp_path: Path) -> None:
    """R22, R3: SFT, process reward model, GRPO paid by it, evaluation; transformers loads it."""
    recipe = recipe_of(process_tree(tmp_path))
    assert recipe.stages == ("sft", "process_reward", "rl", "eval")
    summary = run_pipeline(recipe)
    root = tmp_path / "out"
    assert stages_started(root) == list(recipe.stages)
    model = AutoModelForTokenClassification.from_pretrained(root / "prm")
    assert model.config.num_labels == 1
    assert AutoTokenizer.from_pretrained(root / "prm").chat_template
    card = json.loads((root / "prm" / "process_reward.json").read_text())
    assert summary["process_reward"]["accuracy"] == card["accuracy"]
    assert "## Process reward model" in (root / "run" / "report.md").read_text()
    assert metrics_table(root / "run", "process_reward")["step"] == [1, 2]
    parts = [json.loads(row["parts"]) if isinstance(row["parts"], str) else row["parts"]
             for row in read_rollouts(root / "run", "rl")]  # fmt: skip
    assert parts and all("process_reward" in part for part in parts)
    assert num_steps(recipe, "process_reward") == 2
    arms = run_control(recipe, "random", tmp_path / "control", steps=1)
    assert arms.real.before == arms.control.before and arms.real.num_prompts == 3
    assert "reward/part/process_reward" in metrics_table(root / "run", "rl")


def test_rl_needs_the_stage_before(tmp_path: Path) -> None:
    """R22: the missing stage is named."""
    recipe = recipe_of(process_tree(tmp_path))
    run_pipeline(recipe, stage="sft")
    with pytest.raises(ModelError, match=r"no process reward model at .*--stage process_reward first"):
        run_pipeline(recipe, stage="rl")


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_resume_ends_with_the_same_model(
    lora: Tree | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 2 (8), R22: interrupted and resumed, also with an adapter, the model is the same bit for bit."""
    if lora:
        pytest.importorskip("peft")
    recipes = []
    for name in "ab":
        (tmp_path / name).mkdir()
        tree = process_tree(tmp_path / name)
        keys = {"steps": 4, "checkpoint_every": 2}
        model = {**tree["model"], **({"lora": lora} if lora else {})}
        recipes.append(recipe_of(tree, sft=None, rl=None, eval=None, process_reward=keys, model=model))
    run_pipeline(recipes[0])
    with monkeypatch.context() as patch:
        interrupt(patch, "process_reward", steps=3)
        with pytest.raises(Interrupted):
            run_pipeline(recipes[1])
    run_pipeline(recipes[1], resume=True)
    assert equal(tmp_path / "a" / "out" / "prm", tmp_path / "b" / "out" / "prm")
    AutoModelForTokenClassification.from_pretrained(tmp_path / "b" / "out" / "prm")


def test_the_recipe_of_the_repository() -> None:
    """R22: its stages, and a place of its own for the model."""
    recipe = load_recipe(Path(__file__).parents[3] / "recipes" / "math" / "process.toml")
    assert recipe.stages == ("sft", "process_reward", "rl", "eval")
    assert recipe.paths.process_reward == "output/process_prm"


def test_its_time_is_estimated(tmp_path: Path) -> None:
    """R25: steps times tokens over the measured speed."""
    from tests.unit.models.tiny import tiny_tokenizer

    recipe = recipe_of(process_tree(tmp_path))
    speeds = Speeds(rollout=1.0, score=1.0, train=100.0, optimizer_seconds=1.0)
    found = estimate_stage(recipe, "process_reward", speeds, tiny_tokenizer())
    assert found.steps == 2
    assert found.seconds == pytest.approx(2 * found.seconds_per_step)
    assert found.seconds_per_step > speeds.optimizer_seconds


def test_the_checklist(tmp_path: Path) -> None:
    """R25, R22: labels of both kinds, steps that RL splits as labelled, a model still to come."""
    from trimtab.cli.checks.datasets import check_solutions
    from trimtab.cli.checks.rewards import check_rewards
    from trimtab.pipeline.sources import prompts_for

    tree = process_tree(tmp_path)
    recipe = recipe_of(tree)
    assert [line.status for line in check_solutions(recipe)] == ["pass"]
    file = tmp_path / "two.jsonl"
    file.write_text(json.dumps({"prompt": "q", "completions": ["a\nb", "c"], "labels": [1, 1]}) + "\n")
    found = list(check_solutions(recipe_of(tree, process_reward={"data": str(file)})))
    assert [line.status for line in found] == ["fail", "warn"]
    assert recipe.rl is not None
    prompts = prompts_for(recipe.rl.data, "train", 0)
    (line,) = check_rewards(recipe, prompts, None)
    assert (line.status, "left out here" in line.found) == ("warn", True)
    (line,) = check_rewards(recipe_of(tree, process_reward=None), prompts, None)
    assert (line.status, "there is none" in line.found) == ("fail", True)
