"""Rewards by name, and how the entries of ``rl.rewards`` become one reward."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from trimtab.config import RewardSpec
from trimtab.errors import RewardError, nearest
from trimtab.rewards import business, process_checks, rules, variety
from trimtab.rewards.base import Reward
from trimtab.rewards.code_tests import code_reward
from trimtab.rewards.combine import CombinedReward
from trimtab.rewards.final_number import final_number_reward
from trimtab.rewards.isolated import user_reward
from trimtab.rewards.judge import judge_reward
from trimtab.rewards.math_answer import math_reward
from trimtab.rewards.one_answer import one_answer_reward
from trimtab.rewards.reasoning_gym import reasoning_gym_reward
from trimtab.rewards.remote import remote_reward
from trimtab.rewards.sales import SalesVerifiableReward
from trimtab.rewards.sales_hardened import HardenedSalesReward
from trimtab.rewards.sales_logic import sales_logic_reward
from trimtab.rewards.sandbox.levels import describe_choice
from trimtab.rewards.user_file import is_user_file


@dataclass
class _Context:
    """What the builders share: the configured reward models, loaded once and only when one asks for them."""

    reward_model: Any  # a directory, a LearnedReward, or None
    process_reward: Any = None  # a directory, a ProcessReward, or None
    device: str | None = None
    chat_template: str | None = None  # for a reward model without a template of its own
    loaded: dict[str, Any] = field(default_factory=dict)

    def learned(
        self, wanted_by: str, path: str | None = None, chat_template: str | None = None, **settings: Any
    ) -> Reward:
        """A LearnedReward on the configured (or the given) reward model.

        Raises:
            RewardError: none is configured.
        """
        from trimtab.rewards.learned import LearnedReward

        source = path or self.reward_model
        if source is None:
            raise RewardError(
                f"Reward {wanted_by} needs a reward model: run the reward_model stage first, or give its "
                "directory as rl.reward_model."
            )
        reward: LearnedReward = self._shared(LearnedReward, source, chat_template, settings)
        return reward

    def process(self, path: str | None = None, chat_template: str | None = None, **settings: Any) -> Reward:
        """A ProcessReward on the configured (or the given) process reward model.

        Raises:
            RewardError: none is configured, or a setting is not usable.
        """
        from trimtab.rewards.process_reward import ProcessReward

        source = path or self.process_reward
        if source is None:
            raise RewardError(
                "Reward process_reward needs a process reward model: run the process_reward stage first, or "
                "give its directory as the option path."
            )
        reward: ProcessReward = self._shared(ProcessReward, source, chat_template, settings)
        reward.check_settings()
        return reward

    def _shared(self, kind: Any, source: Any, template: str | None, settings: dict[str, Any]) -> Any:
        """A copy of the loaded ``kind``: the model is shared, the settings are not."""
        if not isinstance(source, kind):
            template = template or self.chat_template
            key = f"{kind.__name__} {source} {template}"
            if key not in self.loaded:
                self.loaded[key] = kind(source, device=self.device, chat_template=template)
            source = self.loaded[key]
        reward = copy.copy(source)
        for name, value in settings.items():
            setattr(reward, name, value)
        return reward


def _sales(context: _Context, relevance: bool = False) -> Reward:
    if not relevance:
        return SalesVerifiableReward()
    return SalesVerifiableReward(context.learned("sales (relevance = true)", squash=True, name="relevance"))


def _reward_model(
    context: _Context,
    path: str | None = None,
    *,
    batch_size: int = 16,
    max_length: int = 1024,
    squash: bool = False,
    chat_template: str | None = None,
) -> Reward:
    settings: dict[str, Any] = {"batch_size": batch_size, "max_length": max_length, "squash": squash}
    return context.learned("reward_model", path, chat_template, **settings, name="reward_model")


def _process_reward(
    context: _Context,
    path: str | None = None,
    *,
    aggregate: str = "min",
    separator: str | None = None,
    batch_size: int = 16,
    max_length: int = 1024,
    chat_template: str | None = None,
) -> Reward:
    settings: dict[str, Any] = {"aggregate": aggregate, "batch_size": batch_size, "max_length": max_length}
    if separator is not None:  # else as in training
        settings["separator"] = separator
    return context.process(path, chat_template, **settings)


def _plain(build: Callable[..., Reward]) -> Callable[..., Reward]:
    """A builder that needs nothing of the context; its options are those of ``build``."""

    def with_context(context: _Context, **options: Any) -> Reward:
        return build(**options)

    with_context.__doc__ = build.__doc__
    with_context.__signature__ = inspect.signature(build)  # type: ignore[attr-defined]
    return with_context


def _arithmetic(column: str = "answer") -> Reward:
    return final_number_reward(column, "arithmetic")


REWARDS: dict[str, Callable[..., Reward]] = {
    "sales": _sales,
    "sales_hardened": _plain(HardenedSalesReward),
    "reward_model": _reward_model,
    "process_reward": _process_reward,
    "has_reasoning": _plain(process_checks.has_reasoning),
    "consistent_reasoning": _plain(process_checks.consistent_reasoning),
    "no_copied_prompt": _plain(process_checks.no_copied_prompt),
    "exact_match": _plain(rules.exact_match),
    "regex": _plain(rules.regex),
    "length": _plain(rules.length),
    "language": _plain(rules.language),
    "contains": _plain(rules.contains),
    "same_names": _plain(rules.same_names),
    "list_format": _plain(rules.list_format),
    "final_number": _plain(final_number_reward),
    "no_invented_price": _plain(business.no_invented_price),
    "discount_limit": _plain(business.discount_limit),
    "no_promise": _plain(business.no_promise),
    "no_personal_data": _plain(business.no_personal_data),
    "no_forbidden_words": _plain(business.no_forbidden_words),
    "diversity": _plain(variety.diversity),
    "repetition": _plain(variety.repetition),
    "math": _plain(math_reward),
    "code": _plain(code_reward),
    "arithmetic": _plain(_arithmetic),
    "remote": _plain(remote_reward),
    "judge": _plain(judge_reward),
    "one_answer": _plain(one_answer_reward),
    "reasoning_gym": _plain(reasoning_gym_reward),
    "sales_logic": _plain(sales_logic_reward),
}


def build_reward(
    specs: Sequence[RewardSpec],
    *,
    reward_model: Any = None,
    process_reward: Any = None,
    clip: float | None = None,
    device: str | None = None,
    chat_template: str | None = None,
) -> CombinedReward:
    """Return the weighted sum of the rewards in ``specs``.

    Args:
        specs: entries of ``rl.rewards``: a name of REWARDS or ``FILE.py:function``, with weight and options.
        reward_model: directory of a reward model (or a LearnedReward), for the rewards that use one.
        process_reward: directory of a process reward model (or a ProcessReward), for rewards that use one.
        clip: bound of the sum, before anything normalises it (``rl.reward_clip``).
        device: where reward models are loaded (``model.device``); None is its default.
        chat_template: a Jinja file for reward models without a template (``model.chat_template``).

    Raises:
        RewardError: an unknown name or option (the nearest one is told), a missing file or reward model.

    Example:
        >>> build_reward([RewardSpec(name="sales"), RewardSpec(name="language", weight=0.1)]).names
        ['sales', 'language']
    """
    context = _Context(reward_model, process_reward, device, chat_template)
    gates = [number for number, spec in enumerate(specs) if spec.gate]
    constraints = {number: spec.constraint for number, spec in enumerate(specs) if spec.constraint}
    components = [(_build_one(spec, context), spec.weight) for spec in specs]
    return CombinedReward(components, clip, gates, constraints)


def uses_reward_model(specs: Sequence[RewardSpec]) -> bool:
    """Whether any of these rewards asks for the configured reward model."""
    return any(
        (spec.name == "reward_model" and "path" not in spec.options)
        or (spec.name == "sales" and bool(spec.options.get("relevance")))
        for spec in specs
    )


def describe_sandbox(specs: Sequence[RewardSpec]) -> dict[str, Any]:
    """What a run's manifest says of the sandbox of the reward ``code``; empty where none is one."""
    wanted = [str(spec.options.get("sandbox", "auto")) for spec in specs if spec.name == "code"]
    return {"sandbox": describe_choice(wanted[0])} if wanted else {}


