"""Are the data's own answers ones that a run can learn from?

Each accepted answer must earn 1, or the run would be taught the opposite. That alone would let a reward
confirm its own misreading. So a printed list or struct is refused, an answer that is changed by construction
must not earn 1, and answers that can only be compared as written are counted.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from trimtab.errors import DataError, RewardError
from trimtab.rewards.base import Reward, call_reward
from trimtab.rewards.combine import CombinedReward
from trimtab.types import Prompt, RewardResult, Sample

_SHOWN = 5  # rows that are named in an error


@runtime_checkable
class HasGold(Protocol):
    """A reward that knows what a completion that deserves 1 looks like."""

    def gold_completion(self, prompt: Prompt) -> str | None:
        """Return the row's gold answer in the form that is expected; None where the row need not have one.

        Raises:
            RewardError: the row lacks the column that the reward reads.
        """
        ...


@runtime_checkable
class HasGoldAnswers(HasGold, Protocol):
    """A reward that compares one final answer with one or several accepted ones."""

    def gold_answers(self, prompt: Prompt) -> Sequence[str]:
        """All accepted answers of the row, none where the reward has no gold.

        Raises:
            RewardError: the row lacks the column that the reward reads.
        """
        ...

    def written(self, answer: str) -> str:
        """A completion that gives this answer."""
        ...

    def reads(self, answer: str) -> bool:
        """Whether other writings of this answer can earn 1."""
        ...


@dataclass(frozen=True, slots=True)
class GoldFailure:
    """A row whose gold answer does not earn 1, or that is in doubt for another reason."""

    row: str  # the prompt's id: the column `id`, or the row's number from 0
    reward: str
    gold: str
    reason: str

    def __str__(self) -> str:
        shown = " ".join(self.gold.split())
        shown = shown if len(shown) <= 60 else f"{shown[:59]}…"
        return f"row {self.row}, {self.reward}, gold '{shown}': {self.reason}"


@dataclass(frozen=True, slots=True)
class GoldReport:
    """How many of ``num_rows`` rows were checked, by which rewards, and which of them failed."""

    num_rows: int
    num_checked: int
    rewards: tuple[str, ...]
    failures: tuple[GoldFailure, ...]
    doubts: tuple[GoldFailure, ...] = ()  # a changed answer earns 1 as well
    as_written: tuple[GoldFailure, ...] = ()  # only the same writing earns 1

    @property
    def scope(self) -> str:
        """``400 rows``, or ``2000 of 7473 rows, drawn at random``."""
        if self.num_checked == self.num_rows:
            return f"{self.num_rows} rows"
        return f"{self.num_checked} of {self.num_rows} rows, drawn at random"

    def describe(self, source: str) -> str:
        """The rows that failed, the first few of them by name."""
        rows = _named(self.failures)
        return f"{len(self.failures)} gold answers of {source} do not earn 1 ({self.scope}): {rows}"

    def describe_doubts(self, source: str) -> str:
        """The rows whose answer may be changed and still earns 1; empty where there are none."""
        if not self.doubts:
            return ""
        rows = _named(self.doubts)
        return f"{len(self.doubts)} gold answers of {source} earn 1 also when changed ({self.scope}): {rows}"

    def describe_as_written(self, source: str) -> str:
        """How many answers only the same writing matches, and the first of them; empty: none."""
        if not self.as_written:
            return ""
        return (
            f"{len(self.as_written)} gold answers of {source} can only be compared as text, so other "
            f"writings of them earn 0 ({self.scope}): {_named(self.as_written)}"
        )


def _named(rows: Sequence[GoldFailure]) -> str:
    more = len(rows) - _SHOWN
    return "; ".join(map(str, rows[:_SHOWN])) + (f"; and {more} more" if more > 0 else "")


def check_gold(
    reward: CombinedReward, prompts: Sequence[Prompt], limit: int = 2000, seed: int = 0
) -> GoldReport:
    """Score the gold answer of each row with each component that has one; of more than ``limit`` a sample.

    Example:
        >>> from trimtab.rewards.rules import exact_match
        >>> row = Prompt("0", ({"role": "user", "content": "2+2"},), {"answer": "4"})
        >>> check_gold(CombinedReward([(exact_match(), 1.0)]), [row]).failures
        ()
    """
    rows = list(prompts)
    if len(rows) > limit:
        rows = [rows[index] for index in sorted(random.Random(seed).sample(range(len(rows)), limit))]
    found = [_Findings(name) for name in reward.names]
    for one, (component, _) in zip(found, reward.components, strict=True):
        if isinstance(component, HasGold) and limit > 0:
            _check_one(component, rows, one)
    return GoldReport(
        len(prompts),
        len(rows),
        tuple(one.reward for one in found if one.is_asked),
        tuple(failure for one in found for failure in one.failures),
        tuple(doubt for one in found for doubt in one.doubts),
        tuple(row for one in found for row in one.as_written),
    )


def refuse_bad_gold(
    reward: Reward, prompts: Sequence[Prompt], source: str, *, limit: int = 2000, seed: int = 0
) -> None:
    """Raise when a row's gold answer does not earn 1. ``limit`` 0 leaves the check out.

    Raises:
        DataError: names the rows, their gold answers and the reasons.
    """
    if not isinstance(reward, CombinedReward):
        return
    report = check_gold(reward, prompts, limit, seed)
    if report.failures:
        raise DataError(
            f"{report.describe(source)}. Mend or remove these rows, or set rl.gold_rows = 0 to train anyway."
        )


@dataclass
class _Findings:
    """What is found of one reward's gold answers."""

    reward: str
    is_asked: bool = False
    failures: list[GoldFailure] = field(default_factory=list)
    doubts: list[GoldFailure] = field(default_factory=list)
    as_written: list[GoldFailure] = field(default_factory=list)

    def fail(self, prompt: Prompt, gold: str, reason: str) -> None:
        self.failures.append(GoldFailure(prompt.id, self.reward, gold, reason.rstrip(".")))


