"""A strict grader for one final number. No text of a model is ever evaluated as code.

The last number is the answer, and only when the text commits to it: no other bare number before it, no
hedging ("71 or 72", "maybe"), no negation ("not 72"). Restating the question ("27+45=72", "27 and 45 make
72") and correct steps ("20+40=60, 5+7=12, so 72") are fine; a wrong step, a range or a percentage is not.
A ``\\boxed{}`` decides alone; an unterminated or empty one is no answer. What is doubtful earns nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from trimtab.errors import RewardError
from trimtab.rewards.gold_column import DEFAULT, final_of, golds_of
from trimtab.rewards.rules import RuleReward
from trimtab.types import Sample

# Full-width digits and signs only: NFKC would also turn "7²" into "72".
_FOLD = str.maketrans("０１２３４５６７８９＋－−–＝．，？×＊／％～", "0123456789+---=.,?**/%~")
_NUMBER = r"(?<![0-9])(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,18})(?:\.[0-9]{1,18})?(?![0-9])"
# A sign belongs to a number when nothing that could be an operand stands before it.
_SIGNED = rf"(?:(?<![0-9A-Za-z)\]}}])[-+])?{_NUMBER}"
_ITEM = re.compile(rf"{_SIGNED}(?:[ \t]*[-+*/][ \t]*{_NUMBER})*")
_PART = re.compile(rf"([-+*/]?)[ \t]*({_NUMBER})")
_EQUALS = ("等于", "是", "equals", "is", "makes")
_BOX = re.compile(r"\\boxed\{([^{}]*)\}")
_BOLD = re.compile(r"\*\*(?![0-9])|(?<![0-9])\*\*")
_TAG = re.compile(r"</?[A-Za-z_]{1,20}>")
_TOO_LONG = re.compile(r"[0-9]{19}")
# What, right beside a number, makes it another quantity: 7.2e1, 72%, 0x48, 1/2, 3^4, <72, 72?
_BAD_BEFORE = re.compile(r"(?:[A-Za-z_./\\]|[√^/*][ \t]*)$")
_BAD_AFTER = re.compile(r"[A-Za-z_!…?]|[.,][0-9]|[ \t]*[-+*/^%°±]|[ \t]*[万千百亿]")
_HEDGES = re.compile(
    r"\b(?:or|maybe|perhaps|probably|possibly|likely|about|approximately|approx|around|roughly|nearly|almost|"
    r"might|may|could|either|neither|nor|guess|unsure|between|least|most|more|less|over|under|not|never|no|"
    r"wrong|incorrect|false|except|isn|aren|wasn|doesn|don|cannot|won|minus|negative|percent|half|twice|"
    r"double|dozen|hundred|thousand|million|billion)\b|n't|n’t|[<>≈≠≤≥±~]",
    re.IGNORECASE,
)
_HEDGES_ZH = re.compile(
    "或|可能|也许|大概|大约|约|左右|差不多|估计|猜|不确定|不是|并非|不等|不对|不会|不能|绝不|不应|不正确|没有|错|"
    "以上|以下|上下|至少|至多|最多|最少|多于|少于|大于|小于|除了|才怪|吗|负|百分之|分之|倍"
)
_INNOCENT = re.compile("没错|不错")


@dataclass(frozen=True, slots=True)
class _Item:
    """A number, or numbers joined by operators, as written in the text."""

    value: Decimal | None  # None where an expression is not evaluated (division, too many terms)
    is_number: bool
    is_clean: bool  # nothing beside it makes it another quantity
    follows_equals: bool


def final_number(text: str, restated: Sequence[Decimal] = ()) -> Decimal | None:
    """Return the one number that ``text`` gives as its answer, or None.

    ``restated`` are the numbers of the question, which may be repeated in their order before the answer.

    Example:
        >>> final_number("27+45=72"), final_number("71 or 72"), final_number("72%")
        (Decimal('72'), None, None)
    """
    text = _TAG.sub(" ", _BOLD.sub(" ", text.translate(_FOLD)))
    if _TOO_LONG.search(text) or any(char.isdigit() and not char.isascii() for char in text):
        return None  # superscripts, circled and other scripts' digits included
    if _HEDGES.search(text) or _HEDGES_ZH.search(_INNOCENT.sub("", text)):
        return None
    if "\\boxed" in text:
        return _boxed(text)
    items = _items(text)
    claims = _without_restated(_claims(items) or [], restated)
    return claims[-1] if claims and len(set(claims)) == 1 else None


def numbers_in(text: str) -> list[Decimal]:
    """Return the plain numbers of a question, in order, each of them without a sign."""
    return [_decimal(found) for found in re.findall(_NUMBER, text.translate(_FOLD))]


def final_number_reward(column: str = DEFAULT, name: str = "final_number") -> RuleReward:
    """1 when the completion's one final number equals the row's ``column``, else 0; no number, no reward.

    Of several accepted numbers any is right; of a whole solution its final answer is (``#### 1,319``). A
    completion that was cut at the limit right at a number has no final number.
    """

    def accepted(sample: Sample) -> tuple[str, ...]:
        return tuple(final_of(gold).strip() for gold in golds_of(sample, column, name))

    def rule(sample: Sample) -> bool:
        golds = accepted(sample)
        for gold in golds:
            if not re.fullmatch(rf"[-+]?{_NUMBER}", gold):
                raise RewardError(
                    f"Reward {name}: '{column}' of row {sample.prompt.id} is {gold[:40]!r}, "
                    "no number; mend it."
                )
        text = sample.completion.rstrip()
        if sample.finish_reason != "stop" and text[-1:].isdigit():
            return False
        answer = final_number(text, numbers_in(sample.prompt.text))
        return answer is not None and answer in map(_decimal, golds)

    return RuleReward(name, rule, accepted)


def _boxed(text: str) -> Decimal | None:
    """The number that all boxes agree on; one that is open, empty or holds anything else is no answer."""
    boxes = _BOX.findall(text)
    if not boxes or len(boxes) != text.count("\\boxed"):
        return None
    contents = [box.strip().strip("$").strip() for box in boxes]
    if not all(re.fullmatch(rf"[-+]?{_NUMBER}", content) for content in contents):
        return None
    values = {_decimal(content) for content in contents}
    return values.pop() if len(values) == 1 else None


def _items(text: str) -> list[_Item]:
    items: list[_Item] = []
    end = 0
    for match in _ITEM.finditer(text):
        parts = _PART.findall(match.group())
        before, after = text[max(0, match.start() - 8) : match.start()], text[match.end() : match.end() + 8]
        is_clean = not (_BAD_BEFORE.search(before) or _BAD_AFTER.match(after))
        between = text[end : match.start()].strip()
        # Between two plain numbers only the sign is an equation: "the sum of 27 and 45 is 72".
        follows = bool(items) and (between == "=" or (not items[-1].is_number and between.lower() in _EQUALS))
        items.append(_Item(_evaluate(parts), len(parts) == 1, is_clean, follows))
        end = match.end()
    return items


def _claims(items: Sequence[_Item]) -> list[Decimal] | None:
    """Return the bare numbers of the text without correct intermediate steps; None where a step is wrong."""
    claims: list[Decimal] = []
    for index, item in enumerate(items):
        left = items[index - 1] if item.follows_equals else None
        if left is not None and None not in (left.value, item.value) and left.value != item.value:
            return None
        is_last = not any(later.is_number for later in items[index + 1 :])
        if not item.is_number:
            if index == len(items) - 1 and (not claims or item.value != claims[-1]):
                return None
        elif is_last or left is None or left.is_number or left.value is None:
            if item.value is None or not item.is_clean:
                return None
            claims.append(item.value)
    return claims


def _without_restated(claims: list[Decimal], restated: Sequence[Decimal]) -> list[Decimal]:
    """Drop the question's own numbers from the front, once, when the answer comes after them."""
    count = len(restated)
    if count and len(claims) > count and claims[:count] == list(restated):
        return claims[count:]
    return claims


def _evaluate(parts: Sequence[tuple[str, str]]) -> Decimal | None:
    """Add and subtract a few plain numbers; one product of two; anything else is not evaluated."""
    signs, values = [sign for sign, _ in parts], [_decimal(number) for _, number in parts]
    if len(parts) == 2 and signs[1] == "*":
        return values[0] * values[1] * (-1 if signs[0] == "-" else 1)
    if len(parts) > 8 or any(sign in "*/" for sign in signs if sign):
        return None
    return sum((-v if s == "-" else v for s, v in zip(signs, values, strict=True)), Decimal(0))


def _decimal(number: str) -> Decimal:
    return Decimal(number.replace(",", ""))
