"""The system that a recipe describes: which models are which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.models.tiny import PAD, tiny_tokenizer
from tests.unit.trainers.systems import same_weights, tiny_directory

from trimtab.config import Recipe, build_recipe
from trimtab.distributed.build import System, build_system
from trimtab.errors import ModelError, RewardError
from trimtab.models.load import load_sequence_classifier
from trimtab.models.lora import AdapterOff, has_adapter
from trimtab.models.save import save_model
from trimtab.rewards import encode_for_reward
from trimtab.types import Prompt, Sample


def recipe(**rl: Any) -> Recipe:
    return build_recipe({"model": {"dtype": "float32"}, "rl": {"data": "p", "rewards": ["length"], **rl}})


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_directory(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory: pytest.TempPathFactory, policy: str) -> str:
    path = tmp_path_factory.mktemp("rm")
    model = load_sequence_classifier(policy, pad_token_id=PAD, dtype="float32", seed=5)
    save_model(model, tiny_tokenizer(), str(path), {"reward_model.json": {"mean": 0.0, "std": 1.0}})
    return str(path)


def critic_of(system: System) -> Any:
    learner: Any = system.critic
    return learner.module


def test_grpo_has_no_critic(policy: str) -> None:
    """R8: policy, reference and engine; the reference is a copy, not the policy."""
    system = build_system(recipe(learning_rate=1e-4, microbatch_size=3), policy, None)
    assert system.critic is None
    assert system.reference.model is not system.policy_model
    assert same_weights(dict(system.reference.model.state_dict()), dict(system.policy_model.state_dict()))
    with torch.no_grad():
        next(iter(system.policy_model.parameters())).add_(1.0)
    assert not same_weights(dict(system.reference.model.state_dict()), dict(system.policy_model.state_dict()))
    assert system.pad_id == PAD
    assert not any(p.requires_grad for p in system.reference.model.parameters())
    assert system.reference.settings.microbatch_size == 3


def test_another_reference(policy: str, tmp_path: Path) -> None:
    """R8: the reference may be another model than the start of the policy."""
    other = tiny_directory(tmp_path / "other", seed=9)
    system = build_system(recipe(), policy, None, reference_path=other)
    assert not same_weights(dict(system.reference.model.state_dict()), dict(system.policy_model.state_dict()))


def test_an_adapter_needs_no_second_model(policy: str) -> None:
    """Issue 3 (3): with [model.lora] the reference is the policy's own module; only the adapter trains."""
    pytest.importorskip("peft")
    tree = recipe(kl={"coef": 0.1}).model_dump(exclude_none=True)
    tree["model"]["lora"] = {"rank": 4}
    system = build_system(build_recipe(tree), policy, None)
    learner: Any = system.policy
    assert all(".lora_" in name for name in learner.optimizer.parameters)
    assert isinstance(system.reference.model, AdapterOff)
    assert next(iter(system.reference.model.parameters())) is next(system.policy_model.parameters())
    assert any(p.requires_grad for p in system.policy_model.parameters())


def test_a_critic_of_its_own_has_no_adapter(policy: str) -> None:
    """Issue 3 (3), R6: the critic is made before the adapter and trains in full; so does a shared head."""
    pytest.importorskip("peft")
    for kind in ("separate", "shared"):
        tree = recipe(algorithm="ppo", ppo={"critic": kind}).model_dump(exclude_none=True)
        tree["model"]["lora"] = {"rank": 4}
        system = build_system(build_recipe(tree), policy, None)
        learner: Any = system.policy
        trained = [name for name in learner.optimizer.parameters if ".lora_" not in name]
        assert trained == (["critic.head.linear.weight", "critic.head.linear.bias"] * (kind == "shared"))
        if kind == "separate":
            critic = critic_of(system)
            assert not has_adapter(critic) and all(p.requires_grad for p in critic.parameters())


