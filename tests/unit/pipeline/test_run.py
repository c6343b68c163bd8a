"""The stages of a recipe, in order, alone, again, and after an interruption."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.unit.pipeline.tiny_recipe import VARIED, Tree, changed, tiny_tree

from trimtab.cli.main import main
from trimtab.errors import ConfigError, DivergedError, ModelError
from trimtab.models.checkpoint import list_checkpoints
from trimtab.pipeline import run as pipeline
from trimtab.pipeline import run_pipeline
from trimtab.runs import metrics_table, read_events, read_rollouts
from trimtab.trainers import stage as stages

STAGES = ["sft", "reward_model", "rl", "eval"]


class Interrupted(Exception):
    """Stands for Ctrl-C or a power cut."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tree, dict[str, Any]]:
    """One run of all four stages; tests must not write there."""
    root = tmp_path_factory.mktemp("pipeline")
    tree = tiny_tree(root)
    return root / "out", tree, run_pipeline(changed(tree))


def weights_of(directory: Path) -> Mapping[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


def equal(a: Path, b: Path) -> bool:
    """Whether two model directories hold the same numbers."""
    first, second = weights_of(a), weights_of(b)
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def stages_started(root: Path) -> list[str]:
    return [event.stage for event in read_events(root / "run", "stage_started")]


def interrupt(monkeypatch: pytest.MonkeyPatch, name: str, steps: int) -> None:
    """Let stage ``name`` die when it has logged ``steps`` steps."""
    real = stages.Stage.log

    def log(self: stages.Stage, step: int, metrics: Mapping[str, float]) -> None:
        real(self, step, metrics)
        if self.name == name and step + 1 == steps:
            raise Interrupted

    monkeypatch.setattr(stages.Stage, "log", log)


def test_stages_in_order(finished: tuple[Path, Tree, dict[str, Any]]) -> None:
    """R1, R3: SFT, reward model, RL, evaluation; everything under --output DIR where the issue says."""
    root, _, _ = finished
    assert stages_started(root) == STAGES
    assert [event.stage for event in read_events(root / "run", "stage_finished")] == STAGES
    for name in ("sft", "rm", "policy"):
        files = {path.name for path in (root / name).iterdir()}
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= files
    assert (root / "rm" / "reward_model.json").is_file()
    assert {path.name for path in root.iterdir()} == {"sft", "rm", "policy", "run", "summary.json"}
    assert (root / "run" / "report.md").is_file()
    for name, steps in (("sft", 3), ("reward_model", 2), ("rl", 3)):
        assert metrics_table(root / "run", name)["step"] == list(range(1, steps + 1))
    assert len(read_rollouts(root / "run", "rl")) == 12


def test_summary_has_the_figures_of_the_issue(finished: tuple[Path, Tree, dict[str, Any]]) -> None:
    """Issue 2 (must show): every key of summary.json, as numbers."""
    root, _, summary = finished
    assert json.loads((root / "summary.json").read_text()) == summary
    assert list(summary["stages"]) == STAGES
    keys = [
        "reward_model.accuracy", "sft.reward", "policy.reward", "hidden.sft", "hidden.policy", "kl",
        "win_rate.value", "win_rate.low", "win_rate.high", "win_rate.n",
        "distinct_2.sft", "distinct_2.policy",
        "stages.sft", "stages.reward_model", "stages.rl", "stages.eval",
    ]  # fmt: skip
    for key in keys:
        value: Any = summary
        for part in key.split("."):
            value = value[part]
        assert isinstance(value, (int, float)), key
    assert 0 <= summary["win_rate"]["low"] <= summary["win_rate"]["value"] <= summary["win_rate"]["high"] <= 1
    assert summary["win_rate"]["n"] == 3
    assert summary["kl"] >= 0


def test_each_stage_starts_from_the_one_before(finished: tuple[Path, Tree, dict[str, Any]]) -> None:
    """R1: SFT moved the base, RL moved the SFT model, and the reference is the SFT model: KL starts at 0."""
    root, tree, _ = finished
    assert not equal(Path(tree["model"]["path"]), root / "sft")
    assert not equal(root / "sft", root / "policy")
    assert metrics_table(root / "run", "rl")["kl/ref"][0] == pytest.approx(0, abs=1e-9)


def test_same_recipe_same_weights(finished: tuple[Path, Tree, dict[str, Any]], tmp_path: Path) -> None:
    """Issue 2: a second run of the recipe gives the same policy, bit for bit, and the same figures."""
    root, _, summary = finished
    again = run_pipeline(changed(tiny_tree(tmp_path)))
    assert equal(root / "policy", tmp_path / "out" / "policy")
    assert equal(root / "rm", tmp_path / "out" / "rm")
    for name in ("hidden", "kl", "distinct_2", "win_rate", "reward_model"):
        assert again[name] == summary[name], name


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("rl", "There is no SFT model at .*: run the recipe with --stage sft first"),
        ("reward_model", "There is no SFT model at"),
        ("eval", "There is no SFT model at|There is no reward model at"),
    ],
)
def test_a_stage_alone_needs_the_one_before(stage: Any, words: str, tmp_path: Path) -> None:
    """Issue 2: `--stage rl` without an SFT model is one sentence that says what to run first."""
    with pytest.raises(ModelError, match=words):
        run_pipeline(changed(tiny_tree(tmp_path)), stage=stage)


