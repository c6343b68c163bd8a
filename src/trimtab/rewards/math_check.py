"""Whether two final answers are the same mathematics. Runs in killable processes only: see ``forked.py``.

Numbers and numbers with units are compared exactly, by decimal and rational arithmetic of our own;
everything else by math-verify, which parses LaTeX into sympy. A text with anything but mathematics in it
never reaches a parser.
"""

from __future__ import annotations

import logging
import re
from fractions import Fraction
from typing import Any

from trimtab.rewards.math_text import is_same_word, matrix, multiplier, tidy

_MAX_LENGTH = 400
# What no answer needs and what an evaluator could be led astray by: attributes, dunders, quotes, brackets
# of code.
_SUSPICIOUS = re.compile(
    r"__|[A-Za-z_\])]\s*\.\s*[A-Za-z_]|['\"`@#;&$~?]|\blambda\b|\bimport\b|\beval\b|\bexec\b|\bopen\b"
)
_NUMBER = r"[-+]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)?(?:\.[0-9]+)?"
_PLAIN = re.compile(
    rf"({_NUMBER})(?:\s*(?:e|E|\\times\s*10\s*\^|\*\s*10\s*\^)\s*\{{?([-+]?[0-9]{{1,3}})\}}?)?"
)
_RATIO = re.compile(
    r"([-+]?)\s*\\[dt]?frac\s*\{?([-+]?[0-9]{1,30})\}?\s*\{?([0-9]{1,30})\}?|([-+]?[0-9]{1,30})\s*/\s*([0-9]{1,30})"
)
_MIXED = re.compile(
    r"([-+]?)([0-9]{1,9})(?:\s*\\[dt]?frac\s*\{([0-9]{1,9})\}\s*\{([0-9]{1,9})\}|\s+([0-9]{1,9})\s*/\s*([0-9]{1,9}))"
)
_GROUPS = re.compile(r"(?<![0-9.])([0-9]{1,3})((?: [0-9]{3})+)(?![0-9])")
# What turns an answer round, hides a part of it or leaves it open.
_TURNED = re.compile(
    r"\\(?:neg|lnot|not|cancel|[bx]cancel|sout|[hv]?phantom|color|textcolor|[lc]?dots|dots[a-z])\b|…|\.\.\."
)
_EXPLOSIVE = re.compile(
    r"[0-9]{5,}\s*!|!\s*!|(?:\^|\*\*)\s*\{?\s*[0-9]{5,}|\^\s*\{[^{}]*\^|\^\s*[0-9A-Za-z]+\s*\^|\*\*[^-+*/]{0,8}\*\*"
)
_FUNCTIONS = frozenset(
    {"sin", "cos", "tan", "cot", "sec", "csc", "log", "exp", "lim", "max", "min", "gcd", "lcm", "mod", "sqrt"}
    | {
        "arcsin",
        "arccos",
        "arctan",
        "sinh",
        "cosh",
        "tanh",
        "det",
        "dim",
        "and",
        "frac",
        "pmatrix",
        "bmatrix",
        "begin",
    }
    | {"end", "infty", "cup", "cap", "degrees", "cases", "matrix", "text"}
)
_WRAPPERS = re.compile(r"\\(?:operatorname|text|textbf|mathrm|mathbf|rm|mbox|displaystyle|left|right)\b\s*")
_SPACES = re.compile(r"\\[,;:! ]|\\quad|~|\s+")

