"""A model behind an OpenAI-compatible endpoint as an independent judge: ``openai:MODEL@URL``."""

from __future__ import annotations

import os
from collections.abc import Sequence

from trimtab.config import RewardSpec
from trimtab.errors import ConfigError, RewardError
from trimtab.rewards.http_json import Failure
from trimtab.rewards.judge import JudgeReward, chat_address, compare_in_both_orders, is_cut, judge_reward
from trimtab.types import Prompt, RewardResult, Sample

CHAT_PREFIX = "openai:"
TOKEN_ENV = "OPENAI_API_KEY"
DEFAULT_URL = "https://api.openai.com/v1"


class PairJudge:
    """Compares two answers by asking a model in both orders; orders that disagree are a tie.

    Single answers, as the evaluations during training ask for, are scored by the rubric.

    Example:
        >>> judge = chat_judge("openai:my-model@http://127.0.0.1:8000/v1")
        >>> judge.compare(prompt, "a good answer", "a bad one")
        1.0
    """

    name = "judge"

    def __init__(self, reward: JudgeReward) -> None:
        self.reward = reward
        self._known: dict[tuple[object, ...], float] = {}

    def prepare_pairs(self, pairs: Sequence[tuple[Sample, Sample]]) -> None:
        """Judge all pairs at once, and keep the preferences.

        Raises:
            RewardError: a pair got no verdict.
        """
        missing = list({_key(*pair): pair for pair in pairs if _key(*pair) not in self._known}.values())
        for (first, second), found in zip(
            missing, compare_in_both_orders(self.reward.judge, missing), strict=True
        ):
            if isinstance(found, Failure):
                raise RewardError(f"The judge could not compare two answers: {found.reason}.")
            self._known[_key(first, second)] = found[0]
            self._known[_key(second, first)] = 1.0 - found[0]

    def compare(self, prompt: Prompt, first: str, second: str) -> float:
        """Return 1, 0.5 or 0: the preference for ``first``; both are taken to have ended by themselves."""
        return self.compare_samples(Sample(prompt, first), Sample(prompt, second))

    def compare_samples(self, first: Sample, second: Sample) -> float:
        """The same for answers of which it is known how they ended."""
        self.prepare_pairs([(first, second)])
        return self._known[_key(first, second)]

    def score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Return the rubric's score of each answer, in 0..1: the judge seen as a reward, never trained on."""
        return self.reward.score(samples)


def chat_judge(name: str) -> PairJudge:
    """The judge that ``openai:MODEL@URL`` names; without URL it is OPENAI_BASE_URL or OpenAI's own.

    The token is in OPENAI_API_KEY, where one is needed.

    Raises:
        ConfigError: no model is named.
        RewardError: the address cannot be asked.
    """
    model, url = _parts(name)
    if not model:
        raise ConfigError(f"eval.judge = '{name}' names no model: write openai:MODEL@http://HOST:PORT/v1.")
    return PairJudge(judge_reward(url, model, token_env=TOKEN_ENV if os.environ.get(TOKEN_ENV) else ""))


def is_training_judge(name: str, rewards: Sequence[RewardSpec]) -> bool:
    """Whether one of the training's rewards asks the same model at the same address."""
    model, url = _parts(name)
    same = {"model": model, "url": chat_address(url)}
    judges = [spec.options for spec in rewards if spec.name == "judge"]
    return any(
        {"model": options.get("model"), "url": chat_address(str(options.get("url")))} == same
        for options in judges
    )


def _parts(name: str) -> tuple[str, str]:
    model, _, url = name.removeprefix(CHAT_PREFIX).partition("@")
    return model, url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL


def _key(first: Sample, second: Sample) -> tuple[object, ...]:
    messages = repr([sorted(message.items()) for message in first.prompt.messages])
    return messages, first.completion, is_cut(first), second.completion, is_cut(second)