def test_ppo_critic_from_the_reward_model(policy: str, reward_model: str) -> None:
    """R6: a separate critic starts from the reward model, trunk and head."""
    critic = critic_of(build_system(recipe(algorithm="ppo"), policy, reward_model))
    trained = load_sequence_classifier(reward_model, pad_token_id=PAD, dtype="float32")
    assert torch.equal(critic.head.linear.weight, trained.score.weight.float())
    assert same_weights(dict(critic.trunk.state_dict()), dict(trained.model.state_dict()))


def test_ppo_critic_from_the_policy(policy: str, reward_model: str) -> None:
    """R6: `critic_init = policy`, or no reward model, copies the policy's trunk; the head starts at 0."""
    for path, keys in ((None, {}), (reward_model, {"critic_init": "policy"})):
        system = build_system(recipe(algorithm="ppo", ppo=keys), policy, path)
        critic = critic_of(system)
        assert float(critic.head.linear.weight.detach().abs().max()) == 0
        trunk = dict(system.policy_model.base_model.state_dict())
        assert same_weights(dict(critic.trunk.state_dict()), trunk)
        assert critic.trunk is not system.policy_model.base_model


def test_ppo_shared_critic(policy: str) -> None:
    """R6: with a shared critic the policy's learner gives the values."""
    system = build_system(recipe(algorithm="ppo", ppo={"critic": "shared"}), policy, None)
    assert system.critic is None
    learner: Any = system.policy
    assert any(name.startswith("critic.") for name, _ in learner.module.named_parameters())


def test_what_is_missing_is_named(policy: str, tmp_path: Path) -> None:
    """Issue 2: a missing model, an unknown reward, a missing reward model are one sentence each."""
    with pytest.raises(ModelError):
        build_system(recipe(), str(tmp_path / "nowhere"), None)
    with pytest.raises(RewardError, match="did you mean 'length'"):
        build_system(recipe(rewards=["lenght"]), policy, None)
    with pytest.raises(RewardError, match="needs a reward model"):
        build_system(recipe(rewards=["reward_model"]), policy, None)


def test_publishing_moves_the_version(policy: str) -> None:
    """Design: completions carry the version of the weights that sampled them."""
    system = build_system(recipe(), policy, None)
    system.publish(policy_version=7)
    assert system.engine.policy_version == 7


def test_a_critic_from_a_reward_model_predicts_its_rewards(policy: str, tmp_path: Path) -> None:
    """R6, issue 14 (A.3): scores around 30 ± 8 are normalised by the card, for the reward and the critic."""
    model = load_sequence_classifier(policy, pad_token_id=PAD, dtype="float32", seed=5)
    with torch.no_grad():
        model.score.weight.mul_(50)
    card = {"mean": 30.0, "std": 8.0}
    folder = str(save_model(model, tiny_tokenizer(), str(tmp_path / "rm"), {"reward_model.json": card}))
    spec = {"name": "reward_model", "weight": 2.0}
    system = build_system(recipe(algorithm="ppo", rewards=[spec]), policy, folder)
    answered = [Sample(Prompt("0", ({"role": "user", "content": "a?"},)), "yes")]
    reward = system.reward.score(answered)[0].value
    ids = torch.tensor([[*encode_for_reward(tiny_tokenizer(), answered[0].prompt.messages, "yes"), 5]])
    with torch.no_grad():
        value = critic_of(system)(ids, torch.ones_like(ids))[0, -1]
    assert float(value) == pytest.approx(reward, abs=1e-4)


def test_a_critic_reads_the_policys_tokens(policy: str, tmp_path: Path) -> None:
    """Trap 11: a reward model of another vocabulary cannot be the critic; the fix is named."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<more>"])
    model = load_sequence_classifier(policy, pad_token_id=PAD, dtype="float32", seed=5)
    model.resize_token_embeddings(len(tokenizer))
    folder = str(save_model(model, tokenizer, str(tmp_path / "rm")))
    with pytest.raises(ModelError, match='critic_init = "policy"'):
        build_system(recipe(algorithm="ppo", rewards=["reward_model"]), policy, folder)
    ppo = {"critic_init": "policy"}
    build_system(recipe(algorithm="ppo", rewards=["reward_model"], ppo=ppo), policy, folder)
