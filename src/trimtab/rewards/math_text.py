"""Spellings of mathematics, made one: hidden characters, widths, Chinese numerals, spacing."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

# Full-width forms only: NFKC would make 2 out of ², and 12 out of 1².
_WIDTHS = {0xFF01 + offset: 0x21 + offset for offset in range(94)} | {0x3000: 0x20}
_DIGITS = {c: n for n, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
TENS = {"十": 10, "百": 100, "千": 1000}
MYRIADS = {"万": 10**4, "亿": 10**8}
_NUMERAL = re.compile(r"[零〇一二两三四五六七八九十百千万亿]+")
_SPOKEN = re.compile(
    r"(负?)([零〇一二两三四五六七八九十百千万亿]+)(?:点([零〇一二三四五六七八九]+))?"
    r"(\s*(?:[元块角克吨秒天度升个人只件次本张页辆棵]|[平立]方[厘千]?米|[厘千毫]?米|公[里斤]|千克|毫升|分钟|小时|[A-Za-z%][A-Za-z0-9^/]*)?)"
)
_LOOKALIKES = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u04bb\u0455\u0501\u051b\u051d\u03bf\u03bd\u03b1\u03b9\u03c1\u0432\u043a\u043c\u043d\u0442"
    "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0425\u0406\u0408\u0405\u0391\u0392\u0395\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a7\u03a5\u0396",
    "aeopcyxijhsdqwovaipbkmhtABEKMHOPCTXIJSABEHIKMNOPTXYZ",
)
_SPELLINGS = (
    ("\\%", "%"), ("\u2212", "-"), ("\u2010", "-"), ("\u2011", "-"), ("\uff0c", ","), ("\u00d7", "\\times "),
    ("^{\\prime}", "'"), ("^{\\prime\\prime}", "''"), ("^{\\prime \\prime}", "''"), ("^\\prime", "'"),
    ("^\\circ", "°"), ("^{\\circ}", "°"), ("^\\degree", "°"), ("\u00bd", "\\frac{1}{2}"),
)  # fmt: skip
# A dash is a minus sign where no number stands before it: 3–5 is a range.
_DASH = re.compile(r"(?<![0-9A-Za-z)}\]\s])\s*[\u2012\u2013]|(?<=[A-Za-z)}\]])\s*[\u2012\u2013]")
# Thousands: 1\\,000 and 16,\\!386 and 1{,}000; a space behind a comma separates, as in (1,\\,250).
_THIN_SPACE = re.compile(
    r"(?<=[0-9])(?:,\\!|\\[!,;: ]|\{,\}(?:\\!)?)(?=[0-9]{3}(?![0-9]))|(?<=[0-9,])\\!(?=[0-9:])|"
    r"(?<=:)\\!(?=[0-9])"
)
_RAISED = str.maketrans("\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b", "0123456789-")
_SUPERSCRIPTS = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207b]+")
_PAIR = re.compile(r"(?<!\\)\$((?:[^$\s,;]|\\\$)(?:(?:[^$]|(?<=\\)\$)*?(?:[^$\s,;\\]))?)\$(?![0-9])")
_HALF_DAY = re.compile(
    r"(:[0-9]{2})\s*(?:\\text\{\s*([ap])\.?\s?m\.?\s*\}|([ap])\.?\s?m\.?(?![A-Za-z.]))", re.IGNORECASE
)
_STYLE = r"(?:\\(?:text(?:bf|rm|it)?|math(?:bf|rm)|mbox)\s*\{\s*)"
_CHOICE = re.compile(_STYLE + r"?\(?([A-J])\)?\s*\}?")
# "\textbf{(C)}\ 12", "(C) 12", "C) 12", "C. 12"
_CHOSEN = re.compile(
    rf"({_STYLE}?)(?:\(?(?=[A-J]\))|(?=[A-J]\.\s))([A-J])[).]((?:[\s}}~]|\\[ ,;:]|\\q?quad).+)", re.DOTALL
)
_SHORT_FRACTION = re.compile(r"\\([dt]?frac)\s*(\\pi|[0-9A-Za-z])\s*(\\pi|[0-9A-Za-z])")


def visible(text: str) -> str:
    """A text without characters that nobody sees, full-width forms as plain ones.

    Example:
        >>> visible("\\uff14\\u200b\\uff12 n\\u00adot")
        '42 not'
    """
    return "".join(c for c in text if unicodedata.category(c) != "Cf").translate(_WIDTHS)


def folded(text: str) -> str:
    """Letters of other scripts that look Latin as Latin ones, place by place: what a reader sees.

    Only for the words around an answer, never for the answer: a Cyrillic х is no x.

    Example:
        >>> folded("n\u043et") == "not", len(folded("\u0394x = \u03c0r\u00b2"))
        (True, 7)
    """
    return text.translate(_LOOKALIKES)


def tidy(text: str) -> str:
    """One spelling of an answer: no dollar signs around it, plain minus, percent and degree signs."""
    text = _unwrapped(visible(text).strip())
    for old, new in _SPELLINGS:
        text = text.replace(old, new)
    text = _DASH.sub("-", text)
    text = _THIN_SPACE.sub("", text)
    text = _SUPERSCRIPTS.sub(lambda found: "^{" + found.group().translate(_RAISED) + "}", text)
    text = _HALF_DAY.sub(lambda found: f"{found[1]} \\text{{{(found[2] or found[3]).lower()}m}}", text)
    text = _SHORT_FRACTION.sub(r"\\\1{\2}{\3}", text)
    return _arabic(text.rstrip(".。").strip())


def _unwrapped(text: str) -> str:
    """Without the signs that only say that mathematics begins and ends."""
    for begin, end in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        inside = text[len(begin) : -len(end)]
        is_around = len(text) > len(begin) + len(end) and text.startswith(begin) and text.endswith(end)
        if is_around and "$" not in inside.replace("\\$", "") and not inside.endswith("\\"):
            return _unwrapped(inside.strip())
    # "$5$; $10$": pairs around mathematics, where "$5, $10" are two sums of money.
    plain = _PAIR.sub(r" \1 ", text)
    return " ".join(plain.split()) if "$" not in plain.replace("\\$", "") else text


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
    if not set(text) & (TENS.keys() | MYRIADS.keys()):
        return int("".join(str(_DIGITS[c]) for c in text))  # digit by digit, as years are read
    total = section = digit = 0
    last = 0  # the last 万 or 亿: a smaller one after it counts by itself, 一万亿 multiplies
    for char in text:
        if char in _DIGITS:
            digit = _DIGITS[char]
        elif char in TENS:
            section += (digit or 1) * TENS[char]
            digit = 0
        else:
            factor = MYRIADS[char]
            here = section + digit
            total = (total + here) * factor if factor > last else total + here * factor
            last, section, digit = factor, 0, 0
    return total + section + digit


def multiplier(text: str) -> tuple[Fraction, str]:
    """The 万, 亿 or 千 that a unit begins with, and the rest of it."""
    factor = Fraction(1)
    while text[:1] in ("万", "亿", "千", "百") and not text.startswith(("千克", "千米", "千瓦", "百分")):
        factor *= (MYRIADS | TENS)[text[0]]
        text = text[1:].strip()
    return factor, text


def is_same_word(gold: str, answer: str) -> bool:
    """Whether a gold answer in words is said, in whatever case, with or without an article.

    Words of one or two letters are symbols and their case counts, except no.
    """
    wanted, given = (_words(text) for text in (gold, answer))
    is_word = (
        re.fullmatch(r"[A-Za-z]{3,}(?: [A-Za-z]+)*|[A-Za-z]{2}(?: [A-Za-z]{3,})+|no|No", wanted) is not None
    )
    return is_word and wanted.casefold() == given.casefold()


def is_same_choice(gold: str, answer: str) -> bool:
    """Whether the option of a gold letter is given with what it says, which names no other one.

    Example:
        >>> is_same_choice("C", "\\\\textbf{(C)}\\\\ 12"), is_same_choice("C", "(C), (D)")
        (True, False)
    """
    wanted, given = _CHOICE.fullmatch(gold), _CHOSEN.fullmatch(answer)
    if wanted is None or given is None or wanted.group(1) != given.group(2):
        return False
    # "(C) - 1" may be arithmetic, "\\textbf{(C)} -1" is not.
    begins = "+*/^=<>_,;、" if given.group(1) else "+*/^=<>_,;、-"
    said = given.group(3).strip("\\~ }")
    return not said.startswith(tuple(begins)) and not re.search(r"(?<![A-Za-z\\])[A-J](?![A-Za-z])", said)


def _words(text: str) -> str:
    text = re.sub(r"\\(?:text|textbf|mathrm|mbox)\s*\{([^{}]*)\}", r"\1", text)
    return re.sub(
        r"^(?:the|an?)\s+(?=[A-Za-z]{3})", "", " ".join(text.split()).rstrip(".。 "), flags=re.IGNORECASE
    )
