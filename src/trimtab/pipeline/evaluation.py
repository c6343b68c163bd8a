"""The evaluation stage: the policy against the model that it started from, on hidden prompts (R27)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from trimtab.config import EvalConfig, Recipe, RLConfig
from trimtab.distributed.worker import WorkerSettings, exact_kl
from trimtab.errors import ConfigError, RewardError
from trimtab.evals.diversity import compare_distinct
from trimtab.evals.judges import Judge, build_judge
from trimtab.evals.suite import EvalResult, evaluate_policy
from trimtab.evals.win_rate import win_rate
from trimtab.functional import masked_mean
from trimtab.models import agreement
from trimtab.models.load import load_causal_lm, load_tokenizer
from trimtab.pipeline.leaks import refuse_leaks
from trimtab.pipeline.sources import (
    held_out_prompts,
    hidden_source,
    policy_start,
    process_reward_path,
    reward_model_path,
    train_prompts,
)
from trimtab.rewards.base import Reward, call_reward, why_silent
from trimtab.rewards.combine import CombinedReward
from trimtab.rewards.gold import refuse_bad_gold
from trimtab.rewards.registry import build_reward
from trimtab.rollout.collect import sample_of
from trimtab.rollout.engine import SamplingParams, build_engine
from trimtab.trainers.batching import make_batch
from trimtab.trainers.seeds import derive_seed
from trimtab.trainers.stage import Stage
from trimtab.types import Prompt, RewardResult, RolloutGroup

NUM_SAMPLES = 8  # pairs of answers kept for the report
MOST = 0.5  # share of answers without a score from which a mean over the others proves nothing
KL_PROMPTS = 64  # the exact KL needs the whole vocabulary of both models: a sample is enough


def run_eval(recipe: Recipe, stage: Stage) -> dict[str, Any]:
    """Sample both models on the hidden prompts and on as many training prompts; compare them.

    Raises:
        ConfigError: no [rl] table, no hidden prompts, or a judge that is a training reward.
        DataError: hidden and training prompts overlap.
    """
    rl, config = recipe.rl, recipe.eval
    if rl is None or config is None:
        raise ConfigError("The evaluation needs an [rl] table: it says the rewards and how to sample.")
    prompts = evaluation_prompts(recipe, rl, config)
    reward_model = reward_model_path(recipe)
    reward = build_reward(
        rl.rewards,
        reward_model=reward_model,
        process_reward=process_reward_path(recipe),
        clip=rl.reward_clip,
        device=recipe.model.device,
        chat_template=recipe.model.chat_template,
    )
    source = hidden_source(recipe)
    refuse_bad_gold(reward, prompts["hidden"], source, limit=rl.gold_rows, seed=recipe.seed)
    judge = judge_of(recipe, rl, config, reward_model)
    models: dict[str, Any] = {}
    results: dict[tuple[str, str], EvalResult] = {}
    for name, path in (("sft", policy_start(recipe)), ("policy", recipe.paths.policy)):
        stage.view.note(
            f"{name}: {path}, {' and '.join(f'{len(p)} {s}' for s, p in prompts.items())} prompts"
        )
        tokenizer = load_tokenizer(path, recipe.model.chat_template)
        models[name] = load_causal_lm(path, recipe.model)
        agreement.refuse(agreement.compare(agreement.subject_of(models[name], name), tokenizer))
        results |= {
            (name, split): r for split, r in sampled(recipe, models[name], tokenizer, reward, prompts)
        }
    policy, sft = results["policy", "hidden"], results["sft", "hidden"]
    kl = mean_kl(models, tokenizer.pad_token_id, policy.groups[:KL_PROMPTS], temperature_of(rl, config))
    summary = compare(results, kl)
    if reward.constraints:
        summary["constraints"] = constraint_rates(reward, sft, policy)
    summary["unanswered"] = unanswered(results)
    if judge is not None:
        try:
            won = win_rate(prompts["hidden"], policy.completions, sft.completions, judge, seed=recipe.seed)
            summary["win_rate"] = won.as_dict() | {"judge": config.judge}
        except RewardError as error:  # what was measured before must not be lost with it
            summary["unanswered"]["eval.judge"] = {"share": 1.0, "cause": str(error).rstrip(".")}
            stage.view.note(f"no win rate: {error}")
    summary["unanswered"] |= silent_measures(recipe, reward_model, policy)
    for name, found in summary["unanswered"].items():
        stage.view.note(f"{name} gave no score for {found['share']:.0%}: {found['cause']}")
    stage.run.event(stage.name, "evaluation", 0, summary)
    for before, after in list(zip(sft.groups, policy.groups, strict=True))[:NUM_SAMPLES]:
        stage.run.event(stage.name, "sample", 0, side_by_side(before, after))
    return summary


def evaluation_prompts(recipe: Recipe, rl: RLConfig, config: EvalConfig) -> dict[str, list[Prompt]]:
    """The hidden prompts, and as many training prompts; refuses hidden prompts that were trained on."""
    hidden_source(recipe)  # says where neither key names any
    hidden = held_out_prompts(recipe, "eval.data")[: config.num_prompts]
    train = train_prompts(recipe)
    refuse_leaks(recipe)
    return {"hidden": hidden, "train": train[: config.num_prompts]}


def judge_of(recipe: Recipe, rl: RLConfig, config: EvalConfig, reward_model: str | None) -> Judge | None:
    """The judge of the win rate, or None when the recipe names none."""
    if not config.judge:
        return None
    return build_judge(
        config.judge,
        tie_margin=config.tie_margin,
        rewards=rl.rewards,
        reward_model=reward_model,
        device=recipe.model.device,
        chat_template=recipe.model.chat_template,
    )


def temperature_of(rl: RLConfig, config: EvalConfig) -> float:
    """The sampling temperature of the evaluation."""
    return config.temperature or rl.temperature


def sampled(
    recipe: Recipe, model: Any, tokenizer: Any, reward: Reward, prompts: Mapping[str, list[Prompt]]
) -> list[tuple[str, EvalResult]]:
    """Sample and score one model on every split; the seed is the same for every model."""
    rl, config = recipe.rl, recipe.eval
    assert rl is not None and config is not None
    params = SamplingParams(
        max_new_tokens=rl.max_new_tokens,
        temperature=temperature_of(rl, config),
        top_p=rl.top_p,
        top_k=rl.top_k,
        stop=tuple(rl.stop),
        seed=derive_seed(recipe.seed, "evaluation"),
    )
    engine = build_engine(model, tokenizer, recipe.rollout)
    count, threshold = config.num_generations, config.pass_threshold
    return [
        (split, evaluate_policy(engine, tokenizer, rows, reward, params, count, pass_threshold=threshold))
        for split, rows in prompts.items()
    ]


def compare(results: Mapping[tuple[str, str], EvalResult], kl: float) -> dict[str, Any]:
    """The figures of the summary: reward on training and hidden prompts, pass rate, diversity, KL.

    ``distinct_n`` of the two models is at equal numbers of n-grams; ``distinct_2_raw`` is the plain ratio.
    """
    hidden = {name: results[name, "hidden"] for name in ("sft", "policy")}
    summary: dict[str, Any] = {
        name: {
            "reward": _scored(results[name, "train"], results[name, "train"].reward),
            "pass_rate": _scored(results[name, "train"], results[name, "train"].pass_rate),
            "mean_length": result.mean_length,
            "truncated": result.truncated,
            "abstained": result.num_abstained,
            "parts": dict(result.parts),
        }
        for name, result in hidden.items()
    }
    summary["hidden"] = {name: _scored(result, result.reward) for name, result in hidden.items()}
    summary["hidden_pass_rate"] = {name: _scored(result, result.pass_rate) for name, result in hidden.items()}
    sft, policy = (result.token_ids for result in hidden.values())
    for n in (1, 2):
        summary[f"distinct_{n}"] = dict(zip(hidden, compare_distinct(sft, policy, n), strict=True))
    summary["distinct_2_raw"] = {name: result.distinct_2 for name, result in hidden.items()}
    return {**summary, "kl": kl}


def _scored(result: EvalResult, value: float) -> float | None:
    """A mean over the scored answers, or None where there is none: 0 would be a figure."""
    return value if result.num_scored else None


def unanswered(results: Mapping[tuple[str, str], EvalResult]) -> dict[str, dict[str, Any]]:
    """Where most answers got no reward: which answers, their share, and why in the reward's own words."""
    found: dict[str, dict[str, Any]] = {}
    for (name, split), result in results.items():
        scores = [reward for group in result.groups for reward in group.rewards]
        if scores and result.num_abstained > MOST * len(scores):
            key = f"the reward, {'SFT model' if name == 'sft' else name}, {split} prompts"
            found[key] = {"share": result.num_abstained / len(scores), "cause": why_silent(scores)}
    return found


