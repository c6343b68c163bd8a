"""Nothing that is held out is trained on, in any stage; gold answers are checked before RL starts."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
from tests.unit.pipeline.tiny_recipe import changed, tiny_tree, write_lines

from trimtab.config import build_recipe
from trimtab.errors import DataError
from trimtab.pipeline import run_pipeline
from trimtab.pipeline.leaks import guarded_pairs, refuse_leaks
from trimtab.tasks.registry import load_task_prompts

SECRET = "something else entirely 1"  # a hidden prompt of the tiny recipe


@pytest.mark.parametrize(
    ("stage", "key", "row"),
    [
        ("sft", "data", {"prompt": SECRET.upper(), "completion": "a"}),
        ("reward_model", "data", {"prompt": SECRET, "chosen": "a", "rejected": "b"}),
        ("process_reward", "data", {"prompt": SECRET, "completions": ["a"], "labels": [True]}),
        ("rl", "data", {"prompt": SECRET + "!"}),
    ],
)
def test_every_stage_refuses_hidden_prompts(
    stage: str, key: str, row: dict[str, str], tmp_path: Path
) -> None:
    """R20: SFT pairs, preferences and RL prompts are compared with the hidden prompts at load."""
    tree = tiny_tree(tmp_path)
    leaky = write_lines(tmp_path / "leaky.jsonl", [row, {**row, "prompt": "innocent words"}])
    recipe = changed(tree, **{stage: {key: leaky}})
    with pytest.raises(DataError, match=rf"row 1 '{SECRET}' is row 0 .*remove these rows from {stage}\.data"):
        run_pipeline(recipe, stage=stage)  # type: ignore[arg-type]
    refuse_leaks(changed(tree))


def test_the_evaluation_is_kept_apart_from_all(tmp_path: Path) -> None:
    """R20: evaluation prompts must not be those that the run was watched by, unless they are one set."""
    tree = tiny_tree(tmp_path)
    final = tmp_path / "final.json"
    final.write_text(json.dumps(["one more", SECRET]))
    with pytest.raises(DataError, match=r"texts of eval\.data .* are also in rl\.hidden_data"):
        refuse_leaks(changed(tree, eval={"data": str(final)}), ("eval",))
    refuse_leaks(changed(tree, eval={"data": tree["rl"]["hidden_data"]}))


def test_problems_of_a_task_may_be_alike(tmp_path: Path) -> None:
    """R20: SFT rows that show a task's form differ from its hidden problems by a digit, and are no leak; the
    hidden problem itself is one."""
    source = "task:arithmetic?digits=2&language=en"
    hidden = load_task_prompts("arithmetic?digits=2&language=en", "hidden", 50, 3)
    texts = [prompt.text for prompt in load_task_prompts("arithmetic?digits=2&language=en", "train", 50, 3)]
    for extra, leaks in ((texts[0], False), (hidden[7].text.upper(), True)):
        rows = [{"prompt": text, "completion": "4"} for text in [*texts, extra]]
        path = write_lines(tmp_path / "shown.jsonl", rows)
        recipe = changed(tiny_tree(tmp_path), sft={"data": path}, rl={"data": source, "hidden_data": source})
        with pytest.raises(DataError, match="is row 50") if leaks else nullcontext():
            refuse_leaks(recipe, ("sft",))


def test_splits_of_one_task_are_disjoint_by_construction() -> None:
    """R20: only a task's own splits are not compared; a file is compared with a task's hidden prompts."""
    rl = {"data": "task:arithmetic?digits=1", "hidden_data": "task:arithmetic", "rewards": ["arithmetic"]}
    assert list(guarded_pairs(build_recipe({"rl": rl}))) == []
    pairs = guarded_pairs(build_recipe({"rl": rl, "sft": {"data": "sums.jsonl"}}))
    assert list(pairs) == [("sft.data", "rl.hidden_data")]


def test_a_run_with_a_wrong_gold_answer_does_not_start(tmp_path: Path) -> None:
    """Threats: the row is named, with its file; `rl.gold_rows = 0` trains anyway."""
    tree = tiny_tree(tmp_path)
    rows = [{"prompt": f"{i} plus {i} is what?", "answer": str(2 * i)} for i in range(4)]
    data = write_lines(tmp_path / "sums.jsonl", [*rows, {"prompt": "and nothing?", "answer": "none"}])
    keys = {"data": data, "hidden_data": None, "rewards": ["final_number"], "steps": 1}
    recipe = changed(tree, rl=keys, eval=None, sft=None, reward_model=None)
    recipe = changed(recipe.resolved(), sft=None)
    with pytest.raises(DataError, match=r"gold answers of .*sums\.jsonl .*row 4, final_number, gold 'none'"):
        run_pipeline(recipe, stage="rl")
    opted_out = recipe.model_copy(update={"rl": recipe.rl.model_copy(update={"gold_rows": 0})})  # type: ignore
    run_pipeline(opted_out, stage="rl")
