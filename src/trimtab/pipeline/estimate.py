"""How long the stages of a recipe will take, from measured speeds and the length of the answers to expect.

Left out: loading and saving models, and rewards: seconds, unless a judge is asked elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from trimtab.config import Recipe, Stage
from trimtab.data import encode_pair, encode_prompt, encode_row, load_pairs, load_preferences
from trimtab.models.roofline import Workload
from trimtab.pipeline.sources import prompts_for, solutions_for
from trimtab.pipeline.speed import Speeds
from trimtab.pipeline.training import num_steps
from trimtab.rewards.steps import encode_steps
from trimtab.trainers.grpo import needs_old

SAMPLED_ROWS = 64  # rows whose mean length stands for the data's


@dataclass(frozen=True, slots=True)
class StageTime:
    """What one stage takes; ``steps`` is 0 for the evaluation, which has none."""

    stage: Stage
    steps: int
    seconds_per_step: float
    seconds: float


def estimate_stages(
    recipe: Recipe, speeds: Speeds, tokenizer: Any, new_tokens: float | None = None
) -> list[StageTime]:
    """Estimate every stage of the recipe, in order; ``new_tokens`` is a completion's mean length, at most
    ``rl.max_new_tokens`` (None: just that).

    Raises:
        DataError: a data file cannot be read.
    """
    return [estimate_stage(recipe, stage, speeds, tokenizer, new_tokens) for stage in recipe.stages]


def estimate_stage(
    recipe: Recipe, stage: Stage, speeds: Speeds, tokenizer: Any, new_tokens: float | None = None
) -> StageTime:
    """Estimate one stage that the recipe has; see ``estimate_stages`` for the errors."""
    if stage == "eval":
        return StageTime("eval", 0, 0.0, evaluation_seconds(recipe, speeds, new_tokens))
    steps = num_steps(recipe, stage)
    if stage == "rl":
        seconds = rl_seconds(recipe, speeds, tokenizer, new_tokens)
    else:
        estimate = {
            "sft": sft_seconds,
            "reward_model": reward_model_seconds,
            "process_reward": process_reward_seconds,
        }[stage]
        seconds = estimate(recipe, speeds, tokenizer)
    total = steps * seconds
    if stage == "rl" and recipe.rl is not None and recipe.rl.eval_every and recipe.rl.hidden_data:
        sampled = recipe.rl.eval_prompts * (new_tokens or recipe.rl.max_new_tokens)
        total += steps // recipe.rl.eval_every * sampled / speeds.rollout
    return StageTime(stage, steps, seconds, total)


def sft_seconds(recipe: Recipe, speeds: Speeds, tokenizer: Any) -> float:
    """Seconds of one SFT step."""
    assert recipe.sft is not None
    rows = load_pairs(recipe.sft.data, columns=recipe.sft.columns)[:SAMPLED_ROWS]
    length = fmean(
        min(len(pair), recipe.sft.max_length)
        for r in rows
        for pair in encode_row(tokenizer, r.prompt, r.completion)
    )
    return recipe.sft.batch_size * length / speeds.train + speeds.optimizer_seconds


def reward_model_seconds(recipe: Recipe, speeds: Speeds, tokenizer: Any) -> float:
    """Seconds of one step of the reward model: both sides of every pair."""
    config = recipe.reward_model
    assert config is not None
    lengths = [
        min(len(encode_pair(tokenizer, row.prompt, side)), config.max_length)
        for row in load_preferences(config.data, columns=config.columns)[:SAMPLED_ROWS]
        for side in (row.chosen, row.rejected)
    ]
    return 2 * config.batch_size * fmean(lengths) / speeds.train + speeds.optimizer_seconds


def process_reward_seconds(recipe: Recipe, speeds: Speeds, tokenizer: Any) -> float:
    """Seconds of one step of the process reward model."""
    config = recipe.process_reward
    assert config is not None
    lengths = [
        len(encode_steps(tokenizer, r.prompt, r.steps, config.separator, config.max_length).token_ids)
        for r in solutions_for(config, recipe.seed)[:SAMPLED_ROWS]
    ]
    return config.batch_size * fmean(lengths) / speeds.train + speeds.optimizer_seconds


def rl_seconds(recipe: Recipe, speeds: Speeds, tokenizer: Any, new_tokens: float | None = None) -> float:
    """Seconds of one RL step: sampling, reference, as many passes of learning as the recipe makes."""
    rl = recipe.rl
    assert rl is not None
    prompts = prompts_for(rl.data, "train", recipe.seed, SAMPLED_ROWS, rl.columns)[:SAMPLED_ROWS]
    length = new_tokens or rl.max_new_tokens
    work = Workload(rl.num_prompts, rl.num_generations, prompt_length(prompts, tokenizer), length)
    has_critic = rl.algorithm == "ppo" and rl.ppo.critic == "separate"
    learners = 1 + has_critic
    is_charged = rl.kl.coef > 0 or rl.kl.controller != "fixed"
    scored = is_charged + (needs_old(rl) or rl.algorithm == "ppo") + has_critic
    updates = rl.num_epochs_per_batch * rl.num_minibatches * learners
    return (
        work.new / speeds.rollout
        + scored * work.distinct / speeds.score
        + learners * rl.num_epochs_per_batch * work.distinct / speeds.train
        + updates * speeds.optimizer_seconds
    )


def prompt_length(prompts: Sequence[Any], tokenizer: Any) -> float:
    """Mean number of tokens of prompts."""
    return fmean(len(encode_prompt(tokenizer, prompt.messages)) for prompt in prompts)


def evaluation_seconds(recipe: Recipe, speeds: Speeds, new_tokens: float | None = None) -> float:
    """Seconds of sampling two models on hidden and on training prompts."""
    rl, config = recipe.rl, recipe.eval
    if rl is None or config is None:
        return 0.0
    completions = 2 * 2 * config.num_prompts * config.num_generations
    return completions * (new_tokens or rl.max_new_tokens) / speeds.rollout