def test_rl_needs_the_reward_model_that_its_reward_uses(tmp_path: Path) -> None:
    """Issue 2: the missing reward-model stage is named, too."""
    recipe = changed(tiny_tree(tmp_path))
    run_pipeline(recipe, stage="sft")
    with pytest.raises(ModelError, match=r"There is no reward model at .*--stage reward_model first"):
        run_pipeline(recipe, stage="rl")


def test_a_stage_that_the_recipe_lacks(tmp_path: Path) -> None:
    """Issue 2: what is not in the recipe cannot be run, and the sentence lists what is."""
    tree = tiny_tree(tmp_path)
    with pytest.raises(ConfigError, match=r"no \[eval\] table.*sft, reward_model, rl"):
        run_pipeline(changed(tree, eval=None), stage="eval")
    empty = {"sft": None, "reward_model": None, "rl": None, "eval": None}
    with pytest.raises(ConfigError, match="has no stage"):
        run_pipeline(changed(tree, **empty))


def test_rl_alone_from_a_base_model(tmp_path: Path) -> None:
    """R1: without an SFT table RL starts from model.path; only the rewards that are there are needed."""
    tree = tiny_tree(tmp_path)
    rl = {"rewards": ["length"], "hidden_data": None}
    summary = run_pipeline(changed(tree, sft=None, reward_model=None, eval=None, rl=rl))
    assert list(summary["stages"]) == ["rl"]
    assert metrics_table(tmp_path / "out" / "run", "rl")["step"] == [1, 2, 3]


def test_rerunning_one_stage_keeps_the_records_of_the_others(tmp_path: Path) -> None:
    """Issue 2: `--stage sft` again replaces the records of SFT and of nothing else."""
    tree = tiny_tree(tmp_path)
    recipe = changed(tree, eval=None, reward_model=None, rl={"rewards": [VARIED]})
    run_pipeline(recipe)
    before = metrics_table(tmp_path / "out" / "run", "rl")
    shorter = changed(tree, eval=None, reward_model=None, rl={"rewards": [VARIED]}, sft={"steps": 2})
    summary = run_pipeline(shorter, stage="sft")
    assert list(summary["stages"]) == ["sft", "rl"]
    assert metrics_table(tmp_path / "out" / "run", "rl") == before
    assert metrics_table(tmp_path / "out" / "run", "sft")["step"] == [1, 2]
    assert sorted(stages_started(tmp_path / "out")) == ["rl", "sft"]


def test_training_again_makes_an_evaluation_stale(tmp_path: Path) -> None:
    """R27: figures of a policy that is no longer there are not shown as if they were of the new one."""
    tree = tiny_tree(tmp_path)
    recipe = changed(tree, sft=None, reward_model=None, rl={"rewards": [VARIED]})
    assert "hidden" in run_pipeline(recipe)
    again = run_pipeline(recipe, stage="rl")
    assert list(again["stages"]) == ["rl"]
    assert "hidden" not in again
    assert list(run_pipeline(recipe, resume=True)["stages"]) == ["rl", "eval"]


