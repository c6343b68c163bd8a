"""The reward ``judge``: a model scores completions by a rubric, or compares them with another answer (R19).

Pairs are asked in both orders, since judges prefer a place. Where the orders disagree the pair is a tie.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

from trimtab.config.user_text import read_user_text
from trimtab.errors import RewardError, nearest
from trimtab.rewards.chat_judge import ChatJudge, Question
from trimtab.rewards.gold_column import value_of
from trimtab.rewards.http_json import Endpoint, Failure, token_from
from trimtab.rewards.verdict_cache import VerdictCache, default_cache_path
from trimtab.types import RewardResult, Sample

RUBRIC = (
    "Is the answer correct, does it do what was asked, is it complete and clear, without filler, and "
    "harmless? A short answer that does this is as good as a long one."
)
Mode = Literal["score", "reference", "group"]
_MODES = ("score", "reference", "group")
_CHAT = "/chat/completions"


class JudgeReward:
    """``mode`` says what the value is.

    ``score``: verdict / scale, in 0..1. ``reference``: 1 when the completion beats the row's ``column``, 0.5
    for a tie, 0 when it loses. ``group``: the same against the next completion of the same prompt in the
    call; a completion without another abstains. A verdict that is missing or not in the strict form abstains.
    Pairs have the part ``agreement``: 1 when both orders gave the same winner, else 0 (then it is a tie).
    """

    def __init__(
        self, judge: ChatJudge, mode: Mode = "score", column: str = "answer", name: str = "judge"
    ) -> None:
        self.judge, self.mode, self.column, self.name = judge, mode, column, name

    def score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Return one result per sample, in order."""
        if self.mode == "score":
            questions = [
                Question(sample.prompt.messages, sample.completion, is_cut=is_cut(sample))
                for sample in samples
            ]
            return [self._scored(verdict) for verdict in self.judge.ask(questions)]
        others = self._others(samples)
        results: list[RewardResult] = [
            RewardResult(None, error=f"reward judge: the row has no text in '{self.column}' to compare with")
            if self.mode == "reference"
            else RewardResult(None)
            for _ in samples
        ]
        rows = [row for row, other in enumerate(others) if other is not None]
        preferences = compare_in_both_orders(
            self.judge, [(samples[row], cast(Sample, others[row])) for row in rows]
        )
        for row, found in zip(rows, preferences, strict=True):
            if isinstance(found, Failure):
                results[row] = RewardResult(None, error=f"reward {self.name}: {found.reason}")
            else:
                value, is_agreed = found
                results[row] = RewardResult(value, {"agreement": float(is_agreed)})
        return results

    def _scored(self, verdict: int | str | Failure) -> RewardResult:
        if isinstance(verdict, Failure):
            return RewardResult(None, error=f"reward {self.name}: {verdict.reason}")
        return RewardResult(int(verdict) / self.judge.scale)

    def _others(self, samples: Sequence[Sample]) -> list[Sample | None]:
        """What each completion is compared with."""
        if self.mode == "reference":
            columns = [(sample, value_of(sample.prompt.columns, self.column)) for sample in samples]
            return [Sample(s.prompt, text) if isinstance(text, str) and text else None for s, text in columns]
        groups: dict[str, list[int]] = {}
        for row, sample in enumerate(samples):
            messages = [(m["role"], m["content"]) for m in sample.prompt.messages]
            groups.setdefault(repr((sample.prompt.id, messages)), []).append(row)
        others: list[Sample | None] = [None] * len(samples)
        for rows in groups.values():
            for place, row in enumerate(rows):
                if len(rows) > 1:
                    others[row] = samples[rows[(place + 1) % len(rows)]]
        return others


def compare_in_both_orders(
    judge: ChatJudge, pairs: Sequence[tuple[Sample, Sample]]
) -> list[tuple[float, bool] | Failure]:
    """For each (answer, other) to one prompt: the preference for ``answer`` (1, 0.5, 0) and whether both
    orders agreed; equal answers are a tie without asking. One verdict missing: a Failure.

    The judge is told which answers were cut off at the length limit.
    """
    questions = [
        _question(*pair) for one, two in pairs if _differ(one, two) for pair in ((one, two), (two, one))
    ]
    verdicts = iter(judge.ask(questions))
    found: list[tuple[float, bool] | Failure] = []
    for answer, other in pairs:
        if not _differ(answer, other):
            found.append((0.5, True))
            continue
        forth, back = next(verdicts), next(verdicts)
        if isinstance(forth, Failure) or isinstance(back, Failure):
            found.append(forth if isinstance(forth, Failure) else cast(Failure, back))
            continue
        one, two = _WINS[str(forth)], 1.0 - _WINS[str(back)]
        found.append((one, True) if one == two else (0.5, False))
    return found


def is_cut(sample: Sample) -> bool:
    """Whether an answer did not end by itself."""
    return sample.finish_reason != "stop"


def _differ(one: Sample, two: Sample) -> bool:
    return (one.completion, is_cut(one)) != (two.completion, is_cut(two))


def _question(one: Sample, two: Sample) -> Question:
    return Question(one.prompt.messages, one.completion, two.completion, is_cut(one), is_cut(two))


_WINS = {"A": 1.0, "tie": 0.5, "B": 0.0}


def judge_reward(
    url: str,
    model: str,
    *,
    rubric: str = "",
    mode: str = "score",
    column: str = "answer",
    scale: int = 10,
    temperature: float = 0.0,
    token_env: str = "",
    cache: str = "auto",
    cache_entries: int = 100_000,
    timeout_s: float = 60.0,
    deadline_s: float = 300.0,
    concurrency: int = 4,
    retries: int = 2,
) -> JudgeReward:
    """A ``JudgeReward`` from the options of a recipe.

    ``rubric`` is a text, or a file that holds it; ``url`` is the base (``https://HOST/v1``) or the whole
    address; ``cache`` is a file, ``auto`` (the user's cache directory) or ``off``.

    Raises:
        RewardError: the address, the rubric's file, the mode, a bound or the token is not usable.
    """
    if mode not in _MODES:
        raise RewardError(f"Reward judge: there is no mode '{mode}'{nearest(mode, _MODES)}.")
    if not (1 <= scale <= 1000 and cache_entries >= 1):
        raise RewardError(f"Reward judge: scale = {scale} must be 1 to 1000, and cache_entries at least 1.")
    endpoint = Endpoint(
        chat_address(url),
        token_from("judge", token_env),
        float(timeout_s),
        float(deadline_s),
        int(concurrency),
        int(retries),
    )
    file = default_cache_path() if cache == "auto" else Path(cache)
    judge = ChatJudge(
        endpoint,
        model,
        read_rubric(rubric),
        scale=int(scale),
        temperature=float(temperature),
        cache=None if cache == "off" else VerdictCache(file, int(cache_entries)),
    )
    return JudgeReward(judge, cast(Mode, mode), column)


def chat_address(url: str) -> str:
    """The address of the chat endpoint below a base.

    Example:
        >>> chat_address("http://127.0.0.1:8000/v1/")
        'http://127.0.0.1:8000/v1/chat/completions'
    """
    bare = url.rstrip("/")
    return bare if bare.endswith(_CHAT) else bare + _CHAT


def read_rubric(rubric: str) -> str:
    """The rubric: the text itself, or what a file (``….txt`` or ``….md``) holds; empty gives RUBRIC.

    Raises:
        RewardError: the file is not there or is not text.
    """
    if not rubric.endswith((".txt", ".md")) or "\n" in rubric:
        return rubric or RUBRIC
    return read_user_text(rubric, "the rubric", RewardError)
