"""What --resume finds changed: it applies, is ignored, or is refused, and each is said (issue 14, A.10)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.unit.pipeline.test_run import Interrupted, equal, interrupt
from tests.unit.pipeline.tiny_recipe import VARIED, Tree, changed, tiny_tree

from trimtab.config import Recipe
from trimtab.errors import CheckpointError, DataError
from trimtab.models.checkpoint import list_checkpoints
from trimtab.pipeline import run_pipeline
from trimtab.pipeline.inputs import file_digest, model_digest, rows_digest
from trimtab.pipeline.resuming import Progress, stages_to_run
from trimtab.runs import metrics_table, read_events

KEYS: Tree = {"rewards": [VARIED], "steps": 4, "checkpoint_every": 2, "hidden_data": None}


def rl_only(tree: Tree, **keys: Any) -> Recipe:
    """The tiny recipe with its RL stage alone."""
    return changed(tree, sft=None, reward_model=None, eval=None, rl={**KEYS, **keys})


def interrupted(tree: Tree, monkeypatch: pytest.MonkeyPatch, **keys: Any) -> None:
    """Stop the RL stage when it has logged step 3: its newest checkpoint is of step 2."""
    with monkeypatch.context() as patch:
        interrupt(patch, "rl", steps=3)
        with pytest.raises(Interrupted):
            run_pipeline(rl_only(tree, **keys))


def told(root: Path) -> dict[str, str]:
    """Key → effect of the changes in the record."""
    notes = read_events(root / "out" / "run", "note")
    return {note.data["key"]: note.data["effect"] for note in notes if "effect" in note.data}


def test_more_steps_go_on_as_if_they_had_been_asked_for(tmp_path: Path) -> None:
    """resume-silent: 4 steps and then 8 are bit for bit the 8 of one run: weights and metrics."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    whole, parts = tiny_tree(tmp_path / "one"), tiny_tree(tmp_path / "two")
    run_pipeline(rl_only(whole, steps=8))
    run_pipeline(rl_only(parts, steps=4))
    saved = list_checkpoints(tmp_path / "two" / "out" / "run" / "checkpoints" / "rl")
    assert [path.name for path in saved] == ["step-000002", "step-000004"]
    run_pipeline(rl_only(parts, steps=8), resume=True)
    assert equal(tmp_path / "one" / "out" / "policy", tmp_path / "two" / "out" / "policy")
    tables = [metrics_table(tmp_path / name / "out" / "run", "rl") for name in ("one", "two")]
    assert tables[0]["step"] == tables[1]["step"] == list(range(1, 9))
    assert tables[0]["reward/mean"] == tables[1]["reward/mean"]
    assert told(tmp_path / "two") == {"rl.steps": "applies"}


def test_more_steps_of_every_trained_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """resume-silent: SFT and the reward model go on too; what was trained from them stays, which is said."""
    tree = tiny_tree(tmp_path)
    run_pipeline(changed(tree, eval=None))
    run_pipeline(
        changed(tree, eval=None, sft={"steps": 5}, reward_model={"epochs": 2, "steps": None}), resume=True
    )
    ends = [(e.stage, e.step) for e in read_events(tmp_path / "out" / "run", "stage_finished")]
    assert sorted(ends) == [("reward_model", 2), ("reward_model", 4), ("rl", 3), ("sft", 3), ("sft", 5)]
    said = capsys.readouterr().err
    assert "stage sft has done 3 steps and goes on to 5" in said
    assert "stage rl started from the sft model as it was and stays so; --stage rl trains it anew" in said


