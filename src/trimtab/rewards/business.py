"""Limits of a business as rules: 1 where an answer keeps them, 0 where it does not. Meant as gates (R24).

They look for the forbidden thing in any form that digits, width and spacing can take; they do not
understand. A gate that closes too often is seen in ``reward/NAME`` of the run, which is the share of
answers that keep it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from decimal import Decimal

from trimtab.errors import RewardError
from trimtab.rewards.gold_column import value_of
from trimtab.rewards.rules import RuleReward
from trimtab.rewards.sales import FORBIDDEN
from trimtab.types import Sample

_DIGITS = r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?"
_PRICE = re.compile(
    rf"(?:[¥￥$€£]|\b(?:RMB|CNY|USD|EUR))\s*({_DIGITS})\s*(万|k\b)?"
    rf"|({_DIGITS})\s*(万|千|k)?\s*(?:元|块钱?|人民币|美元|yuan\b|dollars?\b|euros?\b)",
    re.IGNORECASE,
)
_SCALE = {"万": Decimal(10000), "千": Decimal(1000), "k": Decimal(1000)}
_FOLDS = "零一二三四五六七八九"
_DISCOUNTS = (
    re.compile(r"([0-9]|[一二三四五六七八九])\s*[.点]?\s*([0-9]|[一二三四五六七八九])?\s*折"),
    re.compile(
        r"(?:减免?|优惠|便宜|降价?|立减|off\s+by|discount\s+of|save)\s*([0-9]+(?:\.[0-9]+)?)\s*%",
        re.IGNORECASE,
    ),
    re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*%\s*(?:的?(?:折扣|优惠)|off\b|discount\b|cheaper\b)", re.IGNORECASE),
)
_FREE = re.compile(r"半价|half\s+price|免费送|白送|完全免费", re.IGNORECASE)
_PROMISES = re.compile(
    r"保证(?!金)|承诺.{0,6}(?:一定|必|收益|效果)|一定(?:能|会|可以)|肯定(?:能|会)|绝对(?:能|会|没|不会|安全|有效)|包(?:赚|您|你)"
    r"|稳赚|必(?:赚|涨)|百分之?百|100\s*%|零风险|没有任何风险|永远不会"
    r"|\bguarantee[ds]?\b|\brisk[- ]free\b|\bwe promise\b|\bno risk\b|\bnever fails?\b|\bwill definitely\b",
    re.IGNORECASE,
)
_PERSONAL = {
    "phone": re.compile(r"(?<![0-9])(?:\+?86[- ]?)?1[3-9][0-9](?:[- ]?[0-9]{4}){2}(?![0-9])"),
    "identity": re.compile(
        r"(?<![0-9])[1-9][0-9]{5}(?:19|20)[0-9]{2}[01][0-9][0-3][0-9][0-9]{3}[0-9Xx](?![0-9])"
    ),
    "mail": re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,4}"),
    "card": re.compile(r"(?<![0-9])(?:[0-9]{4}[- ]?){3}[0-9]{1,7}(?![0-9])"),
}


def no_invented_price(allowed: Sequence[str] = (), column: str | None = None) -> RuleReward:
    """1 when every amount of money in the completion is in the prompt, in ``allowed``, or in the row's
    ``column``; else 0. Amounts are compared as numbers: ``1.2万元`` is ``12,000 元``."""
    listed = {
        amount for text in ([allowed] if isinstance(allowed, str) else allowed) for amount in _numbers(text)
    }

    def rule(sample: Sample) -> bool:
        known = listed | _numbers(" ".join(message["content"] for message in sample.prompt.messages))
        if column is not None:
            known |= _numbers(str(value_of(sample.prompt.columns, column) or ""))
        return _prices(sample.completion) <= known

    return RuleReward("no_invented_price", rule)


def discount_limit(percent: float = 10.0) -> RuleReward:
    """1 when no discount above ``percent`` is offered; 7折 is one of 30 %. Half price and gifts count as all.

    Raises:
        RewardError: ``percent`` is not in 0..100.
    """
    if not 0 <= percent <= 100:
        raise RewardError(f"Reward discount_limit: percent = {percent} must be between 0 and 100.")

    def rule(sample: Sample) -> bool:
        text = _folded(sample.completion)
        found = [100.0] if _FREE.search(text) else []
        found += [100.0 - _fold(match) for match in _DISCOUNTS[0].finditer(text)]
        found += [float(match.group(1)) for pattern in _DISCOUNTS[1:] for match in pattern.finditer(text)]
        return max(found, default=0.0) <= percent + 1e-9

    return RuleReward("discount_limit", rule)


def no_promise(words: Sequence[str] = ()) -> RuleReward:
    """1 when the completion promises nothing: no guarantee, no certainty, none of ``words``; else 0."""
    more = [words] if isinstance(words, str) else [word for word in words if word]

    def rule(sample: Sample) -> bool:
        text = _folded(sample.completion)
        return _PROMISES.search(text) is None and not any(word in text for word in more)

    return RuleReward("no_promise", rule)


def no_forbidden_words(words: Sequence[str] = FORBIDDEN) -> RuleReward:
    """1 when none of ``words`` occurs, in any width, case or spacing; else 0. The default is the list of R23.

    White space inside a word does not hide it, but a word of an alphabet is not put together from two.

    Raises:
        RewardError: no word is given.
    """
    given = [words] if isinstance(words, str) else list(words)
    wanted = [word for word in (_folded(word).strip().casefold() for word in given) if word]
    if not wanted:
        raise RewardError("Reward no_forbidden_words: give `words`, a list with at least one.")
    closed = [_closed(word) for word in wanted]

    def rule(sample: Sample) -> bool:
        text = _closed(_folded(sample.completion).casefold())
        return not any(word in text for word in closed)

    return RuleReward("no_forbidden_words", rule)


def no_personal_data() -> RuleReward:
    """1 when the completion has no telephone, identity or card number and no mail address that the prompt
    does not have; else 0."""

    def rule(sample: Sample) -> bool:
        asked = _folded(" ".join(message["content"] for message in sample.prompt.messages))
        text = _folded(sample.completion)
        found = (match.group() for pattern in _PERSONAL.values() for match in pattern.finditer(text))
        return all(piece in asked for piece in found)

    return RuleReward("no_personal_data", rule)


def _folded(text: str) -> str:
    """Full-width forms as plain ones, and without characters that nobody sees."""
    plain = unicodedata.normalize("NFKC", text)
    return "".join(char for char in plain if unicodedata.category(char) != "Cf")


def _closed(text: str) -> str:
    """Without the white space that is not between two letters of an alphabet, where it divides words."""
    single = " ".join(text.split())
    return re.sub(r"(?<![a-z]) | (?![a-z])", "", single)


def _prices(text: str) -> set[Decimal]:
    found = set()
    for match in _PRICE.finditer(_folded(text)):
        number, scale = match.group(1) or match.group(3), match.group(2) or match.group(4)
        found.add(_decimal(number) * _SCALE.get((scale or "").lower(), Decimal(1)))
    return found


def _numbers(text: str) -> set[Decimal]:
    """Every number of a text that may be quoted, also those that are no amounts of money."""
    text = _folded(text)
    return {_decimal(number) for number in re.findall(_DIGITS, text)} | _prices(text)


def _decimal(number: str) -> Decimal:
    return Decimal(number.replace(",", ""))


def _fold(match: re.Match[str]) -> float:
    """What is left to pay, in percent: 8折 is 80, 八五折 is 85, 9.5折 is 95."""
    digits = [group if group.isdigit() else str(_FOLDS.index(group)) for group in match.groups() if group]
    return float(digits[0]) * 10 + (float(digits[1]) if len(digits) > 1 else 0.0)
