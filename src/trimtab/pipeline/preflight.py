"""What a run cannot do is found before its first step: places, disk, models, data, rewards and judges (R37).

``trimtab run`` refuses what is found here before the first stage starts, and ``trimtab check`` shows it. What
an earlier stage of the same run will make need not be there yet. Checks that cost more than a moment are left
out for the first stage: it does them itself before its first step.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from trimtab.config import Recipe, Stage
from trimtab.data import encode_prompt, load_pairs, load_preferences
from trimtab.errors import ConfigError, DataError, ModelError, TrimtabError, nearest
from trimtab.models.load import load_tokenizer, stored_parameters
from trimtab.models.paths import resolve_model_path
from trimtab.models.precision import resolve_device
from trimtab.monitor.policy import policy_of
from trimtab.pipeline.leaks import refuse_leaks
from trimtab.pipeline.places import check_disk, check_places
from trimtab.pipeline.sources import (
    held_out_prompts,
    process_reward_path,
    reward_model_path,
    sft_model,
    solutions_for,
    train_prompts,
)
from trimtab.pipeline.training import check_batches
from trimtab.pipeline.trials import check_judge, check_names, check_rewards
from trimtab.rewards.trained import check_trained, load_scorer_tokenizer
from trimtab.runs.names import METRICS, find_metric
from trimtab.runs.sinks import check_trackers
from trimtab.types import Prompt

PROBE = ({"role": "user", "content": "Hello, 你好?"},)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong: the recipe's key, the sentence, and whether no run can succeed."""

    place: str
    error: TrimtabError
    is_fatal: bool = True


def find_problems(
    recipe: Recipe, stages: Sequence[Stage], *, tries_rewards: bool = True
) -> Iterator[Finding]:
    """Yield what would stop ``stages``, or have no effect in them, in the order in which it would be met.

    Args:
        recipe: the whole recipe.
        stages: those that will run, in order; what others make must be there already.
        tries_rewards: also build the rewards and judges of later stages and let them score a few answers.
    """
    if not stages:
        return
    guard = _Guard()
    for stage in stages:
        yield from _data_problems(recipe, stage, stages, guard)
    if tries_rewards:
        yield from guard("overlap", lambda: refuse_leaks(recipe, stages))
    yield from guard("output", lambda: check_places(recipe, stages))
    yield from guard("monitor.heal.policy", lambda: policy_of(recipe.monitor.heal))
    yield from guard("model.device", lambda: resolve_device(recipe.model.device))
    yield from guard("checkpoint.best", lambda: check_best(recipe))
    yield from guard("monitor.trackers", lambda: check_trackers(recipe.monitor.trackers))
    if recipe.model.lora is not None:
        yield from guard("model.lora", _require_peft)
    for key, path, kind in models_of(recipe, stages):
        yield from guard(key, partial(_check_needed, recipe, key, path, kind))
    if "rl" in stages and recipe.rl is not None and recipe.rl.reference:
        yield from guard("rl.reference", lambda: check_reference(recipe))
    yield from guard("disk", lambda: check_disk(recipe, stages))
    if "rl" in stages or "eval" in stages:
        yield from guard("rl.reward_model", lambda: _trained_models(recipe, stages))
    yield from _without_effect(recipe, stages)
    misnamed = list(guard("rl.rewards", lambda: check_names(recipe))) if {"rl", "eval"} & set(stages) else []
    yield from misnamed
    if tries_rewards and "rl" in stages and not misnamed:
        for key in ("rewards", "hidden_rewards") if stages[0] != "rl" else ("hidden_rewards",):
            warned: list[str] = []
            yield from guard(f"rl.{key}", partial(check_rewards, recipe, key, stages, warned))
            yield from (Finding(f"rl.{key}", ConfigError(text), is_fatal=False) for text in warned)
    if recipe.eval is not None and recipe.eval.judge and {"rl", "eval"} & set(stages):
        yield from guard("eval.judge", lambda: check_judge(recipe, stages))


def refuse_problems(recipe: Recipe, stages: Sequence[Stage]) -> list[str]:
    """Raise what would stop ``stages``; return what is only worth saying.

    Raises:
        TrimtabError: of the class of the first problem, with every problem in its sentence.
    """
    found = list(find_problems(recipe, stages))
    fatal = [str(finding.error).rstrip(". ") for finding in found if finding.is_fatal]
    if fatal:
        first = next(finding.error for finding in found if finding.is_fatal)
        if len(fatal) == 1:
            raise first
        shown = ". ".join(f"({number}) {text}" for number, text in enumerate(fatal, start=1))
        raise type(first)(f"{len(fatal)} things would stop this run: {shown}")
    return [str(finding.error) for finding in found]


class _Guard:
    """Calls a check; a mistake that a user can mend becomes a finding, each sentence once."""

    def __init__(self) -> None:
        self.told: set[str] = set()

    def __call__(self, place: str, check: Callable[[], object]) -> Iterator[Finding]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the stage says them again where they matter
                check()
        except TrimtabError as error:
            if str(error) not in self.told:
                self.told.add(str(error))
                yield Finding(place, error)