def test_a_new_run_starts_a_new_record(tmp_path: Path) -> None:
    """Issue 2: without --stage or --resume the earlier record is set aside, whole."""
    recipe = changed(tiny_tree(tmp_path), sft=None, reward_model=None, eval=None, rl={"rewards": [VARIED]})
    run_pipeline(recipe)
    run_pipeline(recipe)
    assert metrics_table(tmp_path / "out" / "run", "rl")["step"] == [1, 2, 3]
    assert metrics_table(tmp_path / "out" / "run" / "previous", "rl")["step"] == [1, 2, 3]


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_resume_goes_on(algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 2 (8): --resume skips what is finished, goes on in RL, and ends with the same policy."""
    keys: Tree = {"algorithm": algorithm, "rewards": [VARIED], "steps": 4, "checkpoint_every": 2}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = changed(tiny_tree(tmp_path / "a"), reward_model=None, eval=None, rl=keys)
    broken = changed(tiny_tree(tmp_path / "b"), reward_model=None, eval=None, rl=keys)
    run_pipeline(whole)
    with monkeypatch.context() as patch:
        interrupt(patch, "rl", steps=3)
        with pytest.raises(Interrupted):
            run_pipeline(broken)
    assert not (tmp_path / "b" / "out" / "policy").exists()
    summary = run_pipeline(broken, resume=True)
    assert equal(tmp_path / "a" / "out" / "policy", tmp_path / "b" / "out" / "policy")
    assert list(summary["stages"]) == ["sft", "rl"]
    assert stages_started(tmp_path / "b" / "out").count("sft") == 1
    assert metrics_table(tmp_path / "b" / "out" / "run", "rl")["step"] == [1, 2, 3, 4]
    assert len(read_events(tmp_path / "b" / "out" / "run", "metrics", "rl")) == 4


def test_resume_of_a_finished_run_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 2 (8): every stage is skipped, the summary is the same; a lost model is made again."""
    recipe = changed(tiny_tree(tmp_path), reward_model=None, eval=None, rl={"rewards": [VARIED]})
    summary = run_pipeline(recipe)
    monkeypatch.setattr(pipeline, "RUNNERS", {})
    assert run_pipeline(recipe, resume=True) == summary


def test_resume_without_a_checkpoint_starts_the_stage_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 2 (8): an interrupted stage without a checkpoint leaves no second copy of its steps behind."""
    recipe = changed(tiny_tree(tmp_path), sft=None, reward_model=None, eval=None, rl={"rewards": [VARIED]})
    with monkeypatch.context() as patch:
        interrupt(patch, "rl", steps=2)
        with pytest.raises(Interrupted):
            run_pipeline(recipe)
    run_pipeline(recipe, resume=True)
    events = read_events(tmp_path / "out" / "run", "metrics", "rl")
    assert [event.step for event in events] == [1, 2, 3]


def test_a_rerun_stage_forgets_its_old_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 2 (8): --resume after a rerun goes on with the rerun, not with the run before it."""
    keys: Tree = {"rewards": [VARIED], "steps": 4, "checkpoint_every": 3}
    recipe = changed(tiny_tree(tmp_path), sft=None, reward_model=None, eval=None, rl=keys)
    run_pipeline(recipe, stage="rl")
    folder = tmp_path / "out" / "run" / "checkpoints" / "rl"
    assert [path.name for path in list_checkpoints(folder)] == ["step-000003", "step-000004"]
    with monkeypatch.context() as patch:
        interrupt(patch, "rl", steps=1)
        with pytest.raises(Interrupted):
            run_pipeline(recipe, stage="rl")
    assert not list_checkpoints(folder)
    run_pipeline(recipe, stage="rl", resume=True)
    assert [e.step for e in read_events(tmp_path / "out" / "run", "metrics", "rl")] == [1, 2, 3, 4]


def test_a_diverged_stage_ends_the_run(tmp_path: Path) -> None:
    """R14: DivergedError passes through, and no policy or summary is left that looks like a result."""
    keys: Tree = {"rewards": [VARIED], "steps": 30, "learning_rate": 1e30, "max_grad_norm": 1e30}
    recipe = changed(tiny_tree(tmp_path), sft=None, reward_model=None, eval=None, rl=keys)
    with pytest.raises(DivergedError):
        run_pipeline(recipe)
    assert not (tmp_path / "out" / "policy").exists()
    assert not (tmp_path / "out" / "summary.json").exists()
    assert not read_events(tmp_path / "out" / "run", "stage_finished")


TOML = """
[model]
path = "{base}"
dtype = "float32"
[rl]
data = "{prompts}"
rewards = ["{reward}"]
steps = 30
num_prompts = 2
num_generations = 2
max_new_tokens = 8
learning_rate = 10.0
"""


def test_exit_codes_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Issue 2, R14: a diverged run exits with 3, a user's mistake with 2, a run that went well with 0."""
    tree = tiny_tree(tmp_path)
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        TOML.format(base=tree["model"]["path"], prompts=tree["rl"]["data"], reward=VARIED), encoding="utf-8"
    )
    command = ["run", str(recipe), "--output", str(tmp_path / "out")]
    assert main(command) == 3
    shown = capsys.readouterr().err.strip().splitlines()[-1]
    assert shown.startswith("trimtab: error: Stage rl was stopped at step")
    assert "Traceback" not in shown
    assert main([*command, "--stage", "sft"]) == 2
    assert main([*command, "--rl.learning_rate", "1e-4", "--rl.steps", "2"]) == 0
    assert (tmp_path / "out" / "policy" / "config.json").is_file()


