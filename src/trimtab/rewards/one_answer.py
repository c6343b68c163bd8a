"""A strict grader for one short answer that is not a number alone: a word, a list, a grid.

The text commits to one answer, or earns nothing. Either one ``<answer>`` element, with nothing around it that
takes it back; or what ``math_claim.final_answer`` reads (a box, ``####``, "the answer is …", one short
line); or the answer is the whole text. Then it must equal the gold one: an answer that merely contains it,
names several, or is nearly right earns nothing.
"""

from __future__ import annotations

import re
from decimal import Decimal

from trimtab.rewards.gold_column import DEFAULT, final_of, golds_of
from trimtab.rewards.math_claim import final_answer
from trimtab.rewards.rules import RuleReward
from trimtab.types import Sample

_MAX_TEXT = 50_000
_OPEN, _CLOSE = re.compile(r"<answer>", re.IGNORECASE), re.compile(r"</answer>", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d{1,30})(?:\.\d{1,30})?", re.ASCII)
_STAND_IN = "7"  # an answer that nothing can be said against


def one_answer_reward(column: str = DEFAULT, name: str = "one_answer") -> RuleReward:
    """1 when the completion's one answer equals the row's ``column``, white space aside; else 0.

    Of several accepted answers any is right; of a whole solution its final answer is.
    """

    def accepted(sample: Sample) -> tuple[str, ...]:
        return tuple(final_of(gold) for gold in golds_of(sample, column, name))

    def rule(sample: Sample) -> bool:
        golds = accepted(sample)
        return any(is_same_answer(gold, answer) for answer in answers_of(sample) for gold in golds)

    return RuleReward(name, rule, accepted, "<answer>{}</answer>")


def answers_of(sample: Sample) -> list[str]:
    """The readings of the one answer that a completion gives: none, one, or two spellings of it.

    Example:
        >>> from trimtab.types import Prompt
        >>> row = Prompt("0", ({"role": "user", "content": "sun backward"},))
        >>> answers_of(Sample(row, "<answer>nus</answer>")), answers_of(Sample(row, "<answer>nus"))
        (['nus'], [])
    """
    if len(sample.completion) > _MAX_TEXT:
        return []
    text = sample.completion.rpartition("</think>")[2].strip()
    if _OPEN.search(text) or _CLOSE.search(text):
        element = _element(text)
        return [] if element is None else [element]
    if sample.finish_reason != "stop":
        return []  # cut: what would have followed is not known
    said = final_answer(text)
    return list(dict.fromkeys(answer for answer in (text, said) if answer))


def is_same_answer(gold: str, answer: str) -> bool:
    """Equality, white space aside; two plain numbers are compared by value.

    Example:
        >>> is_same_answer("1,200", "1200.0"), is_same_answer("yes", "yes or no"), is_same_answer("a", "A")
        (True, False, False)
    """
    gold, answer = _squeeze(gold), _squeeze(answer)
    if _NUMBER.fullmatch(gold) and _NUMBER.fullmatch(answer):
        return Decimal(gold.replace(",", "")) == Decimal(answer.replace(",", ""))
    return gold == answer


def _element(text: str) -> str | None:
    """The content of the only ``<answer>`` element, unless the text around it takes it back."""
    opened, closed = list(_OPEN.finditer(text)), list(_CLOSE.finditer(text))
    if len(opened) != 1 or len(closed) != 1 or closed[0].start() < opened[0].end():
        return None
    before, after = text[: opened[0].start()], text[closed[0].end() :]
    if final_answer(f"{before} \\boxed{{{_STAND_IN}}}{after}") != _STAND_IN:
        return None
    return text[opened[0].end() : closed[0].start()].strip() or None


def _squeeze(text: str) -> str:
    lines = [re.sub(r"[ \t]+", " ", line).strip() for line in text.strip().splitlines()]
    return "\n".join(lines)