def models_of(recipe: Recipe, stages: Sequence[Stage]) -> Iterator[tuple[str, str, str]]:
    """Key, path and kind (``lm``, ``reward``, ``process``) of every model that must be there already."""
    paths, made = recipe.paths, set[str]()
    produced: dict[str, str] = {
        "sft": paths.sft, "reward_model": paths.reward_model,
        "process_reward": paths.process_reward, "rl": paths.policy,
    }  # fmt: skip
    for stage in stages:
        for key, path, kind in _needed(recipe, stage):
            if path not in made:
                yield key, path, kind
        if stage in produced:
            made.add(produced[stage])


def _needed(recipe: Recipe, stage: Stage) -> Iterator[tuple[str, str, str]]:
    """What one stage loads."""
    paths, rl = recipe.paths, recipe.rl
    base = ("paths.sft", paths.sft, "lm") if recipe.sft else ("model.path", recipe.model.path, "lm")
    own: str | None = getattr(getattr(recipe, stage), "model", None)
    if own:
        yield f"{stage}.model", own, "lm"
    elif stage == "sft":
        yield "model.path", recipe.model.path, "lm"
    elif stage != "eval":
        yield base
    if rl is None or stage not in ("rl", "eval"):
        return
    if stage == "eval":
        yield ("rl.model", rl.model, "lm") if rl.model else base
        yield "paths.policy", paths.policy, "lm"
    elif rl.reference:
        yield "rl.reference", rl.reference, "lm"
    if rl.reward_model:
        yield "rl.reward_model", rl.reward_model, "reward"
    for spec in [*rl.rewards, *rl.hidden_rewards]:
        if spec.name in _MODEL_REWARDS and "path" in spec.options:
            yield f"rl.rewards, {spec.name}", str(spec.options["path"]), _MODEL_REWARDS[spec.name]


_MODEL_REWARDS = {"reward_model": "reward", "process_reward": "process"}


def _check_needed(recipe: Recipe, key: str, path: str, kind: str) -> None:
    """A model that a stage loads; one that an earlier stage makes is named with that stage."""
    if key == "paths.sft":
        sft_model(recipe)
    if key == "paths.policy" and not (Path(path) / "config.json").is_file():
        raise ModelError(
            f"There is no policy at {path}: run the recipe with --stage rl first, or without --stage to run "
            "every stage in order."
        )
    check_model(path, kind, recipe)


def check_model(path: str, kind: str, recipe: Recipe) -> None:
    """A model directory that can be loaded, as far as its configuration, headers and tokenizer show.

    Raises:
        ModelError: it cannot.
        DataError: its chat template refuses a plain question.
    """
    from transformers import AutoConfig

    folder = resolve_model_path(path)
    try:
        trusts = recipe.model.trust_remote_code
        AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trusts)
    except Exception as error:  # transformers raises many kinds; all of them mean that it cannot be loaded
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(". ")
        raise ModelError(f"The model in {folder} cannot be loaded ({line}); name another one.") from None
    stored_parameters(folder)
    if kind == "lm":
        tokenizer = load_tokenizer(path, recipe.model.chat_template)
    else:
        check_trained({"reward": "reward_model", "process": "process_reward"}[kind], path)
        tokenizer = load_scorer_tokenizer(path, _scorer_template(recipe, path))
    encode_prompt(tokenizer, PROBE, where="a plain question")


def _scorer_template(recipe: Recipe, path: str) -> str | None:
    """The template that a reward model without one gets: its reward's option, else the recipe's."""
    rl = recipe.rl
    for spec in [*rl.rewards, *rl.hidden_rewards] if rl else []:
        is_meant = spec.name in _MODEL_REWARDS and str(spec.options.get("path", path)) == path
        if is_meant and (template := spec.options.get("chat_template")):
            return str(template)
    return recipe.model.chat_template


def check_best(recipe: Recipe) -> None:
    """The metric by which the best checkpoint is chosen is one that exists.

    Raises:
        ConfigError: it is not.
    """
    best = recipe.checkpoint.best
    if best is not None and find_metric(best) is None:
        raise ConfigError(f"checkpoint.best = '{best}' is no metric{nearest(best, METRICS)}.")


def check_reference(recipe: Recipe) -> None:
    """The reference that is given has the vocabulary of the policy: their probabilities are compared.

    Raises:
        ModelError: it has another.
    """
    from transformers import AutoConfig

    assert recipe.rl is not None and recipe.rl.reference is not None
    sizes = []
    starts = (recipe.rl.model or (recipe.sft.model if recipe.sft else None) or recipe.model.path,)
    for path in (*starts, recipe.rl.reference):
        try:
            config = AutoConfig.from_pretrained(resolve_model_path(path), local_files_only=True)
            sizes.append(int(config.get_text_config().vocab_size))
        except Exception:  # what cannot be read is told in the line of that model
            return
    if sizes[0] != sizes[1]:
        raise ModelError(
            f"rl.reference = {recipe.rl.reference} has {sizes[1]} tokens and the policy {sizes[0]}, so they "
            "cannot be compared: give a reference with the policy's tokenizer, or none."
        )


