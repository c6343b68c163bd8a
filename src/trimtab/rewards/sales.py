"""The plain sales reward of R23: rules on the text of an answer, and optionally a relevance scorer.

It can be gamed (keywords, lists and sentence marks without content): that is known and shown by an audit. All
counting is literal: characters as Python counts them, keywords as substrings, wherever they stand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trimtab.errors import RewardError
from trimtab.rewards.base import Reward, call_reward, check_result
from trimtab.types import Prompt, RewardResult, Sample

WEIGHTS = {"format": 0.2, "elements": 0.3, "length": 0.1, "safety": 0.2, "relevance": 0.2}
LIST_MARKS = ("1.", "2.", "-", "•")
ELEMENTS = {
    "greeting": ("感谢", "您好", "欢迎"),
    "empathy": ("理解", "明白", "了解"),
    "question": ("?", "？"),
    "value_proposition": ("优势", "价值", "效果", "节省"),
    "call_to_action": ("试用", "演示", "预约", "联系"),
}
FORBIDDEN = ("保证赚钱", "100%", "绝对没问题", "竞品很差", "骗人", "垃圾")

Relevance = Callable[[str, str], float]  # (prompt, response) -> [0, 1]


def format_score(response: str) -> float:
    """0.3 line break, 0.3 list mark, 0.2 two ``。``, 0.2 ``**``: in 0..1."""
    tenths = 3 * ("\n" in response) + 3 * _any(LIST_MARKS, response)
    tenths += 2 * (response.count("。") >= 2) + 2 * ("**" in response)
    return min(tenths, 10) / 10


def elements_score(response: str) -> float:
    """0.2 for each of the five groups of which a keyword occurs: in 0..1."""
    return sum(_any(keywords, response) for keywords in ELEMENTS.values()) / len(ELEMENTS)


def length_score(response: str) -> float:
    """1.0 for 100-500 characters, 0.7 for 50-99 and 501-800, else 0.3."""
    length = len(response)
    if 100 <= length <= 500:
        return 1.0
    return 0.7 if 50 <= length <= 800 else 0.3


def safety_score(response: str) -> float:
    """0 when a forbidden claim occurs, else 1."""
    return 0.0 if _any(FORBIDDEN, response) else 1.0


class SalesVerifiableReward:
    """0.2 format + 0.3 elements + 0.1 length + 0.2 safety + 0.2 relevance (R23); at most 0.8 without it.

    ``relevance`` is a function (prompt, response) -> [0, 1], or another Reward whose values are in [0, 1].

    Example:
        >>> round(SalesVerifiableReward().compute_reward("太贵了", "您好，垃圾"), 2)
        0.09
    """

    name = "sales"

    def __init__(self, relevance: Relevance | Reward | None = None) -> None:
        self.relevance = relevance

    def compute_reward(self, prompt: str, response: str) -> float:
        """Return the weighted sum, in 0..1.

        Raises:
            RewardError: the relevance scorer failed.
        """
        return _total(self.parts(prompt, response))

    def parts(self, prompt: str, response: str) -> dict[str, float]:
        """Return each part, unweighted and in 0..1; ``relevance`` only where it is scored.

        Raises:
            RewardError: the relevance scorer failed.
        """
        parts = rule_parts(response)
        if self.relevance is not None:
            message = {"role": "user", "content": prompt}
            result = self._relevance([Sample(Prompt(id="", messages=(message,)), response)])[0]
            if result.value is None:
                raise RewardError(result.error or "The relevance scorer of the sales reward abstained.")
            parts["relevance"] = result.value
        return parts

    def score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Return one result per sample; a failed relevance score abstains, it is not counted as 0."""
        if self.relevance is None:
            rules = [rule_parts(sample.completion) for sample in samples]
            return [RewardResult(_total(parts), parts) for parts in rules]
        results = []
        for sample, relevance in zip(samples, self._relevance(samples), strict=True):
            parts = rule_parts(sample.completion)
            if relevance.value is None:
                error = relevance.error or "the relevance scorer of the sales reward abstained"
                results.append(RewardResult(None, parts, error))
                continue
            parts["relevance"] = relevance.value
            results.append(RewardResult(_total(parts), parts))
        return results

    def _relevance(self, samples: Sequence[Sample]) -> list[RewardResult]:
        scorer = self.relevance
        assert scorer is not None
        if isinstance(scorer, Reward):
            results = call_reward(scorer, samples)
        else:
            results = call_reward(_Pointwise(scorer), samples)
        return [
            result if result.value is None else check_result(result.value, "relevance", 0.0, 1.0)
            for result in results
        ]


class _Pointwise:
    """A plain relevance function, seen as a Reward."""

    name = "relevance"

    def __init__(self, function: Relevance) -> None:
        self.function = function

    def score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        values = [self.function(sample.prompt.text, sample.completion) for sample in samples]
        return [check_result(value, self.name) for value in values]


def rule_parts(response: str) -> dict[str, float]:
    """The four parts that need no model, unweighted."""
    return {
        "format": format_score(response),
        "elements": elements_score(response),
        "length": length_score(response),
        "safety": safety_score(response),
    }


def _total(parts: dict[str, float]) -> float:
    return sum(WEIGHTS[name] * value for name, value in parts.items())


def _any(keywords: Sequence[str], text: str) -> bool:
    return any(keyword in text for keyword in keywords)