LOADS = """
import sys
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
root = sys.argv[1]
for name in ("sft", "policy", "rm"):
    tokenizer = AutoTokenizer.from_pretrained(f"{root}/{name}")
    loader = AutoModelForSequenceClassification if name == "rm" else AutoModelForCausalLM
    model = loader.from_pretrained(f"{root}/{name}")
    chat = [{"role": "user", "content": "hi"}]
    inputs = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    if name == "rm":
        assert model(**inputs).logits.shape == (1, 1)
    else:
        out = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        assert out.shape[1] > inputs["input_ids"].shape[1]
assert not [m for m in sys.modules if m.split(".")[0] == "trimtab"]
print("loaded")
"""


@pytest.mark.slow
def test_outputs_load_without_trimtab(finished: tuple[Path, Tree, dict[str, Any]]) -> None:
    """R3: every output directory loads with plain transformers, tokenizer and chat template included."""
    found = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", LOADS, str(finished[0])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout.strip() == "loaded", found.stderr


def test_the_manifest_names_the_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 4: with the reward `code` the manifest has its sandbox and the self-tests; without, nothing."""
    from trimtab.rewards import registry

    told = {"name": "landlock", "level": 2, "bounds": "rlimits only", "self_tests": {"landlock": "passed"}}
    asked: list[str] = []
    monkeypatch.setattr(registry, "describe_choice", lambda wanted: asked.append(wanted) or told)
    tests = [{"fn": "f", "args": [], "expected": 1}]
    (tmp_path / "rows.json").write_text(
        json.dumps([{"prompt": f"write f {i}", "tests": tests} for i in range(4)])
    )
    rows = {"data": str(tmp_path / "rows.json"), "hidden_data": None, "steps": 1}
    rewards = [{"name": "code", "options": {"sandbox": "subprocess"}}]
    alone: dict[str, Any] = {"sft": None, "reward_model": None, "eval": None}
    run_pipeline(changed(tiny_tree(tmp_path), rl={**rows, "rewards": rewards}, **alone))
    manifest = json.loads((tmp_path / "out" / "run" / "manifest.json").read_text())
    assert manifest["sandbox"] == told and asked == ["subprocess"]
    run_pipeline(changed(tiny_tree(tmp_path), rl={**rows, "rewards": [VARIED]}, **alone))
    assert "sandbox" not in json.loads((tmp_path / "out" / "run" / "manifest.json").read_text())
