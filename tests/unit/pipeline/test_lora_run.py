"""The pipeline with an adapter, and with a device: from the recipe to directories that transformers loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tests.unit.pipeline.test_run import Interrupted, equal, interrupt
from tests.unit.pipeline.tiny_recipe import VARIED, Tree, changed, tiny_tree
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from trimtab.cli.main import main
from trimtab.models import load
from trimtab.models.builtin import builtin_path
from trimtab.models.checkpoint import list_checkpoints
from trimtab.models.precision import resolve_device
from trimtab.pipeline import run_pipeline
from trimtab.runs import metrics_table

pytest.importorskip("peft")

GRPO = """
[model]
path = "builtin:tiny-zh"
dtype = "float32"
[model.lora]
rank = 4
save_adapter = true
[rl]
data = "{prompts}"
rewards = ["{reward}"]
steps = 2
num_prompts = 2
num_generations = 2
max_new_tokens = 6
learning_rate = 1e-2
"""


def test_grpo_with_an_adapter_from_the_command_line(tmp_path: Path) -> None:
    """Issue 3 (3), R3: two steps on the built-in model; the policy loads in plain transformers, merged."""
    recipe = tmp_path / "lora.toml"
    prompts = tiny_tree(tmp_path)["rl"]["data"]
    recipe.write_text(GRPO.format(prompts=prompts, reward=VARIED), encoding="utf-8")
    assert main(["run", str(recipe), "--output", str(tmp_path / "out")]) == 0
    policy, base = tmp_path / "out" / "policy", builtin_path("tiny-zh")
    with safe_open(policy / "model.safetensors", framework="pt") as tensors:
        names = set(tensors.keys())
    assert not [name for name in names if "lora" in name or "base_layer" in name]
    before, after = (AutoModelForCausalLM.from_pretrained(p, dtype=torch.float32) for p in (base, policy))
    embeddings = (model.get_input_embeddings().weight for model in (before, after))
    assert torch.equal(*embeddings)
    ids = torch.arange(5, 15)[None]
    assert not torch.equal(before(ids).logits, after(ids).logits)
    assert load_file(policy / "adapter" / "adapter_model.safetensors")
    assert metrics_table(tmp_path / "out" / "run", "rl")["kl/ref"][0] == pytest.approx(0, abs=1e-9)
    assert metrics_table(tmp_path / "out" / "run", "rl")["kl/ref"][1] > 0


def lora(tree: Tree, **keys: Any) -> Tree:
    return {**tree["model"], "lora": {"rank": 2, **keys}}


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_every_stage_with_an_adapter(algorithm: str, tmp_path: Path) -> None:
    """Issue 3 (3): SFT, reward model, RL and evaluation; RL starts from the merged SFT model."""
    tree = tiny_tree(tmp_path)
    summary = run_pipeline(changed(tree, model=lora(tree), rl={"algorithm": algorithm}))
    assert list(summary["stages"]) == ["sft", "reward_model", "rl", "eval"]
    root = tmp_path / "out"
    assert not equal(Path(tree["model"]["path"]), root / "sft") and not equal(root / "sft", root / "policy")
    assert metrics_table(root / "run", "rl")["kl/ref"][0] == pytest.approx(0, abs=1e-9)
    AutoModelForCausalLM.from_pretrained(root / "policy")
    AutoModelForSequenceClassification.from_pretrained(root / "rm")
    assert not (root / "policy" / "adapter").exists()


@pytest.mark.parametrize("stage", ["sft", "reward_model", "rl"])
def test_resume_with_an_adapter(stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 2 (8), issue 3 (3): resumed training ends with the same model; checkpoints leave the base out."""
    keys: Tree = {"steps": 4, "checkpoint_every": 2}
    wanted = {name: None for name in ("sft", "reward_model", "rl", "eval") if name != stage}
    recipes = []
    for name in "ab":
        (tmp_path / name).mkdir()
        tree = tiny_tree(tmp_path / name)
        extra = {"rewards": [VARIED]} if stage == "rl" else {}
        recipes.append(changed(tree, model=lora(tree), **wanted, **{stage: {**keys, **extra}}))
    run_pipeline(recipes[0])
    with monkeypatch.context() as patch:
        interrupt(patch, stage, steps=3)
        with pytest.raises(Interrupted):
            run_pipeline(recipes[1])
    (checkpoint,) = list_checkpoints(tmp_path / "b" / "out" / "run" / "checkpoints" / stage)
    names = list(load_file(checkpoint / "tensors.safetensors"))
    assert any("lora_A" in name for name in names)
    assert not [name for name in names if "base_layer" in name or "embed" in name]
    run_pipeline(recipes[1], resume=True)
    folder = {"sft": "sft", "reward_model": "rm", "rl": "policy"}[stage]
    assert equal(tmp_path / "a" / "out" / folder, tmp_path / "b" / "out" / folder)


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_the_device_reaches_every_load(
    algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 3: policy, reference, critic, rewards and evaluation are loaded where model.device says."""
    asked: list[str | torch.device] = []

    def record(name: str | torch.device) -> torch.device:
        asked.append(name)
        return resolve_device(name)

    monkeypatch.setattr(load, "resolve_device", record)
    tree = tiny_tree(tmp_path)
    rl: Tree = {"algorithm": algorithm, "reference": tree["model"]["path"]}
    run_pipeline(changed(tree, model={**tree["model"], "device": "cpu"}, rl=rl))
    # SFT, reward model; policy, reference, reward (and critic); the reward and two models of the evaluation
    assert len(asked) == 8 + (algorithm == "ppo")
    assert {str(name) for name in asked} == {"cpu"}
