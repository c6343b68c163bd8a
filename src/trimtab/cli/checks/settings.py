"""Figures of a recipe that are usually wrong outside known ranges (R25). Pure: no file is opened."""

from __future__ import annotations

from collections.abc import Iterator

from trimtab.cli.checks.line import CheckLine, within
from trimtab.config import Recipe, RLConfig

LEARNING_RATE = (1e-6, 5e-6)  # R25, for models of a thousand million parameters and more
SMALL, LARGE, EXPONENT = 1e6, 1e9, 0.8  # smaller ones need more: 2e-5 at 135 million, 2e-4 at 4 million
ADAPTER_FACTOR = 10.0
KL_COEF = (0.001, 0.1)
MIN_COMPLETIONS = 16  # fewer per step give an advantage that is mostly noise


def check_settings(recipe: Recipe, parameters: int | None = None) -> Iterator[CheckLine]:
    """Learning rate, KL, clip, batch size and divisibility of the RL stage; the judge of the evaluation.

    ``parameters`` is the size of the model that RL starts from; None where it is not known.
    """
    if recipe.rl is not None:
        rl = recipe.rl
        yield _learning_rate(recipe, rl, parameters)
        yield _kl(rl)
        yield _clip(rl)
        yield from _batch(rl)
        yield from _sampling(rl)
    yield from _evaluation(recipe)


def learning_rates(parameters: int | None, has_adapter: bool = False) -> tuple[float, float]:
    """The lowest and highest usual learning rate of RL for a model of this size; unknown counts as large.

    Example:
        >>> low, high = learning_rates(135_000_000)
        >>> low < 2e-5 < high, low < 3e-6
        (True, False)
    """
    scale = 1.0 if parameters is None else max(1.0, LARGE / max(parameters, SMALL)) ** EXPONENT
    scale *= ADAPTER_FACTOR if has_adapter else 1.0
    return LEARNING_RATE[0] * scale, LEARNING_RATE[1] * scale


def _learning_rate(recipe: Recipe, rl: RLConfig, parameters: int | None) -> CheckLine:
    own = rl.ppo.policy_learning_rate if rl.algorithm == "ppo" else None
    key = "rl.learning_rate" if own is None else "rl.ppo.policy_learning_rate"
    value = rl.learning_rate if own is None else own
    has_adapter = recipe.model.lora is not None
    low, high = learning_rates(parameters, has_adapter)
    if parameters is None:
        size = "for a large model take a value inside; at 135 million parameters 2e-5 is usual"
    else:
        what = "an adapter on a model" if has_adapter else "a model"
        size = f"for {what} of {parameters / 1e6:.3g} million parameters take a value inside"
    fix = f"{size}; below it the policy hardly moves" if value < low else f"{size}; above it a run diverges"
    return within(key, value, float(f"{low:.2g}"), float(f"{high:.2g}"), fix)


def _kl(rl: RLConfig) -> CheckLine:
    fix = "a KL that is not charged lets the policy drift; a high one keeps it from learning"
    return within("rl.kl.coef", rl.kl.coef, *KL_COEF, fix)


def _clip(rl: RLConfig) -> CheckLine:
    if rl.loss == "cispo":
        return within("rl.clip.ratio_max", rl.clip.ratio_max, 1.2, 10, "5 is usual")
    if rl.clip.ratio is not None:
        return within("rl.clip.ratio", rl.clip.ratio, 1.1, 10, "10 is the source's value, 1.2 a tight clip")
    if rl.ratio == "sequence":
        return within("rl.clip.high", rl.clip.high, 1e-4, 0.05, "sequence ratios are near 1: 3e-4 is usual")
    return within("rl.clip.high", max(rl.clip.low, rl.clip.high), 0.05, 0.4, "0.2 is usual")


def _batch(rl: RLConfig) -> Iterator[CheckLine]:
    total = rl.num_prompts * rl.num_generations
    shown = f"{rl.num_prompts} prompts × {rl.num_generations} completions = {total} per step"
    if rl.num_minibatches > total:
        fix = f"--rl.num_minibatches {total} or fewer"
        yield CheckLine("fail", "batch", f"{shown}, fewer than {rl.num_minibatches} mini-batches", fix)
    elif total % rl.num_minibatches:
        near = max(n for n in range(1, rl.num_minibatches + 1) if total % n == 0)
        found = f"{shown} cannot be divided evenly into {rl.num_minibatches} mini-batches"
        yield CheckLine("warn", "batch", found, f"--rl.num_minibatches {near} divides them")
    elif total < MIN_COMPLETIONS:
        fix = f"raise rl.num_prompts to {-(-MIN_COMPLETIONS // rl.num_generations)} or more"
        yield CheckLine("warn", "batch", f"{shown} is a small batch", fix)
    else:
        yield CheckLine("pass", "batch", f"{shown}, {total // rl.num_minibatches} per optimizer step")


def _sampling(rl: RLConfig) -> Iterator[CheckLine]:
    if rl.algorithm != "ppo" and rl.temperature < 0.5:
        found = f"{rl.temperature:g} makes the completions of a group nearly equal"
        yield CheckLine("warn", "rl.temperature", found, "0.8 to 1.0 is usual")
    if rl.top_p < 0.8:
        found = f"{rl.top_p:g} leaves out much of what the learner computes"
        yield CheckLine("warn", "rl.top_p", found, "0.9 to 1.0 is usual")


def _evaluation(recipe: Recipe) -> Iterator[CheckLine]:
    if recipe.rl is not None and recipe.rl.hidden_data is None and (not recipe.eval or not recipe.eval.data):
        fix = "give rl.hidden_data a file that training never sees"
        yield CheckLine("warn", "hidden prompts", "there are none, so cheating would not be seen", fix)
    if recipe.eval is None:
        yield CheckLine(
            "warn", "eval", "there is no table [eval]", "add one to compare the policy with its start"
        )
        return
    if recipe.eval.judge is None:
        yield CheckLine(
            "warn", "eval.judge", "there is no judge, so no win rate", "name one that is not a reward"
        )
