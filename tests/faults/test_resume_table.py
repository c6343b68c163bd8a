"""Exact resume after SIGKILL: a few cases of the table here, the whole table when asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.faults.forks import KILLED, STAGES, Outcome, is_time, run, write_recipe
from tests.faults.resume_table import case, points, rows

from trimtab.runs import metrics_table, read_rollouts


def test_a_killed_run_ends_like_a_whole_one(tmp_path: Path) -> None:
    """Issue 5 (4): GRPO killed between rollout and update, and while it writes a checkpoint, then resumed:
    model, optimizer, controllers, random states, metrics and rollouts of the uninterrupted run."""
    recipe = write_recipe(tmp_path, "grpo")
    assert run(recipe, tmp_path / "whole") == 0, (tmp_path / "whole.log").read_text()
    whole = Outcome.of(tmp_path / "whole", "grpo")
    assert len(whole.rollouts) == 6 * 4 and whole.metrics["step"] == [1, 2, 3, 4, 5, 6]
    prompts = [(row["step"], row["prompt_id"]) for row in whole.rollouts]
    assert all(prompts.count(one) == 2 for one in prompts), "each prompt of a step has its two completions"
    for number, name in enumerate(("after_reward", "checkpoint_before_rename")):
        fault = dict(points("grpo"))[name]
        found = case(recipe, tmp_path / f"case{number}", "grpo", fault, whole)
        assert found["identical"], found


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", STAGES)
def test_the_whole_table(kind: str, tmp_path: Path) -> None:
    """Issue 5 (4): every boundary of six steps and every named point inside one."""
    found = list(rows([kind], [], tmp_path))
    assert len(found) >= 6 + 12
    assert [row for row in found if not row["identical"]] == []


def test_the_same_recipe_gives_the_same_bytes(tmp_path: Path) -> None:
    """Issue 5 (5): two runs in processes of their own end with the same bytes, record included."""
    recipe = write_recipe(tmp_path, "grpo")
    assert [run(recipe, tmp_path / name) for name in "ab"] == [0, 0]
    first, second = Outcome.of(tmp_path / "a", "grpo"), Outcome.of(tmp_path / "b", "grpo")
    assert first.differences(second) == []


@pytest.mark.slow
def test_fresh_processes_and_another_hash_seed(tmp_path: Path) -> None:
    """Issue 5 (5): processes that share nothing, with PYTHONHASHSEED 1 and 2, end with the same bytes."""
    recipe, found = write_recipe(tmp_path, "ppo"), []
    for seed in ("1", "2"):
        command = [sys.executable, "-m", "trimtab.cli", "run", str(recipe), "--output", str(tmp_path / seed)]
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, check=True, capture_output=True)
        model = (tmp_path / seed / "policy" / "model.safetensors").read_bytes()
        table = metrics_table(tmp_path / seed / "run", "rl")
        rest = {name: column for name, column in table.items() if not is_time(name)}
        found.append((model, rest, read_rollouts(tmp_path / seed / "run", "rl")))
    assert found[0] == found[1]


def test_the_comparison_sees_a_difference(tmp_path: Path) -> None:
    """Issue 5 (4): another seed differs in model, end of training, metrics and rollouts."""
    outcomes = []
    for seed in ("3", "4"):
        recipe = write_recipe(tmp_path, "grpo")
        assert run(recipe, tmp_path / seed, ["--seed", seed]) == 0
        outcomes.append(Outcome.of(tmp_path / seed, "grpo"))
    found = {name.split("/")[0] for name in outcomes[0].differences(outcomes[1])}
    assert found == {"model", "end", "metrics", "rollouts"}


def test_a_killed_save_of_the_model_is_no_finished_stage(tmp_path: Path) -> None:
    """Issue 5 (4): killed when the final model is written but not in its place, it is made again."""
    recipe = write_recipe(tmp_path, "sft")
    assert run(recipe, tmp_path / "out", fault="before_model_rename@1=kill") == KILLED
    assert not (tmp_path / "out" / "sft").exists()
    assert list((tmp_path / "out").glob(".sft-*"))
    assert run(recipe, tmp_path / "out", ["--resume"]) == 0
    assert (tmp_path / "out" / "sft" / "model.safetensors").is_file()
    assert not list((tmp_path / "out").glob(".sft-*"))
