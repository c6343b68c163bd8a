"""Small rules as rewards: exact match, regular expression, length, language, words, list format.

Each function returns a :class:`RuleReward`. A row that lacks what a rule needs abstains with the reason.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trimtab.errors import RewardError
from trimtab.rewards.base import check_result, describe
from trimtab.rewards.gold_column import DEFAULT, final_of, golds_of, value_of
from trimtab.types import Prompt, RewardResult, Sample

Rule = Callable[[Sample], float | bool | None]


@dataclass(frozen=True, slots=True)
class RuleReward:
    """A function of one sample, as a Reward; an exception makes that sample abstain.

    Example:
        >>> from trimtab.types import Prompt
        >>> row = Sample(Prompt("0", ({"role": "user", "content": "2+2"},), {"answer": "4"}), " 4 ")
        >>> exact_match().score([row])[0].value
        1.0
    """

    name: str
    rule: Rule
    gold: Callable[[Sample], tuple[str, ...]] | None = None  # the accepted answers of a row
    write: str = "{}"  # how a completion says one of them

    def gold_completion(self, prompt: Prompt) -> str | None:
        """The row's first gold answer as a completion; None where the rule has no gold.

        Raises:
            RewardError: the row has no gold answer.
        """
        return self.written(self.gold_answers(prompt)[0]) if self.gold else None

    def gold_answers(self, prompt: Prompt) -> tuple[str, ...]:
        """All accepted answers of the row; none where the rule has no gold.

        Raises:
            RewardError: the row has no gold answer.
        """
        return self.gold(Sample(prompt, "")) if self.gold else ()

    def written(self, answer: str) -> str:
        """A completion that gives this answer."""
        return self.write.format(answer) if self.write != "{}" else answer

    def reads(self, answer: str) -> bool:
        """Whether an answer is compared as what is meant and not only as text: rules always say how."""
        return True

    def score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Return one result per sample, in order."""
        return [self._score_one(sample) for sample in samples]

    def _score_one(self, sample: Sample) -> RewardResult:
        try:
            return check_result(self.rule(sample), self.name)
        except RewardError as error:
            return RewardResult(None, error=str(error))
        except Exception as error:  # one bad row costs that row
            return RewardResult(None, error=f"reward {self.name} failed: {describe(error)}")


def exact_match(column: str = DEFAULT, ignore_case: bool = False) -> RuleReward:
    """1 when the completion equals the row's ``column``, white space around both ignored; else 0.

    Of several accepted answers any is right; of a whole solution (``#### 18``) also its final answer.
    """

    def accepted(sample: Sample) -> tuple[str, ...]:
        golds = golds_of(sample, column, "exact_match")
        as_it_is = value_of(sample.prompt.columns, column)
        written = (as_it_is,) if isinstance(as_it_is, str) else ()
        return tuple(dict.fromkeys((*golds, *map(final_of, golds), *written)))

    def rule(sample: Sample) -> bool:
        given, wanted = sample.completion.strip(), [gold.strip() for gold in accepted(sample)]
        if ignore_case:
            given, wanted = given.casefold(), [gold.casefold() for gold in wanted]
        return given in wanted

    return RuleReward("exact_match", rule, accepted)


def regex(pattern: str, full: bool = False) -> RuleReward:
    """1 when ``pattern`` occurs in the completion (with ``full``: matches all of it); else 0.

    Raises:
        RewardError: the pattern is not a regular expression.
    """
    try:
        compiled = re.compile(pattern, re.DOTALL)
    except re.error as error:
        raise RewardError(f"Reward regex: the pattern {pattern!r} is not valid ({error}).") from None
    find = compiled.fullmatch if full else compiled.search
    return RuleReward("regex", lambda sample: find(sample.completion) is not None)


