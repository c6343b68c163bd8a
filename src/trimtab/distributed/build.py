"""Put a system together: the only place that knows whether it is on one machine. One machine for now."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from trimtab.config import ModelConfig, Recipe, RewardSpec, RLConfig
from trimtab.distributed.interfaces import Learner
from trimtab.distributed.worker import (
    Reference,
    WorkerSettings,
    critic_learner,
    exact_kl,
    policy_learner,
)
from trimtab.errors import ModelError
from trimtab.models.agreement import compare, refuse, subject_of
from trimtab.models.load import is_sequence_classifier, load_causal_lm, load_tokenizer
from trimtab.models.lora import AdapterOff, add_adapter
from trimtab.models.memory import keep_freed_memory
from trimtab.models.value_head import HeadScale, build_critic
from trimtab.rewards.base import Reward
from trimtab.rewards.learned import load_card
from trimtab.rewards.registry import build_reward
from trimtab.rewards.trained import load_scorer_tokenizer
from trimtab.rollout.engine import RolloutEngine, build_engine
from trimtab.types import TrainBatch


@dataclass
class System:
    """Everything an RL stage works with; ``critic`` is None where the policy's own head gives the values."""

    policy: Learner
    reference: Reference
    engine: RolloutEngine
    reward: Reward
    tokenizer: Any
    policy_model: Any
    critic: Learner | None = None

    @property
    def pad_id(self) -> int:
        """The padding token."""
        return int(self.tokenizer.pad_token_id)

    def publish(self, policy_version: int) -> None:
        """Give the engine the policy's weights; here they are the same memory, so only the version moves."""
        self.engine.load_weights(None, policy_version)

    def refresh_reference(self, mix: float = 1.0) -> None:
        """Move the reference a share ``mix`` of the way to the current policy; 1 replaces it (R10)."""
        self.reference.refresh(self.policy_model, mix)

    def set_temperature(self, temperature: float) -> None:
        """Score at this temperature from now on: where sampling's moves, the learner's must too (trap 9).

        Log-probabilities of rows that were sampled at another one are then not comparable; no row outlives
        its step.
        """
        self.policy.set_temperature(temperature)
        self.reference.set_temperature(temperature)

    def exact_kl(self, rows: TrainBatch) -> Tensor:
        """KL(policy ‖ reference) over the vocabulary at each completion token, ``[B, T]`` nats."""
        return exact_kl(self.policy_model, self.reference.model, rows, self.reference.settings)


def build_system(
    recipe: Recipe,
    policy_path: str,
    reward_model_path: str | None,
    *,
    reference_path: str | None = None,
    process_reward_path: str | None = None,
) -> System:
    """Load the models of ``recipe.rl`` and join them into a System, all on ``model.device``.

    With ``[model.lora]`` the policy is the loaded model with an adapter on it, and the reference is the same
    module with the adapter off. A critic of its own trains in full: it is made before the adapter.

    Args:
        recipe: a recipe with an ``[rl]`` table.
        policy_path: where the policy starts from.
        reward_model_path: for rewards that use one.
        reference_path: the frozen reference; the starting policy when None.
        process_reward_path: for rewards that judge steps.

    Raises:
        ModelError: a model cannot be loaded.
        RewardError: a reward is unknown.
    """
    rl, config = _rl(recipe), recipe.model
    if config.device == "cpu":
        keep_freed_memory()
    tokenizer = load_tokenizer(policy_path, config.chat_template)
    model = load_causal_lm(policy_path, config)
    refuse(compare(subject_of(model, "policy"), tokenizer))
    settings = WorkerSettings(
        learning_rate=rl.learning_rate,
        weight_decay=rl.weight_decay,
        microbatch_size=rl.microbatch_size,
        temperature=rl.temperature,
        **recipe.train.model_dump(),
    )
    critic, head = None, None
    if rl.algorithm == "ppo":
        built = _critic(recipe, model, tokenizer, reward_model_path)
        head = built if rl.ppo.critic == "shared" else None
        critic = critic_learner(built, settings) if head is None else None
    reference = _reference(model, config, reference_path)
    add_adapter(model, config.lora, recipe.seed)
    return System(
        policy=policy_learner(model, settings, head),
        reference=Reference(reference, settings),
        engine=build_engine(model, tokenizer, recipe.rollout, rows=rl.num_prompts * rl.num_generations),
        reward=build_reward(
            rl.rewards,
            reward_model=reward_model_path,
            process_reward=process_reward_path,
            clip=rl.reward_clip,
            device=config.device,
            chat_template=config.chat_template,
        ),
        tokenizer=tokenizer,
        policy_model=model,
        critic=critic,
    )


def _rl(recipe: Recipe) -> RLConfig:
    assert recipe.rl is not None
    return recipe.rl


def _reference(model: Any, config: ModelConfig, path: str | None) -> Any:
    """The model at ``path``, or the start of the policy: a copy where the policy's own weights will move."""
    if path:
        return load_causal_lm(path, config)
    return AdapterOff(model) if config.lora else copy.deepcopy(model)


def _critic(recipe: Recipe, model: Any, tokenizer: Any, reward_model_path: str | None) -> Any:
    """The critic, on the scale of the rewards that it predicts.

    Raises:
        ModelError: the reward model that it starts from reads other token ids than the policy writes.
    """
    rl = _rl(recipe)
    init = reward_model_path if rl.ppo.critic_init == "reward_model" else None
    if rl.ppo.critic == "shared" or init is None or not is_sequence_classifier(init):
        return build_critic(rl.ppo.critic, init, model, recipe.model, recipe.seed)
    _refuse_other_vocabulary(init, tokenizer, recipe.model.chat_template)
    return build_critic(
        rl.ppo.critic, init, model, recipe.model, recipe.seed, scale=_reward_scale(init, rl.rewards)
    )


def _reward_scale(path: str, rewards: Sequence[RewardSpec]) -> HeadScale:
    """How a reward model's raw scores become rewards: normalised by its card, times the reward's weight."""
    card = load_card(path)
    std = float(card.get("std", 1.0)) or 1.0
    weights = [r.weight for r in rewards if r.name == "reward_model" and r.options.get("path", path) == path]
    factor = (sum(weights) if weights else 1.0) / std
    return HeadScale(factor, -float(card.get("mean", 0.0)) * factor)


def _refuse_other_vocabulary(path: str, tokenizer: Any, template: str | None) -> None:
    own = load_scorer_tokenizer(path, template).get_vocab()
    if own == tokenizer.get_vocab():
        return
    raise ModelError(
        f"The critic cannot start from the reward model {path}: its vocabulary is not the policy's, so it "
        'would misread every token. Set rl.ppo.critic_init = "policy".'
    )
