"""What a run measures on its hidden prompts: the reward, and what it is not trained on (R21)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from trimtab.config import Recipe
from trimtab.distributed.build import System
from trimtab.evals.judges import build_judge
from trimtab.evals.suite import EvalResult, evaluate_policy
from trimtab.monitor import Measure
from trimtab.monitor.gaps import HIDDEN, HIDDEN_REWARD, JUDGE, TRAINED
from trimtab.pipeline.sources import process_reward_path, reward_model_path
from trimtab.rewards.base import Reward, call_reward, why_silent
from trimtab.rewards.combine import CombinedReward
from trimtab.rewards.registry import build_reward
from trimtab.rollout.collect import sample_of
from trimtab.trainers.experience import sampling_params
from trimtab.trainers.seeds import derive_seed
from trimtab.types import Prompt

HiddenEvaluation = Callable[[System, int], Mapping[str, Measure]]


def pass_threshold_of(recipe: Recipe) -> float:
    """From which reward on a completion passes: the evaluation's threshold, also while training."""
    return recipe.eval.pass_threshold if recipe.eval else 0.5


def hidden_evaluation(recipe: Recipe, hidden: Sequence[Prompt]) -> HiddenEvaluation | None:
    """A function that samples the first hidden prompts and returns ``eval/*`` measures; None without any.

    The prompts and the sampling seed are the same each time, so that evaluations can be compared. The
    independent judge and the hidden rewards score the very answers that the trained reward scored.

    Raises:
        ConfigError: the judge is unknown, or is a reward of the training.
        RewardError: a hidden reward is unknown.
    """
    rl = recipe.rl
    assert rl is not None
    if not hidden or not rl.eval_every:
        return None
    prompts, threshold = list(hidden[: rl.eval_prompts]), pass_threshold_of(recipe)
    others = unrewarded_measures(recipe)

    def evaluate(system: System, step: int) -> Mapping[str, Measure]:
        params = sampling_params(rl, derive_seed(recipe.seed, "eval"))
        result = evaluate_policy(
            system.engine, system.tokenizer, prompts, system.reward, params, pass_threshold=threshold
        )
        return {**measures_of(result, threshold, others), **violations_of(result, system.reward)}

    return evaluate


def violations_of(result: EvalResult, reward: Reward) -> dict[str, Measure]:
    """How much the answers of an evaluation violate each constraint of ``reward`` (R24)."""
    if not isinstance(reward, CombinedReward):
        return {}
    rows = [[reward.violations(r.parts) for r in group.rewards] for group in result.groups]
    names = sorted({name for group in rows for row in group for name in row})
    return {
        f"eval/violation/{name}": _over_prompts([[row.get(name) for row in group] for group in rows])
        for name in names
    }


def unrewarded_measures(recipe: Recipe) -> dict[str, Reward]:
    """The judge and the hidden rewards of a recipe, under the names of their metrics."""
    rl = recipe.rl
    assert rl is not None
    model, steps_model, device = reward_model_path(recipe), process_reward_path(recipe), recipe.model.device
    template = recipe.model.chat_template
    measures: dict[str, Reward] = {}
    if recipe.eval is not None and recipe.eval.judge:
        judge = recipe.eval.judge
        measures[JUDGE] = build_judge(
            judge, rewards=rl.rewards, reward_model=model, device=device, chat_template=template
        )
    if rl.hidden_rewards:
        built = build_reward(
            rl.hidden_rewards,
            reward_model=model,
            process_reward=steps_model,
            device=device,
            chat_template=template,
        )
        for name, (reward, _) in zip(built.names, built.components, strict=True):
            measures[HIDDEN_REWARD + name] = reward
    return measures


def measures_of(result: EvalResult, threshold: float, others: Mapping[str, Reward]) -> dict[str, Measure]:
    """The measures of one evaluation; a measure that abstains from every answer is left out."""
    values = [[r.value for r in group.rewards] for group in result.groups]
    passed = [
        [None if r.value is None else float(r.passes(threshold)) for r in group.rewards]
        for group in result.groups
    ]
    cause = why_silent([r for group in result.groups for r in group.rewards])
    measures = {TRAINED: _over_prompts(values, cause), HIDDEN: _over_prompts(passed, cause)}
    for name, reward in others.items():
        samples = [sample_of(g.prompt, c) for g in result.groups for c in g.completions]
        results = call_reward(reward, samples)
        silent = sum(r.value is None for r in results)
        if 0 < silent < len(results):
            warnings.warn(
                f"{name} could not score {silent} of {len(results)} hidden answers: {why_silent(results)}",
                stacklevel=2,
            )
        scores = iter([r.value for r in results])
        by_prompt = [[next(scores) for _ in g.completions] for g in result.groups]
        measures[name] = _over_prompts(by_prompt, why_silent(results))
    return measures


def _over_prompts(values: Sequence[Sequence[float | None]], cause: str = "") -> Measure:
    """One value per prompt, abstentions left out; ``cause`` says why where nothing is left."""
    groups = [[value for value in group if value is not None] for group in values]
    measure = Measure.of([fmean(group) for group in groups if group])
    return measure if measure.count else replace(measure, cause=cause)
