"""Rewards and judges tried on a few answers before anything is trained."""

from __future__ import annotations

import inspect
import os
from collections.abc import Collection, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trimtab.config import Recipe, RewardSpec, Stage
from trimtab.errors import ConfigError, RewardError, nearest
from trimtab.evals.chat import CHAT_PREFIX, DEFAULT_URL, TOKEN_ENV
from trimtab.evals.judges import build_judge, refuse_training_reward
from trimtab.models.load import is_sequence_classifier
from trimtab.pipeline.sources import held_out_prompts, train_prompts
from trimtab.rewards.base import call_reward, why_silent
from trimtab.rewards.combine import CombinedReward
from trimtab.rewards.gold import refuse_bad_gold
from trimtab.rewards.registry import REWARDS, build_reward
from trimtab.rewards.user_file import is_user_file, load_from_file
from trimtab.types import Sample

TRIED = 4
# Four different answers, so that a reward that says the same of everything is seen.
ANSWERS = (
    "您好！感谢您的咨询，我理解您的顾虑。\n1. 优势是节省时间。\n2. **欢迎**预约演示。请问您的团队多大？",
    "Yes. The answer is 4.",
    "不知道。",
    "1\n2\n3",
)
GOLD_ROWS = 64  # of gold answers, a sample: the stage checks the others
REMOTE = ("remote", "judge")  # asking these costs money, or a server's time


def check_rewards(recipe: Recipe, key: str, stages: Collection[Stage], warned: list[str]) -> None:
    """Build ``rl.rewards`` or ``rl.hidden_rewards``, but for what a stage has still to train; try them.

    Local ones score four answers. One that fails on all of them stops the run where the cause is plain: a
    column that the data lack, or a model that cannot score. A user's function may be right not to like these
    answers: its failure goes into ``warned``.

    Raises:
        RewardError: a reward, option, file or function is not there, or needs a column that the data lack.
        DataError: gold answers of the data do not earn 1.
    """
    rl = recipe.rl
    assert rl is not None
    specs = [spec for spec in getattr(rl, key) if not waits_for(spec, recipe, stages)]
    if not specs:
        return
    reward = build_reward(
        specs,
        reward_model=rl.reward_model or _if_there(recipe.paths.reward_model),
        process_reward=_if_there(recipe.paths.process_reward),
        device=recipe.model.device,
    )
    try:
        _try(recipe, key, specs, reward, warned)
    finally:
        for component, _ in reward.components:
            close = getattr(component, "close", None)
            if callable(close):
                close()


def check_names(recipe: Recipe) -> None:
    """Every reward of the recipe is known, or its file there, and the packages that it needs are installed.

    Costs nothing, so that it is done for the first stage too.

    Raises:
        RewardError: one is not.
    """
    rl = recipe.rl
    if rl is None:
        return
    for key in ("rewards", "hidden_rewards"):
        for spec in getattr(rl, key):
            file = Path(spec.name.rpartition(":")[0] or spec.name).expanduser()
            if is_user_file(spec.name) and not file.is_file():
                raise RewardError(
                    f"rl.{key}: there is no file {file}; a reward is given as FILE.py:function."
                )
            if not is_user_file(spec.name) and spec.name not in REWARDS:
                raise RewardError(
                    f"rl.{key}: reward '{spec.name}' is not known{nearest(spec.name, REWARDS)}; your own is "
                    "given as FILE.py:function."
                )
            if spec.name in REMOTE and find_spec("httpx2") is None:
                raise RewardError(f"rl.{key}: {spec.name} needs httpx2: pip install 'trimtab[remote]'.")


def _try(
    recipe: Recipe, key: str, specs: Sequence[RewardSpec], reward: CombinedReward, warned: list[str]
) -> None:
    rl = recipe.rl
    assert rl is not None
    prompts = train_prompts(recipe)
    samples = [Sample(prompt, text) for prompt, text in zip(prompts[:TRIED], ANSWERS, strict=False)]
    for spec, (component, _) in zip(specs, reward.components, strict=True):
        if spec.name in REMOTE:
            continue
        results = call_reward(component, samples)
        if any(result.value is not None for result in results):
            continue
        cause = why_silent(results)
        is_plain = "is not a column" in cause or not is_user_file(spec.name)
        if is_plain and any(result.error for result in results):
            raise RewardError(f"rl.{key}: {spec.name} scores none of {len(results)} tried answers: {cause}.")
        warned.append(f"rl.{key}: {spec.name} scored none of {len(results)} tried answers: {cause}")
    if key == "rewards":
        sources = [(rl.data, prompts)]
        if rl.hidden_data:
            sources.append((rl.hidden_data, held_out_prompts(recipe, "rl.hidden_data")))
        for source, rows in sources:
            refuse_bad_gold(reward, rows, source, limit=min(rl.gold_rows, GOLD_ROWS), seed=recipe.seed)


def waits_for(spec: RewardSpec, recipe: Recipe, stages: Collection[Stage]) -> bool:
    """Whether a reward needs a model that a stage of this run has still to make."""
    rl = recipe.rl
    assert rl is not None
    paths, given = recipe.paths, spec.options.get("path")
    asks_reward_model = spec.name == "reward_model" or bool(spec.options.get("relevance"))
    if asks_reward_model and "reward_model" in stages:
        return given == paths.reward_model or (given is None and not rl.reward_model)
    if spec.name == "process_reward" and "process_reward" in stages:
        return given in (None, paths.process_reward)
    return False


def check_judge(recipe: Recipe, stages: Collection[Stage]) -> None:
    """The judge of the evaluation exists, is no training reward, and can be called.

    Raises:
        ConfigError: it is unknown, or a reward of the training.
        RewardError: its file, function, arguments or key are not there.
    """
    rl, config = recipe.rl, recipe.eval
    if rl is None or config is None or not config.judge:
        return
    judge = config.judge
    model = rl.reward_model or (recipe.paths.reward_model if recipe.reward_model else None)
    if judge.startswith(CHAT_PREFIX):
        build_judge(judge, rewards=rl.rewards, reward_model=model)
        address = judge.partition("@")[2] or os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL
        if address == DEFAULT_URL and not os.environ.get(TOKEN_ENV):
            raise RewardError(
                f"eval.judge = '{judge}' asks {DEFAULT_URL}, and the environment variable {TOKEN_ENV} is not "
                "set: set it, or name another address with @URL."
            )
    elif is_user_file(judge):
        refuse_training_reward(judge, rl.rewards, model)
        _check_call(judge, load_from_file(judge))
    elif Path(judge).is_dir():
        refuse_training_reward(judge, rl.rewards, model)
        if not is_sequence_classifier(judge):
            raise ConfigError(f"eval.judge = '{judge}' is no reward model (a sequence classifier).")
    elif not ("reward_model" in stages and judge == recipe.paths.reward_model):
        build_judge(judge, rewards=rl.rewards, reward_model=model)


def _check_call(judge: str, function: Any) -> None:
    """A user's judge takes a prompt and a response."""
    if hasattr(function, "score"):
        return
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind("prompt", "response")
    except TypeError as error:
        raise RewardError(
            f"eval.judge = '{judge}' cannot be called with a prompt and a response ({error}): write it as "
            "function(prompt, response) -> float."
        ) from None


def _if_there(path: str) -> str | None:
    return path if (Path(path) / "config.json").is_file() else None
