"""The evaluation stage: the policy against the model that it started from, on prompts never trained on (R27)."""

from __future__ import annotations

from typing import Any

import torch

from trimtab.config import Recipe
from trimtab.data import refuse_overlap
from trimtab.distributed.worker import WorkerSettings, exact_kl
from trimtab.errors import ConfigError
from trimtab.evals.suite import EvalResult, evaluate_policy
from trimtab.evals.win_rate import build_judge, win_rate
from trimtab.functional import masked_mean
from trimtab.models.load import load_causal_lm, load_tokenizer
from trimtab.pipeline.sources import (
    TASK,
    hidden_source,
    policy_start,
    prompts_for,
    reward_model_path,
)
from trimtab.rewards.registry import build_reward
from trimtab.rollout.engine import SamplingParams, build_engine
from trimtab.trainers.batching import make_batch
from trimtab.trainers.seeds import derive_seed
from trimtab.trainers.stage import Stage
from trimtab.types import Completion, Prompt, RewardResult, RolloutGroup

KL_PROMPTS = 64  # the exact KL needs the whole vocabulary of both models: a sample is enough


def run_eval(recipe: Recipe, stage: Stage) -> dict[str, Any]:
    """Sample both models on the hidden prompts and on as many training prompts; compare them."""
    rl, config = recipe.rl, recipe.eval
    if rl is None or config is None:
        raise ConfigError("The evaluation needs an [rl] table: it says the rewards and how to sample.")
    source = hidden_source(recipe)
    hidden = prompts_for(source, "hidden", recipe.seed)[: config.num_prompts]
    train = prompts_for(rl.data, "train", recipe.seed)
    if not source.startswith(TASK):
        refuse_overlap([p.text for p in train], [p.text for p in hidden], names=(rl.data, source))
    train = train[: config.num_prompts]
    reward = build_reward(rl.rewards, reward_model=reward_model_path(recipe))
    judge = build_judge(config.judge, tie_margin=config.tie_margin, rewards=rl.rewards) if config.judge else None
    params = SamplingParams(
        max_new_tokens=rl.max_new_tokens,
        temperature=config.temperature or rl.temperature,
        top_p=rl.top_p,
        top_k=rl.top_k,
        stop=tuple(rl.stop),
        seed=derive_seed(recipe.seed, "evaluation"),
    )
    models, results = {}, {}
    for name, path in (("sft", policy_start(recipe)), ("policy", recipe.paths.policy)):
        stage.view.note(f"evaluating {name} ({path}) on {len(hidden)} hidden and {len(train)} training prompts")
        tokenizer = load_tokenizer(path, recipe.model.chat_template)
        models[name] = load_causal_lm(path, recipe.model)
        engine = build_engine(models[name], tokenizer)
        for split, prompts in (("hidden", hidden), ("train", train)):
            results[name, split] = evaluate_policy(
                engine,
                tokenizer,
                prompts,
                reward,
                params,
                num_generations=config.num_generations,
                pass_threshold=config.pass_threshold,
            )
    kl = mean_kl(models, tokenizer, hidden[:KL_PROMPTS], results["policy", "hidden"], params.temperature)
    summary = compare(results, kl)
    if judge is not None:
        answers = [[group[0].text for group in results[n, "hidden"].completions] for n in ("policy", "sft")]
        won = win_rate(hidden, *answers, judge, seed=recipe.seed)
        summary["win_rate"] = won.as_dict() | {"judge": config.judge}
    stage.run.event(stage.name, "evaluation", 0, summary)
    return summary


def compare(results: dict[tuple[str, str], EvalResult], kl: float) -> dict[str, Any]:
    """The figures of the summary: reward on training and hidden prompts, pass rate, diversity, KL."""
    hidden = {name: results[name, "hidden"] for name in ("sft", "policy")}
    return {
        **{
            name: {
                "reward": results[name, "train"].reward,
                "pass_rate": results[name, "train"].pass_rate,
                "mean_length": result.mean_length,
                "truncated": result.truncated,
                "parts": dict(result.parts),
            }
            for name, result in hidden.items()
        },
        "hidden": {name: result.reward for name, result in hidden.items()},
        "hidden_pass_rate": {name: result.pass_rate for name, result in hidden.items()},
        "distinct_1": {name: result.distinct_1 for name, result in hidden.items()},
        "distinct_2": {name: result.distinct_2 for name, result in hidden.items()},
        "kl": kl,
    }


@torch.no_grad()
def mean_kl(
    models: dict[str, Any], tokenizer: Any, prompts: list[Prompt], result: EvalResult, temperature: float
) -> float:
    """KL(policy ‖ SFT model) in nats per token, exact over the vocabulary, on the policy's own completions."""
    groups = [
        RolloutGroup(p, tuple(ids), (first(c),), (RewardResult(0.0),))
        for p, ids, c in zip(prompts, result.prompt_ids, result.completions, strict=False)
    ]
    rows = make_batch(groups, tokenizer.pad_token_id).rows
    settings = WorkerSettings(learning_rate=1.0, microbatch_size=8, temperature=temperature)
    values = exact_kl(models["policy"], models["sft"], rows, settings)
    return float(masked_mean(values, rows.completion_mask))


def first(completions: Any) -> Completion:
    """The first completion of a group."""
    return next(iter(completions))