def silent_measures(
    recipe: Recipe, reward_model: str | None, policy: EvalResult
) -> dict[str, dict[str, Any]]:
    """The hidden rewards of the recipe that say nothing of most of the policy's hidden answers."""
    rl, found = recipe.rl, dict[str, dict[str, Any]]()
    if rl is None or not rl.hidden_rewards:
        return found
    built = build_reward(
        rl.hidden_rewards,
        reward_model=reward_model,
        process_reward=process_reward_path(recipe),
        device=recipe.model.device,
        chat_template=recipe.model.chat_template,
    )
    samples = [sample_of(g.prompt, c) for g in policy.groups for c in g.completions]
    for name, (reward, _) in zip(built.names, built.components, strict=True):
        scores = call_reward(reward, samples)
        silent = sum(score.value is None for score in scores)
        if scores and silent > MOST * len(scores):
            found[f"hidden reward {name}"] = {"share": silent / len(scores), "cause": why_silent(scores)}
    return found


def constraint_rates(
    reward: CombinedReward, sft: EvalResult, policy: EvalResult
) -> dict[str, dict[str, float | None]]:
    """Each constraint's target, and the share of violations of both models on the hidden prompts.

    The rewards of the evaluation are plain: no weight of a constraint is in them. None: it never applied.
    """
    return {
        name: {
            "target": constraint.target,
            "sft": reward.violations(sft.parts).get(name),
            "policy": reward.violations(policy.parts).get(name),
        }
        for name, constraint in reward.constraints.items()
    }


def mean_kl(
    models: Mapping[str, Any], pad_id: int, groups: Sequence[RolloutGroup], temperature: float
) -> float:
    """KL(policy ‖ SFT model) in nats per token, exact over the vocabulary, on the policy's completions."""
    # Every completion counts here, also one whose reward abstained.
    scored = [replace(g, rewards=tuple(RewardResult(0.0) for _ in g.completions)) for g in groups]
    rows = make_batch(scored, pad_id).rows
    settings = WorkerSettings(learning_rate=1.0, microbatch_size=8, temperature=temperature)
    values = exact_kl(models["policy"], models["sft"], rows, settings)
    return float(masked_mean(values, rows.completion_mask))


def side_by_side(before: RolloutGroup, after: RolloutGroup) -> dict[str, Any]:
    """One prompt with both models' answers, for the report."""
    return {
        "prompt": after.prompt.text,
        "sft": before.completions[0].text,
        "policy": after.completions[0].text,
        "sft_reward": before.rewards[0].value,
        "policy_reward": after.rewards[0].value,
    }
