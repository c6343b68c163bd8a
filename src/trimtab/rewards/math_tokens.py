"""The tokens of a final answer in LaTeX or plain text. What is no token makes the whole text unreadable.

Nothing is skipped but layout (``\\left``, thin spaces): a reader that drops what it does not know compares
parts of answers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from trimtab.rewards.math_units import MEASURE_WORDS, read_unit
from trimtab.rewards.math_vocabulary import (
    ACCENTS,
    BRACKETS,
    CLOSERS,
    COMMANDS,
    CURRENCIES,
    FUNCTIONS,
    GREEK,
    GREEK_SIGNS,
    LAYOUT,
    OPERATORS,
    RELATIONS,
    WORD_NAMES,
    WRAPPERS,
)


class Unreadable(Exception):
    """The text is not wholly read; it can only be compared as text."""


@dataclass(frozen=True, slots=True)
class Token:
    """A kind, its text, and whether white space stands before it.

    Kinds: number, letter, word, unit (one letter that may also be a variable: 5 m), function, constant,
    field, empty, operator, relation, open, close, comma, join (and, or), command, begin, end, cell, newrow,
    currency, prime, bar, gap, other.
    """

    kind: str
    text: str
    spaced: bool = False


_NUMBER = re.compile(r"(?:[0-9]+(?:\.[0-9]+|\.(?=[/*]))?|\.[0-9]+)")
_GROUPED = re.compile(
    r"[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]{1,3}(?: [0-9]{3})+(?! ?[0-9])(?:\.[0-9]+)?"
)
_TIGHT_COMMA = re.compile(r",(?! )")
_SCIENTIFIC = re.compile(r"[eE][+-]?[0-9]{1,3}(?![0-9.A-Za-z^])")
_REPEATING = re.compile(r"([0-9]*)\.([0-9]*)\\(?:overline|bar|dot)\s*(?:\{([0-9]+)\}|([0-9]))")
_AFTER_UNIT = re.compile(r"\s*(?:$|[/}),^]|\^\s*\{?[23]|[A-Za-z]{2,}|·)")
_LAST_UNIT = re.compile(r"(?:\s*\^\s*\{?[23]\}?)?(?:\s*/\s*[A-Za-z]+(?:\s*\^\s*\{?[23]\}?)?)?\s*")
_RUN = re.compile(r"[A-Za-z]+")
_FOREIGN = re.compile(r"[\u4e00-\u9fff]+|[A-Za-zà-ÿ]+(?:['’-][A-Za-zà-ÿ]+)*\.?")
_GLUED = re.compile(r"(arcsin|arccos|arctan|sqrt|sin|cos|tan|cot|log|ln)([a-z])")


def tokens_of(text: str, *, is_strict: bool = True) -> list[Token]:
    """The tokens of a tidied text.

    Args:
        text: a final answer.
        is_strict: whether what has no meaning here is refused; else it is a token of the kind ``other``.

    Raises:
        Unreadable: a character or a command has no meaning here.

    Example:
        >>> [token.text for token in tokens_of("2\\\\pi r")]
        ['2', 'pi', 'r']
    """
    return _Scanner(text, is_strict=is_strict).scan()


class _Scanner:
    def __init__(self, text: str, *, is_strict: bool, in_words: bool = False) -> None:
        self.text, self.at, self.depth = text, 0, 0
        self.is_strict, self.in_words = is_strict, in_words
        self.found: list[Token] = []
        self.spaced = False
        self.is_alone = re.fullmatch(r"[\s{}]*[A-Za-z]+[\s{}]*", text) is not None

    def add(self, kind: str, text: str) -> None:
        self.found.append(Token(kind, text, self.spaced))
        self.spaced = False

    def refuse(self, text: str) -> None:
        if self.is_strict:
            raise Unreadable(f"{text!r} has no meaning here")
        self.add("other", text)

    def scan(self) -> list[Token]:
        while self.at < len(self.text):
            char = self.text[self.at]
            if char.isspace() or char == "~":
                self.at, self.spaced = self.at + 1, True
            elif char == "\\":
                self.command()
            elif char.isascii() and (char.isdigit() or char == "."):
                self.number()
            elif self.in_words and (char.isalpha() or "\u4e00" <= char <= "\u9fff"):
                self.words()
            elif char.isascii() and char.isalpha():
                self.letters()
            else:
                self.sign(char)
        return self.found

    def number(self) -> None:
        repeating = _REPEATING.match(self.text, self.at)
        if repeating:
            whole, fixed, *period = repeating.groups()
            self.at = repeating.end()
            return self.add("number", f"{whole or '0'}.{fixed}({period[0] or period[1]})")
        # Inside brackets a comma separates: (1,250) is a pair.
        grouped = _GROUPED.match(self.text, self.at) if self.depth == 0 else None
        if grouped and (
            self.text[self.at - 1 : self.at] == "," or _TIGHT_COMMA.match(self.text, grouped.end())
        ):
            grouped = None  # 1,250,3 is a list
        found = grouped or _NUMBER.match(self.text, self.at)
        if found is None:
            self.at += 1
            return self.refuse(".")
        power = _SCIENTIFIC.match(self.text, found.end())
        self.at = power.end() if power else found.end()
        self.add("number", re.sub("[, ]", "", found.group()) + (power.group().lower() if power else ""))

    def sign(self, char: str) -> None:
        two = self.text[self.at : self.at + 2]
        if two in ("<=", ">=", "!=", "==", "**", "||"):
            self.at += 2
            if two == "||":
                return self.refuse(two)
            return self.add("relation" if two in RELATIONS else "operator", {**OPERATORS, **RELATIONS}[two])
        self.at += 1
        if char in "{}":
            self.add("open" if char == "{" else "close", char)
        elif char in BRACKETS or char in CLOSERS:
            self.depth += 1 if char in BRACKETS else -1
            self.add("open" if char in BRACKETS else "close", char)
        elif char == "!" and self.text[self.at : self.at + 1] == "!":
            self.refuse("!")
        elif char in OPERATORS:
            self.add("operator", OPERATORS[char])
        elif char in RELATIONS:
            self.add("relation", RELATIONS[char])
        elif char in ",;、":
            self.add("comma", ",")
        elif char in CURRENCIES:
            self.add("currency", CURRENCIES[char])
        elif char in GREEK_SIGNS:
            self.add("letter", "\\" + GREEK_SIGNS[char])
        elif char in "'′":
            self.add("prime", "'")
        elif char == "&":
            self.add("cell", "&")
        elif char == "|":
            self.add("bar", "|")
        elif char in "∞π∅°√":
            kinds = {"∞": ("constant", "infty"), "π": ("constant", "pi"), "∅": ("empty", ""),
                     "°": ("operator", "degree"), "√": ("command", "sqrt")}  # fmt: skip
            self.add(*kinds[char])
        elif "\u4e00" <= char <= "\u9fff":
            self.at -= 1
            self.words()
        else:
            self.refuse(char)

    def letters(self) -> None:
        """A run of letters outside ``\\text``: a function, a unit, a word, or letters side by side."""
        match = _RUN.match(self.text, self.at)
        assert match is not None
        run = match.group()
        self.at = match.end()
        if run.lower() in ("or", "and"):
            self.add("join", run.lower())
        elif run in FUNCTIONS and not (run == "min" and self._is_unit(run)):
            self.add("function", run)
        elif run in ("sqrt", "binom", "mod"):
            self.add(*(("operator", "mod") if run == "mod" else ("command", run)))
        elif run in WORD_NAMES:
            name = WORD_NAMES[run]
            self.add(
                "constant" if name in ("infty", "pi") else "letter",
                name if name in ("infty", "pi") else f"\\{name}",
            )
        elif run in OPERATORS:
            self.add("operator", OPERATORS[run])
        elif run in ("per", "cent") and self.text[self.at :].strip() == "cent":
            self.at = len(self.text)
            self.add("operator", "%")
        elif self._is_unit(run):
            self.add("unit" if len(run) == 1 and self.found[-1].kind == "number" else "word", run)
        elif _GLUED.fullmatch(run):
            function, letter = _GLUED.fullmatch(run).groups()  # type: ignore[union-attr]
            self.add("command" if function == "sqrt" else "function", function)
            self.add("letter", letter)
        elif len(run) == 1 or (not self.is_alone and len(run) <= 3) or (run.isupper() and len(run) <= 6):
            for letter in run:
                self.add("letter", letter)
        else:
            self.add("word", run)

    def _is_unit(self, run: str) -> bool:
        """Whether the run is a unit behind a value; a single letter only behind a space: 5 m, but 5m."""
        if run == "per" or run in ("square", "cubic", "sq", "squared", "cubed"):
            return bool(self.found)
        before = self.found[-1] if self.found else None
        if before is None or read_unit(run) is None:
            return False
        if before.kind == "word" or (
            before.text == "/" and len(self.found) > 1 and self.found[-2].kind in ("word", "unit")
        ):
            return True
        is_value = before.kind in ("number", "close", "constant")
        follows = self.text[self.at :]
        if len(run) > 1:
            return is_value and _AFTER_UNIT.match(follows) is not None
        is_first = all(token.text in "+-" for token in self.found[:-1])
        return (
            self.spaced and before.kind == "number" and is_first and _LAST_UNIT.fullmatch(follows) is not None
        )

    def words(self) -> None:
        """Words of ``\\text``, and Chinese ones."""
        match = _FOREIGN.match(self.text, self.at)
        if match is None:
            self.at += 1
            return self.refuse(self.text[self.at - 1])
        word = match.group()
        self.at = match.end()
        plain = word.rstrip(".")
        if word.lower() in ("or", "and") or word in ("或", "或者", "和", "且"):
            self.add("join", {"or": "or", "或": "or", "或者": "or"}.get(word.lower(), "and"))
        elif plain.lower() in ("percent", "degrees", "degree", "mod"):
            name = plain.lower()
            self.add("operator", "mod" if name == "mod" else OPERATORS[name])
        elif plain in ("infinity", "infty"):
            self.add("constant", "infty")
        elif plain in FUNCTIONS and len(self.text.split()) > 1:
            self.add("function", plain)
        elif len(plain) == 1 and plain.isascii():
            self.add("word" if self._follows_value() and read_unit(plain) else "letter", plain)
        else:
            self.add("word", word)

    def _follows_value(self) -> bool:
        """Whether a unit may stand here: behind a value, a unit, or a unit's slash."""
        if not self.found:
            return False
        is_slash = (
            self.found[-1].text == "/" and len(self.found) > 1 and self.found[-2].kind in ("word", "unit")
        )
        return is_slash or self.found[-1].kind in ("number", "close", "constant", "letter", "word", "unit")

    def command(self) -> None:
        match = re.compile(r"\\(?:([A-Za-z]+)|(.))", re.DOTALL).match(self.text, self.at)
        if match is None:
            self.at += 1
            return self.refuse("\\")
        self.at = match.end()
        name, sign = match.groups()
        if sign is not None:
            self._escaped(sign)
        elif name in LAYOUT:
            self._layout(name)
        elif name in WRAPPERS:
            self._wrapped(name)
        elif name in ("begin", "end"):
            self._environment(name)
        elif name in FUNCTIONS:
            self.add("function", name)
        elif name in GREEK:
            self.add("letter", f"\\{name}")
        elif name in ("pi", "infty"):
            self.add("constant", name)
        elif name in ("emptyset", "varnothing"):
            self.add("empty", "")
        elif name in ("mathbb", "mathcal", "mathfrak"):
            letter = self._argument()
            self.add(
                "field" if name == "mathbb" else "letter", letter if name == "mathbb" else f"{name} {letter}"
            )
        elif name in ACCENTS:
            self.add("letter", f"{name} {self._argument().replace(' ', '')}")
        elif name in RELATIONS:
            self.add("relation", RELATIONS[name])
        elif name in OPERATORS:
            self.add("operator", OPERATORS[name])
        elif name in BRACKETS or name in CLOSERS:
            table, kind = (BRACKETS, "open") if name in BRACKETS else (CLOSERS, "close")
            self.add("bar" if table[name] == "|" else kind, table[name])
        elif name in COMMANDS:
            self.add("command", {"dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "dbinom": "binom",
                                 "tbinom": "binom"}.get(name, name))  # fmt: skip
        elif name == "prime":
            self.add("prime", "'")
        elif name == "vert":
            self.add("bar", "|")
        else:
            self.refuse(f"\\{name}")

    def _escaped(self, sign: str) -> None:
        if sign in "{}":
            self.depth += 1 if sign == "{" else -1
            self.add("open" if sign == "{" else "close", f"\\{sign}")
        elif sign == "\\":
            self.add("newrow", "")
        elif sign in ",;:! ":
            self.spaced = self.spaced or sign != "!"
        elif sign == "%":
            self.add("operator", "%")
        elif sign in "$":
            self.add("currency", "dollars")
        elif sign == "|":
            self.refuse("\\|")
        else:
            self.refuse(f"\\{sign}")

    def _layout(self, name: str) -> None:
        if name in ("quad", "qquad"):
            self.add("gap", name)
        elif name in ("left", "right") and self.text[self.at : self.at + 1] == ".":
            self.at += 1
            self.refuse(f"\\{name}.")

    def _wrapped(self, name: str) -> None:
        """The content of ``\\text{…}``: words, or for ``\\mathrm`` also mathematics."""
        content = self._argument() if name not in ("rm", "bf", "it") else ""
        stripped = content.strip()
        self.spaced = self.spaced or content[:1].isspace()
        if stripped in FUNCTIONS and name in ("operatorname", "mathrm"):
            self.add("function", stripped)
        elif len(stripped) == 1 and stripped.isalpha() and stripped.isascii():
            is_unit = self._follows_value() and read_unit(stripped) is not None
            self.add("word" if is_unit else "letter", stripped)
        elif stripped:
            scanner = _Scanner(content, is_strict=self.is_strict, in_words=True)
            scanner.found = list(self.found)
            scanner.spaced = self.spaced
            self.found = scanner.scan()
            self.spaced = content[-1:].isspace()

    def _environment(self, name: str) -> None:
        kind = self._argument().strip("* ")
        if name == "begin" and kind in ("array", "tabular"):
            self._argument()  # its columns
        self.add(name, kind)

    def _argument(self) -> str:
        """The text of the braces that follow, or the next character."""
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1
        if not self.text.startswith("{", self.at):
            self.at += 1
            return self.text[self.at - 1 : self.at]
        depth, begin = 0, self.at
        for at in range(begin, len(self.text)):
            if self.text[at] in "{}" and self.text[at - 1] != "\\":
                depth += 1 if self.text[at] == "{" else -1
                if depth == 0:
                    self.at = at + 1
                    return self.text[begin + 1 : at]
        raise Unreadable("a brace that is not closed")


def is_measure(word: str) -> bool:
    """Whether a word behind a number counts things without saying more: 个, 件."""
    return MEASURE_WORDS.fullmatch(word) is not None
