"""The Python names of R30 and what they promise."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.models.tiny import PAD, tiny_tokenizer
from tests.unit.pipeline.tiny_recipe import VARIED
from tests.unit.trainers.systems import same_weights, tiny_directory, weights
from tests.unit.trainers.test_metric_names import EVERY_STEP

import trimtab
from trimtab.errors import ConfigError, DivergedError
from trimtab.models.load import load_sequence_classifier
from trimtab.models.save import save_model
from trimtab.runs import metrics_table, read_events, read_rollouts

NAMES = """rlhf_objective ppo_loss grpo_loss AdaptiveKLController RLMonitor SalesVerifiableReward load_prompts
load_reward_model GRPOTrainer PPOTrainer"""
PROMPTS = [f"question {i}" for i in range(5)]
TRAINERS = ("GRPOTrainer", "PPOTrainer")


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_directory(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory: pytest.TempPathFactory, policy: str) -> str:
    path = str(tmp_path_factory.mktemp("rm"))
    model = load_sequence_classifier(policy, pad_token_id=PAD, dtype="float32", seed=5)
    card = {"mean": 0.1, "std": 2.0, "max_length": 1024}
    save_model(model, tiny_tokenizer(), path, {"reward_model.json": card})
    return path


def small(tmp_path: Path, **keys: Any) -> dict[str, Any]:
    """The config keys of R30, small."""
    return {
        "learning_rate": 1e-3,
        "kl_coef": 0.02,
        "num_samples_per_prompt": 2,
        "batch_size": 2,
        "max_new_tokens": 6,
        "temperature": 0.9,
        "output": str(tmp_path / "out"),
        "dtype": "float32",
        **keys,
    }


def test_every_public_name_is_there() -> None:
    """R30: the names of the specification, importable from the package."""
    assert set(NAMES.split()) <= set(trimtab.__all__)
    for name in NAMES.split():
        assert callable(getattr(trimtab, name))
    with pytest.raises(AttributeError, match="nothing"):
        _ = trimtab.nothing


@pytest.mark.parametrize("name", TRAINERS)
def test_train(name: str, policy: str, reward_model: str, tmp_path: Path) -> None:
    """R30, R13, R17: `.train(prompts, num_epochs)` gives each step's stats under the names of R13 and R17."""
    trainer = getattr(trimtab, name)(policy, reward_model, small(tmp_path, clip_ratio=10.0))
    before = weights(trainer.system.policy)
    stats = trainer.train(PROMPTS, num_epochs=2)
    assert len(stats) == trainer.step == 5  # 5 prompts × 2 epochs in batches of 2
    expected = EVERY_STEP - {"reward_part_function"}
    if name == "PPOTrainer":
        expected |= {"value_loss", "critic_explained_variance"}
    for row in stats:
        assert row.keys() >= expected
        assert all(math.isfinite(value) for value in row.values())
    assert not same_weights(before, weights(trainer.system.policy))
    assert trainer.monitor.check_health().keys() == {"healthy", "issues"}
    root = tmp_path / "out_run"
    assert metrics_table(root, "rl")["step"] == [1, 2, 3, 4, 5]
    assert len(read_rollouts(root, "rl")) == 5 * 2 * 2
    saved = trainer.save()
    assert saved == str(tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.json").is_file()


@pytest.mark.parametrize("name", TRAINERS)
def test_train_step(name: str, policy: str, tmp_path: Path) -> None:
    """R30: `train_step(prompts) -> stats` on any number of prompts, without a reward model."""
    trainer = getattr(trimtab, name)(policy, None, small(tmp_path, rewards=["length"]))
    for number in (1, 3):
        stats = trainer.train_step(PROMPTS[:number])
        assert {"loss", "mean_reward", "reward_std", "kl_divergence"} <= stats.keys()
    rollouts = read_rollouts(tmp_path / "out_run", "rl", step=2)
    assert {row["prompt"] for row in rollouts} == set(PROMPTS[:3])


def test_config_keys_arrive(policy: str, tmp_path: Path) -> None:
    """R30: each key of the specification sets what it says; other keys of [rl] are taken too."""
    config = small(tmp_path, clip_ratio=4.0, rewards=["length"], top_p=0.8, kl={"controller": "adaptive"})
    trainer = trimtab.GRPOTrainer(policy, None, config)
    rl = trainer.rl
    assert (rl.learning_rate, rl.kl.coef, rl.clip.ratio) == (1e-3, 0.02, 4.0)
    assert (rl.num_generations, rl.num_prompts, rl.max_new_tokens) == (2, 2, 6)
    assert (rl.temperature, rl.top_p, rl.kl.controller) == (0.9, 0.8, "adaptive")
    assert config["kl"] == {"controller": "adaptive"}, "the caller's dictionary stays as it was"
    backwards = trimtab.GRPOTrainer(policy, None, dict(reversed(config.items()))).rl
    assert backwards.kl == rl.kl


def test_an_adapter_from_python(policy: str, tmp_path: Path) -> None:
    """R30, issue 3 (3): `lora` and `device` are tables and keys of [model]; the saved policy is merged."""
    pytest.importorskip("peft")
    config = small(tmp_path, rewards=["length"], lora={"rank": 2, "save_adapter": True}, device="cpu")
    trainer = trimtab.GRPOTrainer(policy, None, config)
    trainer.train_step(PROMPTS[:2])
    saved = Path(trainer.save())
    assert (saved / "model.safetensors").is_file() and (saved / "adapter" / "adapter_config.json").is_file()
    with pytest.raises(ConfigError, match=r"model\.lora\.rnak.*did you mean 'rank'"):
        trimtab.GRPOTrainer(policy, None, {**config, "lora": {"rnak": 2}})


def test_defaults_are_those_of_the_recipes(policy: str, tmp_path: Path) -> None:
    """R11, R6: without a config the everyday defaults hold."""
    grpo = trimtab.GRPOTrainer(policy, None, {"rewards": ["length"], "output": str(tmp_path / "g")}).rl
    assert (grpo.learning_rate, grpo.kl.coef, grpo.clip.ratio) == (3e-6, 0.001, 10.0)
    assert (grpo.num_generations, grpo.num_prompts, grpo.max_new_tokens) == (8, 4, 256)
    ppo = trimtab.PPOTrainer(policy, None, {"rewards": ["length"], "output": str(tmp_path / "p")}).rl
    assert (ppo.learning_rate, ppo.num_prompts, ppo.num_epochs_per_batch) == (1e-6, 16, 4)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"learning_rte": 1e-6}, "unknown key 'learning_rte' (did you mean 'learning_rate'?)"),
        ({"num_samples": 4}, "did you mean 'num_samples_per_prompt'?"),
        ({"learning_rate": -1}, "rl.learning_rate"),
        ({"num_samples_per_prompt": 1}, "nothing to compare"),
        ({}, "config needs 'rewards'"),
    ],
)
def test_wrong_configs(config: dict[str, Any], words: str, policy: str, tmp_path: Path) -> None:
    """R30: an unknown key names the nearest one; nothing is loaded or written before that."""
    given = {"output": str(tmp_path / "out"), **config}
    if config:
        given["rewards"] = ["length"]
    with pytest.raises(ConfigError) as caught:
        trimtab.GRPOTrainer(policy, None, given)
    assert words in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_too_few_prompts_or_epochs(policy: str, tmp_path: Path) -> None:
    """R30: fewer prompts than a batch, and no epoch, are one sentence each."""
    trainer = trimtab.GRPOTrainer(policy, None, small(tmp_path, rewards=["length"], batch_size=4))
    with pytest.raises(ConfigError, match="3 prompts but batch_size = 4"):
        trainer.train(PROMPTS[:3])
    with pytest.raises(ConfigError, match="num_epochs = 0"):
        trainer.train(PROMPTS, num_epochs=0)


