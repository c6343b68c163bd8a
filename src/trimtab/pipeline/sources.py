"""Where a stage takes its models and prompts from: the recipe, an earlier stage's output, or a task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from trimtab.config import ProcessRewardConfig, Recipe
from trimtab.data import Stepwise, load_prompts, load_stepwise
from trimtab.errors import ConfigError, ModelError
from trimtab.rewards.registry import uses_process_reward, uses_reward_model
from trimtab.tasks.registry import load_task_prompts, load_task_solutions
from trimtab.types import Prompt

TASK = "task:"
NUM_TRAIN, NUM_HIDDEN = 4096, 512  # prompts drawn from a procedural task


def prompts_for(
    source: str,
    split: Literal["train", "hidden"],
    seed: int,
    limit: int | None = None,
    columns: Mapping[str, str] | None = None,
) -> list[Prompt]:
    """Prompts of a file, a hub data set (``columns`` renames theirs), or `task:NAME`; at most ``limit``."""
    if source.startswith(TASK):
        count = limit or (NUM_TRAIN if split == "train" else NUM_HIDDEN)
        return load_task_prompts(source.removeprefix(TASK), split, count, seed)
    return load_prompts(source, columns=columns, limit=limit)


def train_prompts(recipe: Recipe) -> list[Prompt]:
    """The prompts of `rl.data`."""
    rl = recipe.rl
    assert rl is not None
    return prompts_for(rl.data, "train", recipe.seed, columns=rl.columns)


def held_out_prompts(recipe: Recipe, key: Literal["rl.hidden_data", "eval.data"]) -> list[Prompt]:
    """The prompts of one of the two keys that name prompts never trained on; none where it names none."""
    rl = recipe.rl
    columns = (rl.columns if rl.hidden_columns is None else rl.hidden_columns) if rl else None
    source = rl.hidden_data if rl else None
    if key == "eval.data" and recipe.eval is not None:
        source = recipe.eval.data or source
        columns = columns if recipe.eval.columns is None else recipe.eval.columns
    return prompts_for(source, "hidden", recipe.seed, columns=columns) if source else []


def solutions_for(config: ProcessRewardConfig, seed: int) -> list[Stepwise]:
    """Labelled solutions of `process_reward.data`: a file, a hub data set, or drawn from a task."""
    if config.data.startswith(TASK):
        return load_task_solutions(config.data.removeprefix(TASK), "train", config.rows, seed)
    return load_stepwise(config.data, columns=config.columns)


def sft_model(recipe: Recipe) -> str:
    """What later stages start from: the SFT stage's output, or `model.path` where there is no such stage.

    Raises:
        ModelError: the recipe has an SFT stage that was not run yet.
    """
    if recipe.sft is None:
        return recipe.model.path
    if not (Path(recipe.paths.sft) / "config.json").is_file():
        raise ModelError(
            f"There is no SFT model at {recipe.paths.sft}: run the recipe with --stage sft first, or without "
            f"--stage to run every stage in order."
        )
    return recipe.paths.sft


def policy_start(recipe: Recipe) -> str:
    """The model that RL starts from and is compared with."""
    return (recipe.rl.model if recipe.rl else None) or sft_model(recipe)


def reward_model_path(recipe: Recipe) -> str | None:
    """The reward model for RL: the recipe's, or the reward-model stage's output; None where nothing asks.

    Raises:
        ModelError: one is needed and the recipe's reward-model stage was not run yet.
    """
    rl = recipe.rl
    if rl is not None and rl.reward_model:
        return rl.reward_model
    is_for_critic = rl is not None and rl.algorithm == "ppo" and rl.ppo.critic_init == "reward_model"
    if recipe.reward_model is None or rl is None:
        return None
    if not (is_for_critic or uses_reward_model([*rl.rewards, *rl.hidden_rewards])):
        return None
    if not (Path(recipe.paths.reward_model) / "config.json").is_file():
        raise ModelError(
            f"There is no reward model at {recipe.paths.reward_model}: run the recipe with --stage "
            f"reward_model first, or without --stage to run every stage in order."
        )
    return recipe.paths.reward_model


def process_reward_path(recipe: Recipe) -> str | None:
    """The process reward model for RL, in `paths.process_reward`; None where no reward asks for it.

    Raises:
        ModelError: a reward asks for it and the stage was not run yet.
    """
    rl = recipe.rl
    if rl is None or not uses_process_reward([*rl.rewards, *rl.hidden_rewards]):
        return None
    if not (Path(recipe.paths.process_reward) / "config.json").is_file():
        raise ModelError(
            f"There is no process reward model at {recipe.paths.process_reward}: run the recipe with --stage "
            f"process_reward first, or without --stage to run every stage in order."
        )
    return recipe.paths.process_reward


def hidden_source(recipe: Recipe) -> str:
    """The hidden prompts: `eval.data`, else `rl.hidden_data`.

    Raises:
        ConfigError: neither is given.
    """
    source = (recipe.eval.data if recipe.eval else None) or (recipe.rl.hidden_data if recipe.rl else None)
    if source is None:
        raise ConfigError(
            "The evaluation has no prompts: give eval.data or rl.hidden_data a file that training never sees."
        )
    return source
