"""Tiny systems for tests of the trainers: a random model of a few thousand numbers, one token per byte."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from tests.unit.models.tiny import tiny_model, tiny_tokenizer
from torch import Tensor

from trimtab.config import RLConfig, build_recipe
from trimtab.data import PromptStream
from trimtab.distributed.build import System
from trimtab.distributed.worker import (
    LocalLearner,
    Reference,
    WorkerSettings,
    critic_learner,
    policy_learner,
)
from trimtab.models.save import save_model
from trimtab.models.value_head import build_critic
from trimtab.monitor import Guard
from trimtab.rollout.engine import build_engine
from trimtab.runs import RunWriter, TerminalView
from trimtab.trainers.cadence import Cadence
from trimtab.trainers.grpo import train_grpo
from trimtab.trainers.ppo import train_ppo
from trimtab.trainers.stage import Stage
from trimtab.types import Prompt, RewardResult, Sample

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # 1, but for tests/matrix.py


class FunctionReward:
    """A reward that is a function of the sample; None abstains."""

    name = "function"

    def __init__(self, function: Callable[[Sample], float | None]) -> None:
        self.function = function

    def score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        return [RewardResult(self.function(sample)) for sample in samples]


def even_share(sample: Sample) -> float:
    """The share of even token ids: about a half before training."""
    return sum(token % 2 == 0 for token in sample.token_ids) / max(len(sample.token_ids), 1)


def rl_config(algorithm: str = "grpo", **keys: Any) -> RLConfig:
    """A small ``[rl]`` section with the preset of ``algorithm``."""
    small = {
        "num_prompts": 2,
        "num_generations": 4,
        "num_minibatches": 1,
        "max_new_tokens": 6,
        "steps": 3,
        "learning_rate": 1e-3,
        "top_p": 1.0,
    }
    tree = {**small, "algorithm": algorithm, "data": "prompts", "rewards": ["length"], **keys}
    recipe = build_recipe({"rl": tree})
    assert recipe.rl is not None
    return recipe.rl


def prompts(count: int = 8) -> list[Prompt]:
    """Short prompts of different lengths."""
    return [Prompt(str(i), ({"role": "user", "content": "ab" * (1 + i % 3) + str(i)},)) for i in range(count)]


def tiny_system(rl: RLConfig, reward: Any = None, *, engine: Any = None, seed: int = 0) -> System:
    """A system around a tiny random model; ``reward`` may be a function of a sample."""
    model, tokenizer = tiny_model("Llama", seed=seed), tiny_tokenizer()
    settings = WorkerSettings(
        learning_rate=rl.learning_rate,
        weight_decay=rl.weight_decay,
        microbatch_size=rl.microbatch_size,
        temperature=rl.temperature,
    )
    critic, head = None, None
    if rl.algorithm == "ppo":
        built: Any = build_critic(rl.ppo.critic, None, model)
        head = built if rl.ppo.critic == "shared" else None
        critic = critic_learner(built, settings) if head is None else None
    reward = even_share if reward is None else reward
    return System(
        policy=policy_learner(model, settings, head),
        reference=Reference(tiny_model("Llama", seed=seed), settings),
        engine=engine or build_engine(model, tokenizer),
        reward=FunctionReward(reward) if callable(reward) else reward,
        tokenizer=tokenizer,
        policy_model=model,
        critic=critic,
    )


def quiet_view(steps: int = 1, stage: str = "rl") -> TerminalView:
    """A view that writes into nothing."""
    return TerminalView(steps, stage, samples=0, console=Console(file=io.StringIO()))


def tiny_stage(root: Path, name: str = "rl", **settings: Any) -> Stage:
    """A stage that records in ``root``."""
    run = RunWriter(root, {}, resume=settings.get("is_resumed", False))
    return Stage(name, run, quiet_view(stage=name), Guard(), **settings)


def drawn_again(generation: int) -> list[Prompt]:
    """The prompts of a later generation: none of them is in an earlier one."""
    return [
        Prompt(f"{generation}-{i}", ({"role": "user", "content": f"{'cd' * (1 + i % 3)}{generation}.{i}"},))
        for i in range(8)
    ]


def train(system: System, rl: RLConfig, stage: Stage, seed: int = 1) -> None:
    """Run the loop that the algorithm asks for, on eight prompts."""
    loop = train_ppo if rl.algorithm == "ppo" else train_grpo
    stream = PromptStream(prompts(), seed=seed, draw=drawn_again if rl.refresh_every else None)
    loop(system, stream, rl, stage, Cadence(rl=rl, stage=stage, seed=seed))


def weights(learner: LocalLearner | Any) -> dict[str, Tensor]:
    """A copy of every parameter."""
    return {name: p.detach().clone() for name, p in learner.module.named_parameters()}


def same_weights(before: dict[str, Tensor], after: dict[str, Tensor]) -> bool:
    """Whether every parameter is equal bit for bit."""
    return before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def tiny_directory(path: Path, seed: int = 0) -> str:
    """Save a tiny model and its tokenizer; return the directory."""
    save_model(tiny_model("Llama", seed=seed), tiny_tokenizer(), str(path))
    return str(path)