def test_reference_is_refreshed_from_python_too(policy: str, tmp_path: Path) -> None:
    """R10: `reference_refresh_steps` holds for train_step as it does in a recipe."""
    keys = {"rewards": [VARIED], "num_samples_per_prompt": 8, "learning_rate": 1e-2}
    config = small(tmp_path, reference_refresh_steps=1, **keys)
    trainer = trimtab.GRPOTrainer(policy, None, config)
    before = weights(trainer.system.policy)
    trainer.train_step(PROMPTS[:2])
    assert not same_weights(before, weights(trainer.system.policy))
    reference, model = trainer.system.reference.model.state_dict(), trainer.system.policy_model.state_dict()
    assert same_weights(dict(reference), dict(model))


def test_a_broken_run_is_stopped(policy: str, tmp_path: Path) -> None:
    """R14: from Python a diverged run is an exception, too."""
    trainer = trimtab.GRPOTrainer(policy, None, small(tmp_path, rewards=["length"]))
    with torch.no_grad():
        next(iter(trainer.system.policy_model.parameters())).fill_(math.nan)
    with pytest.raises(DivergedError):
        trainer.train(PROMPTS * 4)


def test_load_prompts_and_reward_model(reward_model: str, tmp_path: Path) -> None:
    """R3, R4, R30: a JSON list of strings; a reward model that scores a text."""
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(["你好", "price?"], ensure_ascii=False), encoding="utf-8")
    assert trimtab.load_prompts(str(path)) == ["你好", "price?"]
    model = trimtab.load_reward_model(reward_model)
    first, second = model.get_reward("hello"), model.get_reward("something else")
    assert isinstance(first, float)
    assert first != second
    assert model.get_reward("hello") == first