# Unit → what it measures, and how many of the base unit it is.
_UNITS: dict[str, tuple[str, Fraction]] = {}
for _kind, _table in {
    "length": {
        "mm": "1/1000",
        "cm": "1/100",
        "m": "1",
        "km": "1000",
        "meters": "1",
        "meter": "1",
        "米": "1",
        "厘米": "1/100",
        "千米": "1000",
        "公里": "1000",
    },
    "mass": {
        "mg": "1/1000000",
        "g": "1/1000",
        "kg": "1",
        "t": "1000",
        "克": "1/1000",
        "千克": "1",
        "公斤": "1",
        "吨": "1000",
    },
    "time": {
        "ms": "1/1000",
        "s": "1",
        "sec": "1",
        "seconds": "1",
        "min": "60",
        "minutes": "60",
        "h": "3600",
        "hours": "3600",
        "hour": "3600",
        "days": "86400",
        "day": "86400",
        "秒": "1",
        "分钟": "60",
        "小时": "3600",
        "天": "86400",
    },
    "yuan": {"元": "1", "块": "1", "yuan": "1", "RMB": "1", "角": "1/10"},
    "dollars": {"dollars": "1", "dollar": "1", "USD": "1", "cents": "1/100"},
    "area": {"cm^2": "1/10000", "m^2": "1", "km^2": "1000000", "平方米": "1", "平方厘米": "1/10000"},
    "volume": {"ml": "1/1000", "mL": "1/1000", "L": "1", "l": "1", "升": "1", "毫升": "1/1000"},
    "speed": {"m/s": "1", "km/h": "5/18"},
    "angle": {"degrees": "1", "degree": "1", "度": "1"},
}.items():
    _UNITS |= {_name: (_kind, Fraction(_factor)) for _name, _factor in _table.items()}
_COUNTED = re.compile(r"个|人|只|件|次|本|张|页|辆|棵|apples?|people|students?|books?|points?|units?|items?")


def is_equal(gold: str, answer: str) -> bool:
    """Whether ``answer`` says the same as ``gold``; what cannot be read is not equal."""
    gold, answer = tidy(gold), tidy(answer)
    if not gold or not answer or max(len(gold), len(answer)) > _MAX_LENGTH:
        return False
    if gold == answer or is_same_word(gold, answer):
        return True
    wanted, given = read_quantity(gold), read_quantity(answer)
    if wanted is not None and given is not None:
        return _same_quantity(wanted, given)
    if wanted is not None and wanted[1] is not None:
        return False  # a quantity with a unit, and an answer that is none
    rows, given_rows = matrix(gold), matrix(answer)
    if rows is not None or given_rows is not None:
        return rows is not None and given_rows is not None and _same_matrix(rows, given_rows)
    return _by_sympy(gold, answer)


def _same_matrix(gold: list[list[str]], answer: list[list[str]]) -> bool:
    """Of one shape, and equal entry by entry."""
    shapes = [[len(row) for row in rows] for rows in (gold, answer)]
    return shapes[0] == shapes[1] and all(
        is_equal(one, other)
        for row, given in zip(gold, answer, strict=True)
        for one, other in zip(row, given, strict=True)
    )


def read_quantity(text: str) -> tuple[Fraction, str | None] | None:
    """A number as a fraction, and its unit; None where the text is more than that.

    Example:
        >>> read_quantity("1,250.5 cm"), read_quantity("x + 1")
        ((Fraction(2501, 2), 'cm'), None)
    """
    text = _SPACES.sub(" ", _WRAPPERS.sub("", text)).replace("^{2}", "^2").replace("^{3}", "^3").strip()
    while text.startswith("{") and text.endswith("}"):
        text = text[1:-1].strip()
    text = re.sub(r"\{\s*([A-Za-z/]+)\s*\}", r" \1", text)
    text = _GROUPS.sub(lambda match: match.group().replace(" ", ""), text)
    for pattern, read in ((_MIXED, _read_mixed), (_RATIO, _read_ratio), (_PLAIN, _read_plain)):
        found = pattern.match(text)
        if found is None or not any(char.isdigit() for char in found.group()):
            continue
        value = read(found)
        if value is None:
            return None
        factor, rest = multiplier(text[found.end() :].strip().strip("{}() ").strip())
        value *= factor
        if rest == "":
            return value, None
        if rest == "%":
            return value / 100, None
        if rest in _UNITS:
            return value, rest
        return (value, None) if _COUNTED.fullmatch(rest) else None
    return None