def length(low: int = 1, high: int = 500) -> RuleReward:
    """1 when the completion has ``low`` to ``high`` characters; outside it falls linearly with the distance.

    Below: n / low. Above: high / n.

    Raises:
        RewardError: not 0 <= low <= high, or high is 0.
    """
    if not 0 <= low <= high or high == 0:
        raise RewardError(f"Reward length: low = {low} and high = {high} must satisfy 0 <= low <= high.")

    def rule(sample: Sample) -> float:
        count = len(sample.completion)
        if count < low:
            return count / low
        return 1.0 if count <= high else high / count

    return RuleReward("length", rule)


def language(target: str = "zh") -> RuleReward:
    """Share of the letters that are of the language: Chinese characters (zh) or Latin letters (en), in 0..1.

    Digits, punctuation and white space do not count; no letters at all scores 0.

    Raises:
        RewardError: the target is neither zh nor en.
    """
    if target not in ("zh", "en"):
        raise RewardError(f"Reward language: target = {target!r} is not known (known: en, zh).")

    def rule(sample: Sample) -> float:
        letters = [char for char in sample.completion if char.isalpha()]
        belongs = _is_cjk if target == "zh" else _is_latin
        return sum(map(belongs, letters)) / len(letters) if letters else 0.0

    return RuleReward("language", rule)


def contains(words: Sequence[str], mode: str = "share", column: str | None = None) -> RuleReward:
    """How many of ``words`` occur: their share, or 1 for ``any`` / ``all`` / ``none`` of them.

    With ``column`` the words are those of the row, separated by commas, in addition to ``words``.

    Raises:
        RewardError: unknown mode, or nothing to look for.
    """
    modes = {"share": lambda k, n: k / n, "any": lambda k, n: k > 0, "all": lambda k, n: k == n}
    modes["none"] = lambda k, n: k == 0
    wanted = [words] if isinstance(words, str) else [word for word in words if word]
    if mode not in modes:
        raise RewardError(f"Reward contains: mode = {mode!r} is not known (known: {', '.join(modes)}).")
    if not wanted and column is None:
        raise RewardError("Reward contains: give `words` or a `column` of words to look for.")

    def rule(sample: Sample) -> float:
        texts = golds_of(sample, column, "contains") if column else ()
        extra = [word for text in texts for word in re.split("[,，、]", text)]
        every = [*wanted, *(word.strip() for word in extra if word.strip())]
        return float(modes[mode](sum(word in sample.completion for word in every), len(every)))

    return RuleReward("contains", rule)


def same_names(names: Sequence[str]) -> RuleReward:
    """Whether the answer is about what was asked: half for saying a name that the prompt says, half for
    saying no other of ``names``. A prompt that says none of them does not apply.

    Raises:
        RewardError: fewer than two names.

    Example:
        >>> from trimtab.types import Prompt
        >>> row = Sample(Prompt("0", ({"role": "user", "content": "Is Ada fast?"},)), "Bob is.")
        >>> same_names(["Ada", "Bob"]).score([row])[0].value
        0.0
    """
    wanted = [names] if isinstance(names, str) else [name for name in names if name]
    if len(wanted) < 2:
        raise RewardError("Reward same_names: give `names`, a list of at least two names to tell apart.")

    def rule(sample: Sample) -> float | None:
        asked = {name for name in wanted if name in sample.prompt.text}
        if not asked:
            return None
        said = {name for name in wanted if name in sample.completion}
        return 0.5 * bool(said & asked) + 0.5 * (not said - asked)

    return RuleReward("same_names", rule)


def list_format(items: int = 2) -> RuleReward:
    """1 when at least ``items`` lines are list entries: ``1.``, ``-``, ``•`` or ``*``, and text after it."""
    entry = re.compile(r"^[ \t]*(?:\d{1,2}[.、)）]|[-•*])[ \t]*\S", re.MULTILINE)
    return RuleReward("list_format", lambda sample: len(entry.findall(sample.completion)) >= items)


def _is_cjk(char: str) -> bool:
    return unicodedata.name(char, "").startswith("CJK UNIFIED IDEOGRAPH")


def _is_latin(char: str) -> bool:
    return unicodedata.name(char, "").startswith("LATIN")
