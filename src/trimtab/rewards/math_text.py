"""Spellings of mathematics, made one: hidden characters, widths, Chinese numerals, spacing, matrices."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

# Full-width forms only: NFKC would make 2 out of ², and 12 out of 1².
_WIDTHS = {0xFF01 + offset: 0x21 + offset for offset in range(94)} | {0x3000: 0x20}
_DIGITS = {c: n for n, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_TENS = {"十": 10, "百": 100, "千": 1000}
_MYRIADS = {"万": 10**4, "亿": 10**8}
_NUMERAL = re.compile(r"[零〇一二两三四五六七八九十百千万亿]+")
_SPOKEN = re.compile(
    r"(负?)([零〇一二两三四五六七八九十百千万亿]+)(?:点([零〇一二三四五六七八九]+))?"
    r"(\s*(?:[元块角克吨秒天度升个人只件次本张页辆棵]|[平立]方[厘千]?米|[厘千毫]?米|公[里斤]|千克|毫升|分钟|小时|[A-Za-z%][A-Za-z0-9^/]*)?)"
)
_MIXED_SCRIPTS = re.compile(r"[A-Za-z][\u0370-\u03ff\u0400-\u04ff]|[\u0370-\u03ff\u0400-\u04ff][A-Za-z]")
_MATRIX = re.compile(r"\\begin\{([bpv]?matrix)\}(.*)\\end\{\1\}", re.DOTALL)
_SHORT_FRACTION = re.compile(r"\\([dt]?frac)\s*(\\pi|[0-9A-Za-z])\s*(\\pi|[0-9A-Za-z])")


def visible(text: str) -> str:
    """A text without characters that nobody sees, full-width forms as plain ones.

    Example:
        >>> visible("\\uff14\\u200b\\uff12 n\\u00adot")
        '42 not'
    """
    return "".join(c for c in text if unicodedata.category(c) != "Cf").translate(_WIDTHS)


def is_disguised(text: str) -> bool:
    """Whether a word mixes Latin letters with Greek or Cyrillic ones, which may look alike."""
    return _MIXED_SCRIPTS.search(text) is not None


def tidy(text: str) -> str:
    """One spelling of an answer: no dollar signs around it, plain minus, percent and degree signs."""
    text = visible(text).strip()
    if text.startswith("\\$") or (text.startswith("$") and not text.endswith("$")):
        text = text.lstrip("\\$") + " dollars"
    text = text.strip("$").strip()
    for old, new in (
        ("\\%", "%"), ("\\$", ""), ("−", "-"), ("，", ","), ("×", "\\times "), ("{,}", ","),
        ("^\\circ", "degrees"),
        ("^{\\circ}", "degrees"), ("°", "degrees"), ("²", "^2"), ("³", "^3"),
    ):  # fmt: skip
        text = text.replace(old, new)
    text = _SHORT_FRACTION.sub(r"\\\1{\2}{\3}", text)
    return _arabic(text.rstrip(".。").strip())


def _arabic(text: str) -> str:
    """Chinese numerals as digits where a whole answer, but for its unit, is one."""
    share = re.fullmatch(r"(负?)([^分点]+)分之([^分点]+)", text)
    if share:
        bottom, top = chinese_number(share.group(2)), chinese_number(share.group(3))
        if bottom and top is not None:
            return f"{'-' if share.group(1) else ''}{top}/{bottom}"
    found = _SPOKEN.fullmatch(text)
    if not found:
        return text
    sign, whole, decimals, rest = found.groups()
    value = chinese_number(whole)
    if value is None:
        return text
    digits = "".join(str(_DIGITS[c]) for c in decimals or "")
    return f"{'-' if sign else ''}{value}{'.' + digits if digits else ''}{rest}"


def chinese_number(text: str) -> int | None:
    """The integer that a Chinese numeral says, or None; digits are read as well.

    Example:
        >>> chinese_number("二十三"), chinese_number("三万二千"), chinese_number("人")
        (23, 32000, None)
    """
    if text.isascii() and text.isdigit() and len(text) <= 30:
        return int(text)
    if not _NUMERAL.fullmatch(text) or len(text) > 30:
        return None
    if not set(text) & (_TENS.keys() | _MYRIADS.keys()):
        return int("".join(str(_DIGITS[c]) for c in text))  # digit by digit, as years are read
    total = section = digit = 0
    last = 0  # the last 万 or 亿: a smaller one after it counts by itself, 一万亿 multiplies
    for char in text:
        if char in _DIGITS:
            digit = _DIGITS[char]
        elif char in _TENS:
            section += (digit or 1) * _TENS[char]
            digit = 0
        else:
            factor = _MYRIADS[char]
            here = section + digit
            total = (total + here) * factor if factor > last else total + here * factor
            last, section, digit = factor, 0, 0
    return total + section + digit


def multiplier(text: str) -> tuple[Fraction, str]:
    """The 万, 亿 or 千 that a unit begins with, and the rest of it."""
    factor = Fraction(1)
    while text[:1] in ("万", "亿", "千", "百") and not text.startswith(("千克", "千米", "千瓦", "百分")):
        factor *= (_MYRIADS | _TENS)[text[0]]
        text = text[1:].strip()
    return factor, text


def matrix(text: str) -> list[list[str]] | None:
    """The entries of a matrix, row by row; None where the text is not one matrix."""
    found = _MATRIX.fullmatch(text.strip())
    if found is None or "\\begin" in found.group(2) or found.group(1) == "vmatrix":
        return None
    rows = [row for row in re.split(r"\\\\", found.group(2)) if row.strip()]
    return [[entry.strip() for entry in row.split("&")] for row in rows]


def is_same_word(gold: str, answer: str) -> bool:
    """Whether a gold answer in words is said, in whatever case, with or without an article.

    Words of one or two letters are symbols and their case counts, except no.
    """
    wanted, given = (_words(text) for text in (gold, answer))
    is_word = re.fullmatch(r"[A-Za-z]{3,}(?: [A-Za-z]+)*|no|No", wanted) is not None
    return is_word and wanted.casefold() == given.casefold()


def _words(text: str) -> str:
    text = re.sub(r"\\(?:text|textbf|mathrm|mbox)\s*\{([^{}]*)\}", r"\1", text)
    return re.sub(
        r"^(?:the|an?)\s+(?=[A-Za-z]{3})", "", " ".join(text.split()).rstrip(".。 "), flags=re.IGNORECASE
    )