@pytest.mark.parametrize(("name", "is_stepwise"), [("GRPOTrainer", False), ("PPOTrainer", True)])
def test_the_trainers_can_heal(name: str, is_stepwise: bool, policy: str, tmp_path: Path) -> None:
    """R30, R14: with `guard="heal"` a step has what the guard has moved, and goes back to what is saved."""
    rules = {"kl_too_high": ["cut_lr"], "truncation": ["rollback"]}
    heal = {"policy": rules, "cooldown": 1, "max_rollbacks": 1}
    thresholds = {"truncated": 0.0}
    monitor = {"max_kl": 1e-9, "window": 2, "min_entropy": 0.0, "heal": heal, "thresholds": thresholds}
    keys = {"rewards": [VARIED], "guard": "heal", "monitor": monitor, "learning_rate": 1e-2}
    trainer = getattr(trimtab, name)(policy, None, small(tmp_path, **keys))
    before = weights(trainer.system.policy)
    if is_stepwise:
        for _ in range(6):
            trainer.train_step(PROMPTS[:2])
    else:
        trainer.train(PROMPTS[:4], num_epochs=3)
    actions = [(event.step, event.data["action"]) for event in read_events(tmp_path / "out_run", "action")]
    assert "rollback" in [action for _, action in actions]
    cut = next(step for step, action in actions if action == "cut_lr")
    rates = metrics_table(tmp_path / "out_run", "rl")["train/learning_rate"]
    assert rates[cut] == pytest.approx(0.3 * (rates[cut - 1] or 0.0))  # rates[cut - 1] is that of step cut
    assert not same_weights(before, weights(trainer.system.policy))


def test_guard_is_a_key_of_the_config(policy: str, tmp_path: Path) -> None:
    """R30: protect by default; a mode that does not exist is refused."""
    config = small(tmp_path, rewards=[VARIED])
    assert trimtab.GRPOTrainer(policy, None, config).stage.guard.mode == "protect"
    assert trimtab.GRPOTrainer(policy, None, {**config, "guard": "observe"}).stage.guard.mode == "observe"
    with pytest.raises(ConfigError, match="guard"):
        trimtab.GRPOTrainer(policy, None, {**config, "guard": "bold"})
