"""Resume after memory ran out: the run goes on in the smaller micro-batches that it had found out."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.faults.forks import KILLED, Outcome, run, write_recipe

from trimtab.runs import read_events

OOM = "mid_backward@2=oom"


@pytest.mark.parametrize("kind", ["reward_model", "grpo", "sft"])
def test_resume_keeps_the_smaller_micro_batches(kind: str, tmp_path: Path) -> None:
    """Issue 5 (4): killed after memory ran out and a checkpoint; it ends with the bytes of a whole run."""
    recipe = write_recipe(tmp_path, kind)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run(recipe, whole, fault=OOM) == 0, (tmp_path / "whole.log").read_text()
    assert run(recipe, cut, fault=f"{OOM},step_finished@5=kill") == KILLED
    assert [e.data["num_rows"] > 1 for e in read_events(cut / "run", "out_of_memory")] == [True]
    assert run(recipe, cut, ["--resume"]) == 0, (tmp_path / "cut.log").read_text()
    assert Outcome.of(cut, kind).differences(Outcome.of(whole, kind)) == []
