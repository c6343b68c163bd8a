"""Equalities such as ``12*3=36`` in a text, checked exactly. Nothing of a model is evaluated as code.

What is not certainly an equality of plain numbers is left alone: unknowns (``x+3=10``, ``2x=10``), functions
(``f(3)=9``), powers and roots, units that differ (``100cm=1m``), ratios and times, ``≈``, ``<=``. Every line
is read once; sides over 64 tokens and numbers over 18 digits are left alone, so that the time is linear.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

MAX_TOKENS, MAX_DEPTH, MAX_DIGITS = 64, 16, 18
# Full-width signs and the signs of several alphabets; a wide comma ends a clause and joins no digits.
_FOLD = {
    ord(a): b
    for a, b in zip("０１２３４５６７８９＋－−–＝．＊／％×÷·∙（）", "0123456789+---=.*/%*/**()", strict=True)
}
_FOLD |= {ord(c): "" for c in "​‌‍⁠﻿"} | {ord(c): " ; " for c in "，、；。"}
_WORDS = {
    "加上": "+", "加": "+", "减去": "-", "减": "-", "乘以": "*", "乘": "*", "除以": "/", "等于": "=",
    "plus": "+", "minus": "-", "times": "*", "equals": "=", r"\times": "*", r"\cdot": "*", r"\div": "/",
}  # fmt: skip
_UNITS = (
    "元|块|角|个|只|人|名|本|支|辆|斤|千克|公斤|克|厘米|分米|千米|公里|米|秒|分钟|小时|天|岁|页|次|箱|盒|张|"
    "dollars?|cents?|cm|km|kg|hours?|minutes?|days?|apples?"
)
_VERBS = {
    "is",
    "gives",
    "makes",
    "得到",
    "得",
    "是",
}  # equals signs right behind something computed: "3+4 is 7"
# A list's "1.", "(2)", "3、" or "- " at the beginning of a line, and what bold text is marked with.
_BULLET = re.compile(r"^[ \t]{0,8}(?:[-•*][ \t]|\(?\d{1,3}[).、](?=[ \t]|\D|$))")
_TAG = re.compile(r"</?[A-Za-z_]{1,20}>")
_FRAC = re.compile(r"\\[dt]?frac\{(\d{1,18})\}\{(\d{1,18})\}")
_TOKEN = re.compile(
    rf"""(?P<number>(?:\d{{1,3}}(?:,\d{{3}})+(?!\d)|\d+)(?:\.\d+)?)(?P<unit>[ ]?(?:{_UNITS})(?![A-Za-z]))?
    |(?P<equals>==?)|(?P<operator>[-+*/])|(?P<bracket>[()])
    |(?P<word>加上|加|减去|减|乘以|乘|除以|等于|得到|得|是|\\[A-Za-z]{{1,12}}|[A-Za-z_]+)
    |(?P<space>[ \t$¥￥€£]+)|(?P<sign>[√∛∑∏∫±∓≈≠≤≥≡∞πθ°²³])|(?P<stop>[;,.?!:'"]|[^\x00-\x7f])|(?P<other>.)""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Equality:
    """An equality with an operator: its right side, whether it holds, and the number of its line."""

    value: Fraction
    holds: bool
    line: int


@dataclass(slots=True)
class _Side:
    """What stands between two equals signs; ``is_open`` where something that is no number belongs to it."""

    tokens: list[str] = field(default_factory=list)
    units: set[str] = field(default_factory=set)
    is_open: bool = False


def equalities(text: str) -> list[Equality]:
    """Return every equality of plain numbers in ``text``, in order.

    Example:
        >>> [(int(e.value), e.holds) for e in equalities("12*3=36, and 36-1=34; x+3=9")]
        [(36, True), (34, False)]
    """
    found: list[Equality] = []
    for number, line in enumerate(fold(text).splitlines()):
        for chain in _chains(line):
            found += _check(chain, number)
    return found


def fold(text: str) -> str:
    """Return the text with ASCII digits and signs, without zero-width characters and tags."""
    return _TAG.sub(" ; ", text.translate(_FOLD))


def numbers(text: str) -> list[Fraction]:
    """Return the numbers of a text, a fraction such as ``3/4`` also as one, signs and percents applied.

    Example:
        >>> numbers("-3 or 3/4 or 50%")
        [Fraction(-3, 1), Fraction(3, 1), Fraction(4, 1), Fraction(3, 4), Fraction(1, 2), Fraction(50, 1)]
    """
    found = []
    for match in _NUMBER.finditer(_FRAC.sub(r"\1/\2", fold(text))):
        value = _value(match["first"])
        if value is None:
            continue
        sign = -1 if match["sign"] else 1
        second = _value(match["second"]) if match["second"] else None
        if second is not None:
            found += [sign * value, second] + ([sign * value / second] if second else [])
        elif match["percent"]:
            found += [sign * value / 100, sign * value]
        else:
            found.append(sign * value)
    return found


_PLAIN = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?"
_NUMBER = re.compile(
    rf"(?P<sign>(?<![\d)])-)?(?P<first>{_PLAIN})(?:[ ]?/[ ]?(?P<second>{_PLAIN})|(?P<percent>[ ]?%))?"
)


def is_rounding(shown: Fraction, exact: Fraction, places: int) -> bool:
    """Whether ``shown``, written with this many decimal places, is ``exact`` rounded or cut to them."""
    unit, off = Fraction(1, 10 ** min(places, 18)), abs(shown - exact)
    is_cut = off < unit and abs(shown) <= abs(exact) and shown * exact >= 0
    return places > 0 and (2 * off <= unit or is_cut)


def _chains(line: str) -> Iterator[list[_Side]]:
    """Yield the sides of every run of ``… = … = …``; anything that ends a clause ends a run."""
    line = _FRAC.sub(r"(\1/\2)", line.replace("**", " "))
    bullet = _BULLET.match(line)
    chain, last, end = [_Side()], "stop", 0
    for match in _TOKEN.finditer(line, bullet.end() if bullet else 0):
        kind, text = str(match.lastgroup), match.group()
        kind = "number" if kind == "unit" else kind
        if kind == "word":
            kind, text = _word(text, last, line, match)
            is_result = text.lower() in _VERBS and last in ("number", "bracket") and len(chain[-1].tokens) > 1
            kind = "equals" if is_result else kind
        side, touches = chain[-1], match.start() == end
        if kind == "stop" and not (text in ":." and _is_between_digits(line, match.start())):
            yield chain
            chain = [_Side()]
        elif kind == "equals":
            if last == "other" and touches and line[match.start() - 1] in "<>!~≈≠:":
                side.is_open = True
            chain.append(_Side())
        elif kind in ("number", "operator", "bracket"):
            if kind == "bracket" and last == "word" and touches and text == "(":
                side.is_open = True  # a function's argument
            side.tokens.append((match["number"] or text) if kind == "number" else text)
            if kind == "number" and match["unit"]:
                side.units.add(match["unit"].strip())
        elif kind == "space":
            continue
        elif kind == "word" and not side.tokens and not side.is_open and last in ("stop", "word"):
            pass  # words before a side, as in "so 3+4=7"
        else:
            side.is_open = True
        if kind == "operator" and last == "word" and len(side.tokens) == 1:
            side.is_open = True
        last, end = kind, match.end()
    yield chain


def _word(text: str, last: str, line: str, match: re.Match[str]) -> tuple[str, str]:
    """A word as the sign that it stands for, or as a word; ``x`` between two numbers is a sign."""
    sign = _WORDS.get(text.lower())
    if sign is None and text in ("x", "X") and last in ("number", "bracket"):
        rest = line[match.end() : match.end() + 4].lstrip()
        sign = "*" if rest[:1].isdigit() or rest[:1] == "(" else None
    if sign is None:
        return "word", text
    return ("equals", "=") if sign == "=" else ("operator", sign)


def _is_between_digits(line: str, at: int) -> bool:
    return 0 < at < len(line) - 1 and line[at - 1].isdigit() and line[at + 1].isdigit()


def _check(chain: Sequence[_Side], line: int) -> list[Equality]:
    """Compare neighbours of a run; where neither of two has an operator there is nothing computed."""
    found = []
    values = [None if side.is_open else _evaluate(side.tokens) for side in chain]
    is_computed = False
    for left, right, a, b in zip(chain, chain[1:], values, values[1:], strict=False):
        is_computed = is_computed or len(left.tokens) > 1 or len(right.tokens) > 1
        if a is None or b is None or not is_computed:
            continue
        if left.units and not right.units <= left.units:
            continue
        found.append(Equality(b, a == b or _rounds(a, b, right.tokens), line))
    return found


def _rounds(exact: Fraction, shown: Fraction, tokens: Sequence[str]) -> bool:
    """A quotient that no decimal number gives exactly may be written rounded: 10/3=3.33, but not 1/4=0.3."""
    rest = exact.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    places = len(tokens[-1].partition(".")[2]) if len(tokens) == 1 else 0
    return rest != 1 and is_rounding(shown, exact, places)


def _value(text: str) -> Fraction | None:
    plain = text.replace(",", "")
    return Fraction(plain) if len(plain.replace(".", "")) <= MAX_DIGITS else None


def _evaluate(tokens: Sequence[str]) -> Fraction | None:
    """The value of numbers, + - * / and brackets; None where they are no expression, or it divides by 0."""
    if not tokens or len(tokens) > MAX_TOKENS:
        return None
    parser = _Parser(tokens)
    try:
        value = parser.sum(0)
    except (ValueError, IndexError, ZeroDivisionError):
        return None
    return value if parser.at == len(tokens) else None


class _Parser:
    """Recursive descent over tokens; raises ValueError or IndexError where they are no expression."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens, self.at = tokens, 0

    def _take(self, wanted: str) -> str:
        """The next token when it is one of ``wanted``, else nothing."""
        if self.at < len(self.tokens) and self.tokens[self.at] in wanted:
            self.at += 1
            return self.tokens[self.at - 1]
        return ""

    def sum(self, depth: int) -> Fraction:
        value = self.product(depth)
        while sign := self._take("+-"):
            right = self.product(depth)
            value = value + right if sign == "+" else value - right
        return value

    def product(self, depth: int) -> Fraction:
        value = self.factor(depth)
        while sign := self._take("*/"):
            right = self.factor(depth)
            value = value * right if sign == "*" else value / right
        return value

    def factor(self, depth: int) -> Fraction:
        if depth > MAX_DEPTH:
            raise ValueError("nested too deeply")
        if self._take("-"):
            return -self.factor(depth + 1)
        if self._take("("):
            value = self.sum(depth + 1)
            if not self._take(")"):
                raise ValueError("a bracket is open")
            return value
        value_or_none = _value(self.tokens[self.at]) if self.tokens[self.at][0].isdigit() else None
        if value_or_none is None:
            raise ValueError("no number")
        self.at += 1
        return value_or_none
