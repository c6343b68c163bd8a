"""The training stages: each loads its model, trains, and leaves a directory that transformers loads."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

from trimtab.config import Recipe, RLConfig
from trimtab.data import PromptStream, load_pairs, load_preferences
from trimtab.distributed.build import System, build_system
from trimtab.distributed.worker import WorkerSettings, policy_learner
from trimtab.errors import ConfigError
from trimtab.models.agreement import compare, refuse, subject_of
from trimtab.models.load import (
    load_causal_lm,
    load_sequence_classifier,
    load_token_classifier,
    load_tokenizer,
    save_model,
)
from trimtab.models.lora import add_adapter
from trimtab.pipeline.hidden import hidden_evaluation, pass_threshold_of
from trimtab.pipeline.leaks import refuse_leaks
from trimtab.pipeline.sources import (
    TASK,
    held_out_prompts,
    policy_start,
    process_reward_path,
    prompts_for,
    reward_model_path,
    sft_model,
    solutions_for,
    train_prompts,
)
from trimtab.rewards.gold import refuse_bad_gold
from trimtab.rewards.process_reward import CARD
from trimtab.trainers.cadence import Cadence
from trimtab.trainers.grpo import train_grpo
from trimtab.trainers.ppo import train_ppo
from trimtab.trainers.process_reward import train_process_reward
from trimtab.trainers.reward_model import train_reward_model
from trimtab.trainers.seeds import derive_seed
from trimtab.trainers.sft import train_sft
from trimtab.trainers.stage import Stage, total_steps
from trimtab.types import Prompt


def num_steps(recipe: Recipe, name: str) -> int:
    """How many steps a training stage takes, for the progress bar."""
    if name == "sft" and recipe.sft:
        sft = recipe.sft
        return sft.steps or total_steps(
            len(load_pairs(sft.data, columns=sft.columns)), sft.batch_size, sft.epochs, None
        )
    if name == "reward_model" and recipe.reward_model:
        rm = recipe.reward_model
        rows = len(load_preferences(rm.data, columns=rm.columns)) if rm.steps is None else 0
        return total_steps(round(rows * (1 - rm.held_out)), rm.batch_size, rm.epochs, rm.steps)
    if name == "process_reward" and recipe.process_reward:
        prm = recipe.process_reward
        rows = len(solutions_for(prm, recipe.seed)) if prm.steps is None else 0
        return total_steps(round(rows * (1 - prm.held_out)), prm.batch_size, prm.epochs, prm.steps)
    if name == "rl" and recipe.rl:
        rl = recipe.rl
        count = len(train_prompts(recipe)) if rl.steps is None else 0
        return total_steps(count, rl.num_prompts, rl.epochs, rl.steps)
    return 0


def run_sft(recipe: Recipe, stage: Stage) -> dict[str, Any]:
    """Fine-tune `sft.model` (or `model.path`) and save it in `paths.sft`."""
    config = recipe.sft
    assert config is not None
    refuse_leaks(recipe, ("sft",))
    path = config.model or recipe.model.path
    tokenizer = load_tokenizer(path, recipe.model.chat_template)
    model = load_causal_lm(path, recipe.model)
    refuse(compare(subject_of(model, "model"), tokenizer))
    add_adapter(model, recipe.model.lora, recipe.seed)
    settings = WorkerSettings(
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        microbatch_size=config.microbatch_size,
        with_entropy=False,
        **recipe.train.model_dump(),
    )
    train_sft(config, policy_learner(model, settings), tokenizer, stage, recipe.seed)
    save_model(model, tokenizer, recipe.paths.sft, keep_adapter=recipe.model.keeps_adapter)
    return {"path": recipe.paths.sft}


def run_reward_model(recipe: Recipe, stage: Stage) -> dict[str, Any]:
    """Train a reward model from the SFT model (or `reward_model.model`) into `paths.reward_model`."""
    config = recipe.reward_model
    assert config is not None
    refuse_leaks(recipe, ("reward_model",))
    path = config.model or sft_model(recipe)
    tokenizer = load_tokenizer(path, recipe.model.chat_template)
    model = load_sequence_classifier(
        path, recipe.model, pad_token_id=tokenizer.pad_token_id, seed=derive_seed(recipe.seed, "head")
    )
    refuse(compare(subject_of(model, "reward model"), tokenizer))
    add_adapter(model, recipe.model.lora, recipe.seed)
    card = asdict(train_reward_model(config, model, tokenizer, stage, recipe.seed))
    files = {"reward_model.json": card}
    save_model(model, tokenizer, recipe.paths.reward_model, files, keep_adapter=recipe.model.keeps_adapter)
    stage.view.note(
        f"reward model: held-out accuracy {card['accuracy']:.3f}, ECE {card['ece']:.3f}, "
        f"length correlation {card['length_correlation']:+.2f}"
    )
    return {"path": recipe.paths.reward_model, **card}


def run_process_reward(recipe: Recipe, stage: Stage) -> dict[str, Any]:
    """Train a process reward model from the SFT model (or `process_reward.model`)."""
    config = recipe.process_reward
    assert config is not None
    refuse_leaks(recipe, ("process_reward",))
    path = config.model or sft_model(recipe)
    tokenizer = load_tokenizer(path, recipe.model.chat_template)
    model = load_token_classifier(
        path, recipe.model, pad_token_id=tokenizer.pad_token_id, seed=derive_seed(recipe.seed, "head")
    )
    refuse(compare(subject_of(model, "process reward model"), tokenizer))
    add_adapter(model, recipe.model.lora, recipe.seed)
    rows = solutions_for(config, recipe.seed)
    card = asdict(train_process_reward(config, model, tokenizer, rows, stage, recipe.seed))
    keep, files = recipe.model.keeps_adapter, {CARD: card}
    save_model(model, tokenizer, recipe.paths.process_reward, files, keep_adapter=keep)
    stage.view.note(
        f"process reward model: held-out accuracy {card['accuracy']:.3f} of steps, ECE {card['ece']:.3f}, "
        f"first error found {card['first_error_accuracy']:.3f} (chance {card['first_error_chance']:.3f})"
    )
    return {"path": recipe.paths.process_reward, **card}


def run_rl(recipe: Recipe, stage: Stage) -> dict[str, Any]:
    """Improve the policy by GRPO or PPO and save it in `paths.policy`."""
    rl = recipe.rl
    assert rl is not None
    prompts = train_prompts(recipe)
    hidden = held_out_prompts(recipe, "rl.hidden_data")
    check_batches(rl, len(prompts))
    refuse_leaks(recipe, ("rl",))
    system = load_system(recipe)
    for source, rows in ((rl.data, prompts), (rl.hidden_data or "", hidden)):
        refuse_bad_gold(system.reward, rows, source, limit=rl.gold_rows, seed=recipe.seed)
    cadence = Cadence(
        rl=rl,
        stage=stage,
        seed=recipe.seed,
        evaluate=hidden_evaluation(recipe, hidden),
        pass_threshold=pass_threshold_of(recipe),
    )
    draw = partial(drawn_again, rl.data, recipe.seed) if rl.data.startswith(TASK) else None
    stream = PromptStream(prompts, derive_seed(recipe.seed, "prompts"), draw=draw)
    train = train_ppo if rl.algorithm == "ppo" else train_grpo
    train(system, stream, rl, stage, cadence)
    keep = recipe.model.keeps_adapter
    save_model(system.policy_model, system.tokenizer, recipe.paths.policy, keep_adapter=keep)
    return {"path": recipe.paths.policy, "algorithm": rl.algorithm}


def load_system(recipe: Recipe, policy: str | None = None) -> System:
    """The models of the RL stage, loaded and joined; the policy is the one given, or what RL starts from.

    Raises:
        ModelError: a model cannot be loaded, or its stage was not run yet.
        RewardError: a reward is unknown.
    """
    return build_system(
        recipe,
        policy or policy_start(recipe),
        reward_model_path(recipe),
        reference_path=recipe.rl.reference if recipe.rl else None,
        process_reward_path=process_reward_path(recipe),
    )


def drawn_again(source: str, seed: int, generation: int) -> list[Prompt]:
    """The train prompts of a task's ``generation`` (1, 2, …): with a seed of their own, never hidden ones."""
    return prompts_for(source, "train", derive_seed(seed, "refresh", generation))


def check_batches(rl: RLConfig, num_prompts: int) -> None:
    """Refuse counts that do not fit together before any model is loaded.

    Raises:
        ConfigError: more prompts per step than there are, or more mini-batches than rows.
    """
    if rl.num_prompts > num_prompts:
        raise ConfigError(
            f"rl.num_prompts = {rl.num_prompts} but {rl.data} has {num_prompts} prompts; "
            f"use --rl.num_prompts {num_prompts} or fewer."
        )
    if rl.num_minibatches > rl.num_prompts * rl.num_generations:
        raise ConfigError(
            f"rl.num_minibatches = {rl.num_minibatches} is more than the "
            f"{rl.num_prompts * rl.num_generations} completions of a step; make it smaller."
        )