def _data_problems(recipe: Recipe, stage: Stage, stages: Sequence[Stage], guard: _Guard) -> Iterator[Finding]:
    """The data of one stage: there, of a shape that it can use, enough for its batches, short enough."""
    if stage == "sft":
        assert recipe.sft is not None
        sft = recipe.sft
        yield from guard("sft.data", lambda: _rows(load_pairs(sft.data, columns=sft.columns)))
    elif stage == "reward_model":
        yield from guard("reward_model.data", lambda: _preferences(recipe))
    elif stage == "process_reward":
        assert recipe.process_reward is not None
        yield from guard("process_reward.data", lambda: _solutions(recipe))
    elif stage == "rl":
        assert recipe.rl is not None
        yield from guard("rl.data", lambda: _prompts(recipe, stages))
        yield from guard("rl.hidden_data", lambda: held_out_prompts(recipe, "rl.hidden_data"))
    elif stage == "eval":
        yield from guard("eval", lambda: _evaluation(recipe))


def _rows(rows: Sequence[object]) -> None:
    if not rows:
        raise DataError("sft.data holds no rows: add at least one, or name another file.")


def _preferences(recipe: Recipe) -> None:
    assert recipe.reward_model is not None
    config = recipe.reward_model
    rows = load_preferences(config.data, columns=config.columns)
    rows = [row for row in rows if row.chosen != row.rejected]
    if len(rows) < 2:
        raise DataError(
            f"{recipe.reward_model.data} has {len(rows)} usable preference pair(s); give at least 2 whose "
            "sides differ."
        )


def _solutions(recipe: Recipe) -> None:
    config = recipe.process_reward
    assert config is not None
    labels = [label >= 0.5 for row in solutions_for(config, recipe.seed) for label in row.labels]
    if len(set(labels)) < 2:
        raise DataError(
            f"{config.data} has steps of one label only, so there is nothing to learn: add right and "
            "wrong ones."
        )


def _prompts(recipe: Recipe, stages: Sequence[Stage]) -> None:
    """Enough prompts for a step, and none over ``rl.max_prompt_tokens``: the longest would be met late."""
    rl = recipe.rl
    assert rl is not None
    prompts = train_prompts(recipe)
    check_batches(rl, len(prompts))
    path = next((path for key, path, kind in models_of(recipe, stages) if kind == "lm"), None)
    if path is None:
        return
    try:
        tokenizer = load_tokenizer(path, recipe.model.chat_template)
    except TrimtabError:
        return  # told in the line of that model
    for prompt in long_ones(tokenizer, prompts, rl.max_prompt_tokens):
        encode_prompt(
            tokenizer, prompt.messages, rl.max_prompt_tokens, where=f"{rl.data}, prompt {prompt.id}"
        )


def long_ones(tokenizer: Any, prompts: Sequence[Prompt], limit: int) -> list[Prompt]:
    """The prompts that may be over ``limit`` tokens: no token is shorter than a byte, so that most need no
    tokenizer."""
    bare = len(encode_prompt(tokenizer, PROBE))
    sizes = [
        sum(len(repr(dict(m)).encode("utf-8", "replace")) for m in prompt.messages)
        + bare * len(prompt.messages)
        for prompt in prompts
    ]
    return [prompt for prompt, size in zip(prompts, sizes, strict=True) if size > limit]


def _trained_models(recipe: Recipe, stages: Sequence[Stage]) -> None:
    """Reward models that stages of the recipe make are there, or will be.

    Raises:
        ModelError: they are not, and no stage that runs makes them.
    """
    for stage, find in (("reward_model", reward_model_path), ("process_reward", process_reward_path)):
        if stage not in stages:
            find(recipe)


def _evaluation(recipe: Recipe) -> None:
    if recipe.rl is None:
        raise ConfigError("The evaluation needs an [rl] table: it says the rewards and how to sample.")
    held_out_prompts(recipe, "eval.data")


def _without_effect(recipe: Recipe, stages: Collection[Stage]) -> Iterator[Finding]:
    """Settings of the RL stage that do nothing beside the others."""
    rl = recipe.rl
    if rl is None or "rl" not in stages:
        return
    if rl.eval_every and not rl.hidden_data:
        text = f"rl.eval_every = {rl.eval_every} has no effect without rl.hidden_data: give it a file"
        yield Finding("rl.eval_every", ConfigError(text), is_fatal=False)
    is_measured = (rl.eval_every and rl.hidden_data) or "eval" in stages
    if rl.hidden_rewards and not is_measured:
        text = "rl.hidden_rewards are never measured: set rl.eval_every and rl.hidden_data, or add [eval]"
        yield Finding("rl.hidden_rewards", ConfigError(text), is_fatal=False)


def _require_peft() -> None:
    from importlib.util import find_spec

    if find_spec("peft") is None:
        raise ModelError("[model.lora] needs peft: pip install 'trimtab[peft]'")