def _read_plain(found: re.Match[str]) -> Fraction | None:
    if not any(char.isdigit() for char in found.group(1)):
        return None
    value = Fraction(found.group(1).replace(",", ""))
    return value * Fraction(10) ** int(found.group(2)) if found.group(2) else value


def _read_ratio(found: re.Match[str]) -> Fraction | None:
    sign, top, bottom = found.group(1), found.group(2) or found.group(4), found.group(3) or found.group(5)
    if int(bottom) == 0:
        return None
    return Fraction(int(top), int(bottom)) * (-1 if sign == "-" else 1)


def _read_mixed(found: re.Match[str]) -> Fraction | None:
    sign, whole, *parts = found.groups()
    top, bottom = (part for part in parts if part is not None)
    if int(bottom) == 0:
        return None
    return (int(whole) + Fraction(int(top), int(bottom))) * (-1 if sign == "-" else 1)


def _same_quantity(wanted: tuple[Fraction, str | None], given: tuple[Fraction, str | None]) -> bool:
    """With two units the quantities are equal; with one or none the numbers are."""
    if wanted[1] is not None and given[1] is not None:
        (kind, factor), (other, other_factor) = _UNITS[wanted[1]], _UNITS[given[1]]
        return kind == other and wanted[0] * factor == given[0] * other_factor
    return wanted[0] == given[0]


def _by_sympy(gold: str, answer: str) -> bool:
    if _SUSPICIOUS.search(answer.replace("\\", "")) or _is_explosive(answer) or _is_prose(answer, gold):
        return False
    if _TURNED.search(answer) and not _TURNED.search(gold):
        return False
    if gold[0] in "([" and answer[0] not in "([\\" and "," in answer:
        return False  # a pair or an interval without its brackets
    if not _variables(gold) and _variables(answer) and "=" not in answer:
        return False  # a number was asked for
    foreign = re.findall(r"[\u4e00-\u9fff]+", answer)
    if any(word not in gold for word in foreign) or (not foreign and re.search(r"[\u4e00-\u9fff]", gold)):
        return False
    if any(mark in answer and mark not in gold for mark in ("\\approx", "\\sim", "≈", "\\pm")):
        return False
    verify, parse, configs = _math_verify()
    parsed = [parse(f"${text}$", extraction_config=configs, parsing_timeout=None) for text in (gold, answer)]
    # Only expressions: a text that could not be parsed comes back as a string, and strings are compared
    # above.
    expressions = [[item for item in found if not isinstance(item, str)] for found in parsed]
    if not all(expressions):
        return False
    return bool(verify(expressions[0], expressions[1], float_rounding=9, strict=True, timeout_seconds=None))


def _variables(text: str) -> set[str]:
    """Letters that stand alone, but for e and i."""
    return set(re.findall(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])", text)) - {"e", "i"}


def _is_explosive(text: str) -> bool:
    """Towers of powers and factorials that no memory holds: what could be computed would not be an answer."""
    return _EXPLOSIVE.search(text) is not None


def _is_prose(text: str, gold: str) -> bool:
    """Whether there are words in it that are neither functions nor units nor in the gold answer."""
    words = re.findall(r"[A-Za-z]{3,}", re.sub(r"\\[A-Za-z]+", " ", text))
    return any(word not in _FUNCTIONS and word not in _UNITS and word not in gold for word in words)


def _math_verify() -> tuple[Any, Any, Any]:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return verify, parse, (LatexExtractionConfig(boxed_match_priority=-1), ExprExtractionConfig())


def warm_up() -> None:
    """Import and run everything once, so that a forked child does not."""
    is_equal("\\frac{x}{2}", "\\frac{2x}{4}")
    is_equal("(1, 2]", "(1, 2)")
