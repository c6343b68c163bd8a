"""How fast a model samples and learns on this machine, measured by doing a little of both."""

from __future__ import annotations

import random
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from trimtab.config import Recipe, RLConfig, build_recipe
from trimtab.distributed.worker import WorkerSettings, policy_learner
from trimtab.models.lora import add_adapter
from trimtab.models.roofline import (
    Workload,
    measure_ceilings,
    rollout_roofline,
    shape_of,
    synchronize,
    training_ceiling,
    training_flops,
)
from trimtab.rollout.engine import RolloutEngine, SamplingParams, build_engine
from trimtab.trainers.batching import make_batch
from trimtab.trainers.objectives import PolicyObjective
from trimtab.types import Prompt, RewardResult, RolloutGroup, TrainBatch

TRAIN_ROWS = 2048  # rows at which the products of a training batch are measured


@dataclass(frozen=True, slots=True)
class Speeds:
    """Tokens per second; those of prompts count once for their group. Fractions are of the roofline."""

    rollout: float
    score: float  # log-probabilities without gradient: the reference
    train: float  # forward and backward
    optimizer_seconds: float  # of one optimizer step
    rollout_fraction: float | None = None
    train_fraction: float | None = None
    peak_bytes: int = 0


def measure_speeds(recipe: Recipe, model: Any, tokenizer: Any, work: Workload) -> Speeds:
    """Sample ``work`` from ``model`` and learn on it, each once to warm up and once for the figure.

    The weights move: the model is of no use afterwards.
    """
    rl = recipe.rl or usual_rl()
    engine = build_engine(model, tokenizer, recipe.rollout)
    prompts = _prompts(model, work)
    params = SamplingParams(max_new_tokens=int(work.new_tokens), min_new_tokens=int(work.new_tokens))
    device = model.device
    rollout, groups = _timed(lambda: sample_groups(engine, prompts, work, params), device)
    add_adapter(model, recipe.model.lora, recipe.seed)
    settings = WorkerSettings(learning_rate=rl.learning_rate, **recipe.train.model_dump())
    learner = policy_learner(model, settings)
    rows = rows_of(groups, int(tokenizer.pad_token_id or 0))
    score, _ = _timed(lambda: learner.logprobs(rows), device)
    objective = PolicyObjective.of(rl, rows, rl.kl.coef)
    train, _ = _timed(lambda: learner.forward_backward(rows, objective), device)
    optimizer, _ = _timed(lambda: learner.optimizer_step(rl.learning_rate), device, warm_up=False)
    shape = shape_of(model)
    ceilings = measure_ceilings(shape, [work.rows, TRAIN_ROWS], model.dtype, device)
    ceiling = training_ceiling(shape, ceilings, work, TRAIN_ROWS)
    return Speeds(
        rollout=work.new / rollout,
        score=work.distinct / score,
        train=work.distinct / train,
        optimizer_seconds=optimizer,
        rollout_fraction=work.new / rollout / rollout_roofline(shape, ceilings, work),
        train_fraction=training_flops(shape, work) / train / ceiling,
        peak_bytes=peak_bytes(device),
    )


def peak_bytes(device: str | torch.device) -> int:
    """The most memory that this process has held so far: resident, or allocated on the accelerator."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def usual_rl() -> RLConfig:
    """The settings of an RL stage for a recipe that has none."""
    rl = build_recipe({"rl": {"data": "none", "rewards": ["length"]}}).rl
    assert rl is not None
    return rl


def _prompts(model: Any, work: Workload) -> list[list[int]]:
    """Prompts of random tokens: speed does not depend on what they say."""
    rng = random.Random(0)
    vocabulary = int(model.config.get_text_config().vocab_size)
    return [
        [rng.randrange(vocabulary) for _ in range(int(work.prompt_tokens))] for _ in range(work.num_prompts)
    ]


def sample_groups(
    engine: RolloutEngine, prompts: list[list[int]], work: Workload, params: SamplingParams
) -> list[RolloutGroup]:
    """Groups with rewards that are all different, so that every row has a gradient."""
    sampled = engine.generate(prompts, work.num_generations, params)
    prompt = Prompt("", ({"role": "user", "content": ""},))
    rewards = tuple(RewardResult(float(i)) for i in range(work.num_generations))
    return [
        RolloutGroup(prompt, tuple(ids), tuple(group), rewards)
        for ids, group in zip(prompts, sampled, strict=True)
    ]


def rows_of(groups: list[RolloutGroup], pad_id: int) -> TrainBatch:
    """A batch whose advantages are not 0 and whose reference is the policy that sampled."""
    batch = make_batch(groups, pad_id)
    mask, rows = batch.rows.completion_mask, batch.rows
    advantages = (batch.rewards - batch.rewards.mean() + 0.25).unsqueeze(1) * mask
    return replace(rows, advantages=advantages, ref_logprobs=rows.rollout_logprobs, sampling_logprobs=None)


def _timed(call: Callable[[], Any], device: Any, *, warm_up: bool = True) -> tuple[float, Any]:
    """Seconds of the last call, and what it returned."""
    if warm_up:
        call()
    synchronize(device)
    start = time.perf_counter()
    result = call()
    synchronize(device)
    return time.perf_counter() - start, result
