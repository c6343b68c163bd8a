"""Judges of the win rate, by name. A judge is never a training reward: it would only confirm itself."""

from __future__ import annotations

import filecmp
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from trimtab.config import RewardSpec
from trimtab.errors import ConfigError, RewardError, nearest
from trimtab.evals.chat import CHAT_PREFIX, PairJudge, chat_judge, is_training_judge
from trimtab.rewards.base import Reward, call_reward, check_result, describe
from trimtab.rewards.registry import REWARDS, uses_reward_model
from trimtab.rewards.user_file import is_user_file, load_from_file
from trimtab.tasks.registry import JUDGES
from trimtab.types import Prompt, RewardResult, Sample


class Judge(Protocol):
    """Compares two answers to one prompt.

    One that also has ``compare_samples(first, second)`` is given samples instead of texts, and so knows which
    answers were cut off at the length limit.
    """

    def compare(self, prompt: Prompt, first: str, second: str) -> float:
        """Return the preference for ``first``: 1, 0.5 for a tie, 0, or anything between."""
        ...


class ScoreJudge:
    """Prefers the answer with the higher score; scores closer than ``margin`` are a tie.

    Args:
        scorer: a function (prompt text, response) -> float, or a Reward (then scored in batches).
        margin: in units of the score.

    Example:
        >>> judge = ScoreJudge(lambda prompt, response: len(response), margin=2)
        >>> judge.compare(Prompt("0", ({"role": "user", "content": "hi"},)), "long answer", "short")
        1.0
    """

    name = "judge"

    def __init__(self, scorer: Callable[[str, str], float] | Reward, margin: float = 0.0) -> None:
        self.scorer, self.margin = scorer, margin
        self._scores: dict[tuple[str, str, str], float] = {}

    def prepare(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> None:
        """:meth:`prepare_samples` of answers that ended by themselves."""
        self.prepare_samples([Sample(p, answer) for p, answer in zip(prompts, answers, strict=True)])

    def prepare_samples(self, samples: Sequence[Sample]) -> None:
        """Score all answers at once and keep the scores; the same text cut off is another answer.

        Raises:
            RewardError: an answer cannot be scored.
        """
        missing = {_key(sample): sample for sample in samples if _key(sample) not in self._scores}
        results = self.score(list(missing.values()))
        for key, result in zip(missing, results, strict=True):
            if result.value is None:
                raise RewardError(f"The judge could not score an answer ({result.error or 'it abstained'}).")
            self._scores[key] = result.value

    def compare(self, prompt: Prompt, first: str, second: str) -> float:
        """Return 1, 0.5 or 0: the preference for ``first``; both are taken to have ended by themselves."""
        return self.compare_samples(Sample(prompt, first), Sample(prompt, second))

    def compare_samples(self, first: Sample, second: Sample) -> float:
        """The same for answers of which it is known how they ended."""
        self.prepare_samples([first, second])
        difference = self._scores[_key(first)] - self._scores[_key(second)]
        if difference == 0 or abs(difference) < self.margin:
            return 0.5
        return float(difference > 0)

    def score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Return the score of each answer: the judge seen as a reward, which nothing is trained on.

        Raises:
            RewardError: the judge's function failed.
        """
        if isinstance(self.scorer, Reward):
            return call_reward(self.scorer, samples)
        try:
            values = [self.scorer(sample.prompt.text, sample.completion) for sample in samples]
        except Exception as error:  # the function may be a user's
            raise RewardError(f"The judge failed: {describe(error)}.") from None
        return [check_result(value, "judge") for value in values]


def build_judge(
    judge: str,
    *,
    tie_margin: float = 0.0,
    rewards: Sequence[RewardSpec] = (),
    reward_model: str | None = None,
    device: str | None = None,
    chat_template: str | None = None,
) -> ScoreJudge | PairJudge:
    """Return the judge that ``eval.judge`` names.

    Args:
        judge: a name of JUDGES, the directory of a reward model, ``FILE.py:function`` with
            ``function(prompt, response) -> float``, or ``openai:MODEL@URL`` (see ``evals/chat.py``).
        tie_margin: scores closer than this are a tie.
        rewards: what the policy was trained on; none of it may judge.
        reward_model: the reward model of the training, when there is one.
        device: where a judge that is a reward model is loaded (``model.device``).
        chat_template: a Jinja file for such a judge without a template (``model.chat_template``).

    Raises:
        ConfigError: the judge is unknown, or is one of the training's rewards.
        RewardError: the file or function is not there.
        ModelError: the directory holds no reward model.
    """
    refuse_training_reward(judge, rewards, reward_model)
    if judge in JUDGES:
        return ScoreJudge(JUDGES[judge], tie_margin)
    if judge.startswith(CHAT_PREFIX):
        return chat_judge(judge)
    if is_user_file(judge):
        return ScoreJudge(load_from_file(judge), tie_margin)
    if Path(judge).is_dir():
        from trimtab.rewards.learned import LearnedReward

        return ScoreJudge(LearnedReward(judge, device=device, chat_template=chat_template), tie_margin)
    raise ConfigError(
        f"eval.judge = '{judge}' is neither a judge{nearest(judge, JUDGES)}, nor the directory of a reward "
        "model, nor FILE.py:function, nor openai:MODEL@URL."
    )


def refuse_training_reward(judge: str, rewards: Sequence[RewardSpec], reward_model: str | None) -> None:
    """Raise where the judge is what the policy is trained on.

    Raises:
        ConfigError: it is one of ``rewards``, or the reward model of the training.
    """
    fix = "choose another, such as sales_quality or a reward model trained on other data"
    trained_on = {_same_name(spec.name) for spec in rewards}
    if _same_name(judge) in trained_on or judge in REWARDS:
        raise ConfigError(
            f"eval.judge = '{judge}' is a reward of the training, which cannot judge it; {fix}."
        )
    if judge.startswith(CHAT_PREFIX) and is_training_judge(judge, rewards):
        raise ConfigError(f"eval.judge = '{judge}' is the judge of the training's rewards; {fix}.")
    models = [str(spec.options["path"]) for spec in rewards if "path" in spec.options]
    if reward_model is not None and uses_reward_model(rewards):
        models.append(str(reward_model))
    if any(_same_model(Path(judge), Path(model)) for model in models):
        raise ConfigError(f"eval.judge = '{judge}' is the reward model of the training; {fix}.")


def _same_name(name: str) -> str:
    """The name with a user's file as a full path, so that ./a.py:f and a.py:f are one."""
    if not is_user_file(name):
        return name
    file, _, function = name.rpartition(":")
    return f"{Path(file).expanduser().resolve()}:{function}"


def _same_model(one: Path, other: Path) -> bool:
    """Whether two directories are one, or hold byte for byte the same weights."""
    if one.resolve() == other.resolve():
        return True
    files = one / "model.safetensors", other / "model.safetensors"
    return all(file.is_file() for file in files) and filecmp.cmp(*files, shallow=False)


def _key(sample: Sample) -> tuple[str, str, str]:
    messages = repr([sorted(message.items()) for message in sample.prompt.messages])
    return messages, sample.completion, sample.finish_reason