def _check_one(reward: Reward, rows: Sequence[Prompt], found: _Findings) -> None:
    """Score every accepted answer of every row, and what becomes of it when it is changed."""
    assert isinstance(reward, HasGold)
    right: list[Sample] = []
    wrong: list[tuple[Sample, str]] = []
    for prompt in rows:
        try:
            if isinstance(reward, HasGoldAnswers):
                golds = list(reward.gold_answers(prompt))
                texts = [reward.written(gold) for gold in golds]
                wrong += _changed(reward, prompt, golds)
                _look_at(reward, prompt, golds, found)
            else:
                text = reward.gold_completion(prompt)
                texts = [] if text is None else [text]
        except RewardError as error:
            found.fail(prompt, "", str(error))
            continue
        right += [Sample(prompt, text) for text in texts]
    found.is_asked = bool(right or found.failures)
    for sample, result in zip(right, call_reward(reward, right) if right else (), strict=True):
        reason = _reason(result)
        if reason:
            found.fail(sample.prompt, sample.completion, reason)
    samples = [sample for sample, _ in wrong]
    for (sample, gold), result in zip(wrong, call_reward(reward, samples) if samples else (), strict=True):
        if not _reason(result):
            reason = f"'{sample.completion}' earns 1 as well"
            found.doubts.append(GoldFailure(sample.prompt.id, found.reward, gold, reason))


def _look_at(reward: HasGoldAnswers, prompt: Prompt, golds: Sequence[str], found: _Findings) -> None:
    """What can be said of an answer without scoring it."""
    for gold in golds:
        if is_printed(gold):
            found.fail(prompt, gold, "it is a printed list or struct: store the list or the struct itself")
        elif not reward.reads(gold):
            found.as_written.append(GoldFailure(prompt.id, found.reward, gold, "text only"))


def _changed(reward: HasGoldAnswers, prompt: Prompt, golds: Sequence[str]) -> list[tuple[Sample, str]]:
    """Completions that give one accepted answer with a digit or a letter changed."""
    if not golds:
        return []
    wrong = change(golds[0])
    if wrong is None or wrong in golds:
        return []
    return [(Sample(prompt, reward.written(wrong)), golds[0])]


def change(gold: str) -> str | None:
    """The answer with its last digit one higher, or without digits its last letter another one.

    Example:
        >>> change("3.19 cm"), change("yes"), change("!")
        ('3.10 cm', 'yet', None)
    """
    digits = [at for at, char in enumerate(gold) if char in "0123456789"]
    if digits:
        at = digits[-1]
        return f"{gold[:at]}{(int(gold[at]) + 1) % 10}{gold[at + 1 :]}"
    letters = [found.end() - 1 for found in re.finditer(r"(?<![\\A-Za-z])[A-Za-z]+", gold)]
    if not letters:
        return None
    at = letters[-1]
    return f"{gold[:at]}{chr(ord(gold[at]) + 1) if gold[at] not in 'zZ' else 'A'}{gold[at + 1 :]}"


def is_printed(gold: str) -> bool:
    """Whether a text is what Python prints for a list or a struct that holds texts.

    Example:
        >>> is_printed("['yes', 'true']"), is_printed("{'style': 'rule'}"), is_printed("[1, 2]")
        (True, True, False)
    """
    text = gold.strip()
    if re.match(r"(?:array|tensor|dtype|DictConfig|ListConfig)\(", text):
        return True
    if not re.fullmatch(r"[\[({].*[\])}]", text, re.DOTALL) or not ("'" in text or '"' in text):
        return False
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False
    return isinstance(found, (list, tuple, dict, set))


def _reason(result: RewardResult) -> str:
    """Why this is not full marks; empty where it is."""
    if result.value is None:
        return (result.error or "the reward abstains").rstrip(".")
    return "" if result.value >= 1 - 1e-9 else f"it earns {result.value:g}"
