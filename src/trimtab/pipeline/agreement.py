"""The models of a recipe against one another, their data and the disk (R37), before the first step.

Weights are not read: a stage that starts from what an earlier one will make has that one's tokenizer and
context, so every stage can be looked at before the first one begins.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab.config import Recipe, Stage
from trimtab.models.agreement import Finding, Subject, can_be_saved, compare, refuse, subject_at
from trimtab.models.load import load_tokenizer
from trimtab.models.paths import resolve_model_path
from trimtab.pipeline.row_agreement import data_findings


@dataclass
class Models:
    """Tokenizers and configs of the recipe's models, each read once; warnings are left to the real load."""

    recipe: Recipe
    known: dict[str, tuple[Subject, Any]] = field(default_factory=dict)

    def at(self, path: str, name: str = "model") -> tuple[Subject, Any]:
        """The model at ``path`` and its tokenizer.

        Raises:
            ModelError: one of the two cannot be read.
        """
        if path not in self.known:
            config = self.recipe.model
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tokenizer = load_tokenizer(path, config.chat_template)
            folder = resolve_model_path(path)
            subject = subject_at(folder, name, trust_remote_code=config.trust_remote_code)
            self.known[path] = (subject, tokenizer)
        return self.known[path]


def start_of(recipe: Recipe, stage: Stage, names: Sequence[Stage] = ()) -> str:
    """A model that a stage starts from, or that has its tokenizer and context.

    Where the SFT stage is among ``names``, that is what SFT starts from: its output is not there yet.
    """
    if stage != "sft":
        own = getattr(getattr(recipe, "rl" if stage == "eval" else stage), "model", None)
        if own:
            return str(own)
    made = recipe.paths.sft
    is_made = "sft" not in names and (Path(made) / "config.json").is_file()
    if recipe.sft is not None and stage != "sft" and is_made:
        return made
    return (recipe.sft.model if recipe.sft else None) or recipe.model.path


def recipe_findings(recipe: Recipe, names: Sequence[Stage]) -> Iterator[Finding]:
    """Every finding about the models and the data of the stages ``names``, in order.

    Raises:
        TrimtabError: a model or a data file cannot be read.
    """
    models = Models(recipe)
    seen: set[str] = set()
    for stage in names:
        path = start_of(recipe, stage, names)
        subject, tokenizer = models.at(path)
        if path not in seen:
            yield from compare(subject, tokenizer)
        seen.add(path)
        yield from data_findings(recipe, stage, subject, tokenizer)
        if stage == "rl":
            yield from companion_findings(models, subject, tokenizer)
        yield from output_findings(recipe, stage, path, tokenizer)


def stage_findings(recipe: Recipe, stage: Stage) -> Iterator[Finding]:
    """The findings of one stage beside those about its model itself; see :func:`recipe_findings`."""
    models = Models(recipe)
    path = start_of(recipe, stage, recipe.stages)
    subject, tokenizer = models.at(path)
    yield from data_findings(recipe, stage, subject, tokenizer)
    if stage == "rl":
        yield from companion_findings(models, subject, tokenizer)
    yield from output_findings(recipe, stage, path, tokenizer)


def refuse_disagreement(recipe: Recipe, names: Sequence[Stage]) -> list[str]:
    """Return what to warn of before the first step, once each.

    Raises:
        ModelError: something fails that the run would meet later.
        TrimtabError: a model or a data file cannot be read.
    """
    return list(dict.fromkeys(refuse(recipe_findings(recipe, names))))


def output_findings(recipe: Recipe, stage: Stage, path: str, tokenizer: Any) -> Iterator[Finding]:
    """Whether what a training stage makes can be written."""
    if stage == "eval":
        return
    places = recipe.paths
    target = {
        "sft": places.sft,
        "reward_model": places.reward_model,
        "process_reward": places.process_reward,
        "rl": places.policy,
    }[stage]
    size = sum(file.stat().st_size for file in Path(resolve_model_path(path)).glob("*.safetensors"))
    yield from can_be_saved(tokenizer, target, size)


def companion_findings(models: Models, policy: Subject, tokenizer: Any) -> Iterator[Finding]:
    """Models beside the policy that read its token ids: the reference, and a critic from a reward model."""
    rl = models.recipe.rl
    assert rl is not None
    others = [("reference", rl.reference, "give rl.reference a model with the policy's tokenizer")]
    is_critic = rl.algorithm == "ppo" and rl.ppo.critic == "separate" and rl.ppo.critic_init == "reward_model"
    if is_critic:
        others.append(("critic", rl.reward_model, "set rl.ppo.critic_init = 'policy'"))
    for name, path, fix in others:
        if not path:
            continue
        subject, other = models.at(path, name)
        if other.get_vocab() != tokenizer.get_vocab():
            text = (
                f"the {name} ({path}) has another vocabulary than the policy, whose token ids it reads; {fix}"
            )
            yield Finding("fail", name, text)
        elif subject.context is not None and policy.context is not None and subject.context < policy.context:
            text = f"the {name} ({path}) reads {subject.context} tokens, the policy {policy.context}"
            yield Finding("warn", name, f"{text}; keep prompt and answer within the shorter one")