@pytest.mark.parametrize("is_finished", [False, True])
def test_more_sft_steps_under_an_rl_stage_that_goes_on(
    is_finished: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The SFT model is the reference of the RL stage: it is not replaced while that goes on. A reward model
    is replaced, which is said."""
    tree = tiny_tree(tmp_path)

    def wanted(steps: int = 3, pairs: int = 2, rl_steps: int = 4) -> Recipe:
        keys = {**KEYS, "steps": rl_steps, "reward_model": None}
        return changed(tree, eval=None, sft={"steps": steps}, reward_model={"steps": pairs}, rl=keys)

    if is_finished:
        run_pipeline(wanted())
    else:
        with monkeypatch.context() as patch:
            interrupt(patch, "rl", steps=3)
            with pytest.raises(Interrupted):
                run_pipeline(wanted())
    model = (tmp_path / "out" / "sft" / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match=r"sft\.steps \(3 → 5\) is refused: stage rl goes on from step"):
        run_pipeline(wanted(steps=5, rl_steps=6), resume=True)
    assert (tmp_path / "out" / "sft" / "model.safetensors").read_bytes() == model
    if not is_finished:
        run_pipeline(wanted(pairs=4), resume=True)
        assert "stage rl goes on from step 2 beside the new reward_model model" in capsys.readouterr().err


def test_more_steps_without_a_last_checkpoint_are_refused(tmp_path: Path) -> None:
    """resume-silent: where nothing was kept to go on from, the finished policy is not trained over."""
    tree = {**tiny_tree(tmp_path), "checkpoint": {"keep_last": False}}
    run_pipeline(rl_only(tree, checkpoint_every=0))
    before = load_file(tmp_path / "out" / "policy" / "model.safetensors")
    with pytest.raises(CheckpointError, match="has finished its 4 steps and kept no checkpoint"):
        run_pipeline(rl_only(tree, checkpoint_every=0, steps=8), resume=True)
    after = load_file(tmp_path / "out" / "policy" / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_other_rows_are_refused_and_the_same_rows_elsewhere_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """resume-silent: rows count and not files; a refusal leaves the record as it was, so it is repeated."""
    tree = tiny_tree(tmp_path)
    interrupted(tree, monkeypatch)
    rows = json.loads((tmp_path / "prompts.json").read_text())
    (tmp_path / "prompts.json").write_text(json.dumps([*rows[:-1], "another question"]))
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"rl\.data \(the rows of .* → other rows\) is refused"):
            run_pipeline(rl_only(tree, learning_rate=1e-4), resume=True)
    (tmp_path / "moved.json").write_text(json.dumps(rows, indent=3))
    run_pipeline(rl_only(tree, data=str(tmp_path / "moved.json")), resume=True)
    assert told(tmp_path) == {"rl.data": "applies"}
    assert metrics_table(tmp_path / "out" / "run", "rl")["step"] == [1, 2, 3, 4]


@pytest.mark.parametrize("how", ["in place", "path", "reference", "new reference", "rl.model"])
def test_another_model_is_refused(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """resume-silent: other weights of the same shape would become the reference."""
    tree = tiny_tree(tmp_path)
    base = Path(tree["model"]["path"])
    keys = {"reference": str(base)} if how == "reference" else {}
    interrupted(tree, monkeypatch, **keys)
    other = base.parent / "other"
    other.mkdir()
    for file in base.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    weights = load_file(base / "model.safetensors")
    name = sorted(weights)[0]
    weights[name] = weights[name] + 1e-3
    save_file(weights, (base if how == "in place" else other) / "model.safetensors", {"format": "pt"})
    if how == "path":
        tree = {**tree, "model": {**tree["model"], "path": str(other)}}
    keys = {"reference": str(other)} if "reference" in how else {"model": str(other)} if "rl" in how else {}
    with pytest.raises(CheckpointError, match="the reference is it"):
        run_pipeline(rl_only(tree, **keys), resume=True)


def test_the_same_model_under_another_name_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """resume-silent: a directory that was moved, and a reference that names the start, are the same."""
    tree = tiny_tree(tmp_path)
    interrupted(tree, monkeypatch)
    base = Path(tree["model"]["path"]).rename(tmp_path / "moved")
    tree = {**tree, "model": {**tree["model"], "path": str(base)}}
    run_pipeline(rl_only(tree, reference=str(base)), resume=True)
    assert told(tmp_path) == {"model.path": "applies", "rl.reference": "applies"}


def test_what_applies_what_is_ignored_and_what_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """resume-silent: every changed key is said with its effect; the fixed KL coefficient really applies."""
    tree = tiny_tree(tmp_path)
    interrupted(tree, monkeypatch)
    with pytest.raises(CheckpointError, match=r"seed \(3 → 4\) is refused: the order of the data"):
        run_pipeline(rl_only({**tree, "seed": 4}), resume=True)
    keys = {"learning_rate": 1e-4, "kl": {"coef": 0.03}, "rewards": [VARIED, "length"]}
    run_pipeline(rl_only({**tree, "monitor": {"samples": 0, "window": 5}}, **keys), resume=True)
    assert told(tmp_path) == {
        "monitor.window": "applies",
        "rl.kl.coef": "applies",
        "rl.learning_rate": "applies",
        "rl.rewards": "applies",
    }
    table = metrics_table(tmp_path / "out" / "run", "rl")
    assert table["kl/coef"][1:3] == [0.001, 0.03]
    assert table["train/learning_rate"][1:3] == [1e-3, 1e-4]


def test_a_finished_stage_ignores_its_keys(tmp_path: Path) -> None:
    """resume-silent: what a finished stage was given later has no effect, and says how to make it."""
    tree = tiny_tree(tmp_path)
    run_pipeline(rl_only(tree))
    run_pipeline(rl_only(tree, learning_rate=1e-4, steps=2), resume=True)
    notes = [note.data["text"] for note in read_events(tmp_path / "out" / "run", "note")]
    assert any("rl.learning_rate (0.001 → 0.0001) is ignored: stage rl is finished" in text for text in notes)
    assert any("has done 4 steps, more than the 2 asked for" in text for text in notes)


def test_a_changed_reward_file_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """resume-silent: a reward may be mended between two processes; its figures do not compare."""
    tree, file = tiny_tree(tmp_path), tmp_path / "rw.py"
    file.write_text("def f(completions, **kw): return [float(len(c)) for c in completions]\n")
    interrupted(tree, monkeypatch, rewards=[f"{file}:f"])
    file.write_text("def f(completions, **kw): return [float(c.count('a')) for c in completions]\n")
    run_pipeline(rl_only(tree, rewards=[f"{file}:f"]), resume=True)
    assert told(tmp_path) == {"rl.rewards[0]": "applies"}


def test_running_again_says_that_the_old_run_moves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A.10: a finished output is not replaced without a word; nothing to resume is said, too."""
    tree = tiny_tree(tmp_path)
    run_pipeline(rl_only(tree), resume=True)
    assert "nothing to go on with" in capsys.readouterr().err
    run_pipeline(rl_only(tree))
    said = capsys.readouterr().err
    assert "WARNING: there was a run in" in said and "out/run/previous" in said
    assert metrics_table(tmp_path / "out" / "run" / "previous", "rl")["step"] == [1, 2, 3, 4]


def test_a_refused_start_moves_nothing(tmp_path: Path) -> None:
    """A.10: a recipe that cannot run leaves the run that is there alone."""
    tree = tiny_tree(tmp_path)
    run_pipeline(rl_only(tree))
    with pytest.raises(DataError):
        run_pipeline(rl_only(tree, data="none.jsonl"))
    assert not (tmp_path / "out" / "run" / "previous").exists()


def test_fingerprints(tmp_path: Path) -> None:
    """resume-silent: of rows in order; of weights, also where a file is too large to be read whole."""
    (tmp_path / "a.json").write_text('[{"prompt": "x", "n": 1}, {"prompt": "y", "n": 2}]')
    (tmp_path / "b.jsonl").write_text('{"n": 1, "prompt": "x"}\n\n{"prompt": "y", "n": 2}\n')
    (tmp_path / "c.jsonl").write_text('{"prompt": "y", "n": 2}\n{"n": 1, "prompt": "x"}\n')
    a, b, c = (rows_digest(str(tmp_path / name)) for name in ("a.json", "b.jsonl", "c.jsonl"))
    assert a == b != c
    big, same, other = (tmp_path / name for name in ("big", "same", "other"))
    content = bytearray(2**27)
    big.write_bytes(content)
    same.write_bytes(content)
    content[-1] = 1
    other.write_bytes(content)
    assert file_digest(big) == file_digest(same) != file_digest(other)
    base = tiny_tree(tmp_path)["model"]["path"]
    assert model_digest(base) == model_digest(base)


def test_what_is_left_to_run() -> None:
    """A.10: finished stages are skipped; the evaluation is made again when anything before it is trained."""
    done, longer, cut = Progress(4, 4, 4), Progress(4, 4, 8), Progress(None, 2, 4)
    stages = ("sft", "rl", "eval")
    assert stages_to_run(stages, {"sft": done, "rl": done, "eval": Progress(0, None, 0)}) == []
    assert stages_to_run(stages, {"sft": done, "rl": longer, "eval": Progress(0, None, 0)}) == ["rl", "eval"]
    assert stages_to_run(stages, {"sft": done, "rl": cut}) == ["rl", "eval"]
    assert [p.goes_on for p in (done, longer, cut, Progress(None, None, 4))] == [False, True, True, False]