def uses_process_reward(specs: Sequence[RewardSpec]) -> bool:
    """Whether any of these rewards asks for the recipe's own process reward model."""
    return any(spec.name == "process_reward" and "path" not in spec.options for spec in specs)


def _build_one(spec: RewardSpec, context: _Context) -> Reward:
    if is_user_file(spec.name):
        return user_reward(spec.name, spec.options)
    if spec.name not in REWARDS:
        raise RewardError(
            f"Reward '{spec.name}' is not known{nearest(spec.name, REWARDS)}; your own is given as "
            "FILE.py:function."
        )
    build = REWARDS[spec.name]
    known = {name: p for name, p in inspect.signature(build).parameters.items() if name != "context"}
    for option in spec.options:
        if option not in known:
            hint = nearest(option, known) if known else " (it has none)"
            raise RewardError(f"Reward {spec.name} has no option '{option}'{hint}.")
    missing = [name for name, p in known.items() if p.default is p.empty and name not in spec.options]
    if missing:
        raise RewardError(
            f"Reward {spec.name} needs the option '{missing[0]}': write it as "
            f'{{ name = "{spec.name}", options = {{ {missing[0]} = … }} }} in rl.rewards.'
        )
    try:
        return build(context, **spec.options)
    except (TypeError, ValueError) as error:
        raise RewardError(f"Reward {spec.name}: an option has the wrong type ({error}).") from None
