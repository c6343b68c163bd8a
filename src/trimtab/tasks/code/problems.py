"""Families of small programming problems: an argument x, some constants, one value to return.

A family says the same thing four times: in Chinese, in English, as Python for a solution, and as a function
of ours that gives what is expected. A test keeps the last two together.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Value = Any  # int, str, bool or a list of integers

SUBJECTS = {  # what x is: in Chinese, in English, and how a program reads it
    "int": ("一个整数 x", "an integer x", "int(input())"),
    "list": ("一行整数，即列表 x", "a line of integers, the list x", "list(map(int, input().split()))"),
    "text": ("一行文字 x", "a line of text x", "input()"),
}


@dataclass(frozen=True, slots=True)
class Family:
    """Problems that differ in their constants a (and b): ``ranges`` are theirs, upper ends included."""

    name: str
    level: int  # 0 one operation, 1 two steps or a condition, 2 lists and texts
    subject: str  # a key of SUBJECTS
    ranges: tuple[tuple[int, int], ...]
    zh: str
    en: str
    code: str
    compute: Callable[..., Value]


@dataclass(frozen=True, slots=True)
class CodeProblem:
    """A family with its constants. ``form`` is ``function`` or ``program`` and is not part of the content.

    Example:
        >>> CodeProblem(FAMILIES["add"], (3,), "function", "en").text.splitlines()[0]
        'Write a Python function f(x) that returns x plus 3.'
    """

    family: Family
    values: tuple[int, ...]
    form: str
    language: str

    @property
    def key(self) -> str:
        """The content that decides about the split: wording, language and form do not."""
        return f"{self.family.name}:{','.join(map(str, self.values))}"

    @property
    def text(self) -> str:
        """The prompt, with an example where the words alone could be misread (above level 0)."""
        zh, en, _ = SUBJECTS[self.family.subject]
        what = self._filled(self.family.zh if self.language == "zh" else self.family.en)
        if self.language == "zh":
            text = f"写 Python 函数 f(x)，返回{what}。" if self.form == "function" else ""
            text = text or f"写 Python 程序：读入{zh}，输出{what}。"
        else:
            text = f"Write a Python function f(x) that returns {what}." if self.form == "function" else ""
            text = text or f"Write a Python program that reads {en} and prints {what}."
        return text if self.family.level == 0 else f"{text}\n{self._example()}"

    @property
    def solution(self) -> str:
        """A program that solves it, as a fenced block."""
        code = self._filled(self.family.code)
        if self.form == "function":
            body = f"def f(x):\n    return {code}\n"
        else:
            shown = f"*{code}" if self._prints_list else code
            body = f"x = {SUBJECTS[self.family.subject][2]}\nprint({shown})\n"
        return f"```python\n{body}```"

    def cases(self) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
        """The visible and the hidden tests: fixed by the content, with different arguments."""
        arguments = self._arguments()
        tests: list[Mapping[str, Any]] = [self._case(x) for x in arguments]
        return tests[:2], tests[2:]

    def expected(self, x: Value) -> Value:
        """What a right solution returns for ``x``."""
        return self.family.compute(x, *self.values)

    @property
    def _prints_list(self) -> bool:
        return isinstance(self.expected(self._arguments()[0]), list)

    def _filled(self, text: str) -> str:
        return text.format(**dict(zip("ab", self.values, strict=False)))

    def _case(self, x: Value) -> dict[str, Any]:
        if self.form == "function":
            return {"fn": "f", "args": [x], "expected": self.expected(x)}
        return {"input": _line(x) + "\n", "output": _line(self.expected(x)) + "\n"}

    def _example(self) -> str:
        case = self.cases()[0][0]
        word = "例" if self.language == "zh" else "Example"
        if self.form == "function":
            return f"{word}: f({case['args'][0]!r}) == {case['expected']!r}"
        return f"{word}: {case['input'].strip()} -> {case['output'].strip()}"

    def _arguments(self) -> list[Value]:
        """Six arguments without repeats: borders of the constants are among the hidden four."""
        rng = random.Random(f"cases:{self.key}")
        top = max(self.values, default=10)
        if self.family.subject == "int":
            edges = sorted({0, *(v + d for v in self.values for d in (-1, 0, 1)), -top - 2, 2 * top + 5})
            visible = rng.sample([n for n in range(2, 3 * top + 20) if n not in edges], 2)
            hidden: list[Value] = rng.sample(edges, min(len(edges), 5))
            return [*visible, *hidden, rng.randint(3 * top + 20, 9 * top + 99)]
        if self.family.subject == "list":
            rows = [_numbers(rng, self.values, size) for size in (4, 6, 1, 5, 7, 8)]
            return [*rows[:2], *rows[2:]]
        words = ["tea", "planet", "noon", "a", "keyboard", "seven"]
        rng.shuffle(words)
        return words


def _numbers(rng: random.Random, values: Sequence[int], size: int) -> list[int]:
    """Numbers around the constant: in the longer rows it is there, and so are its neighbours."""
    centre = values[0] if values else 10
    row = [centre + rng.randint(-4, 4) for _ in range(size)]
    if size > 4:
        row[:3] = [centre - 1, centre, centre + 1]
        rng.shuffle(row)
    return row


def _line(value: Value) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _family(
    name: str,
    level: int,
    subject: str,
    ranges: Sequence[tuple[int, int]],
    words: tuple[str, str, str],
    compute: Any,
) -> Family:
    return Family(name, level, subject, tuple(ranges), *words, compute)


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        _family("add", 0, "int", [(1, 99)], (" x 加 {a}", "x plus {a}", "x + {a}"), lambda x, a: x + a),
        _family("subtract", 0, "int", [(1, 99)], (" x 减 {a}", "x minus {a}", "x - {a}"), lambda x, a: x - a),
        _family("multiply", 0, "int", [(2, 99)], (" x 乘 {a}", "x times {a}", "x * {a}"), lambda x, a: x * a),
        _family(
            "scale_add",
            1,
            "int",
            [(2, 20), (1, 50)],
            (" x 乘 {a} 再加 {b}", "x times {a}, plus {b}", "x * {a} + {b}"),
            lambda x, a, b: x * a + b,
        ),
        _family(
            "add_scale",
            1,
            "int",
            [(1, 50), (2, 20)],
            (" x 加 {a} 的和乘 {b}", "the sum of x and {a}, times {b}", "(x + {a}) * {b}"),
            lambda x, a, b: (x + a) * b,
        ),
        _family(
            "at_most",
            1,
            "int",
            [(2, 99)],
            (" x，最大为 {a}", "x, but at most {a}", "min(x, {a})"),
            lambda x, a: min(x, a),
        ),
        _family(
            "at_least",
            1,
            "int",
            [(2, 99)],
            (" x，最小为 {a}", "x, but at least {a}", "max(x, {a})"),
            lambda x, a: max(x, a),
        ),
        _family(
            "distance",
            1,
            "int",
            [(2, 99)],
            (" x 与 {a} 的距离", "the distance between x and {a}", "abs(x - {a})"),
            lambda x, a: abs(x - a),
        ),
        _family(
            "remainder",
            1,
            "int",
            [(2, 99)],
            (" x 除以 {a} 的余数", "the remainder of x divided by {a}", "x % {a}"),
            lambda x, a: x % a,
        ),
        _family(
            "sum_above",
            2,
            "list",
            [(1, 99)],
            (
                " x 中大于 {a} 的数之和",
                "the sum of the numbers in x above {a}",
                "sum(n for n in x if n > {a})",
            ),
            lambda x, a: sum(n for n in x if n > a),
        ),
        _family(
            "count_equal",
            2,
            "list",
            [(1, 99)],
            (" x 中 {a} 的个数", "how often {a} is in x", "x.count({a})"),
            lambda x, a: x.count(a),
        ),
        _family(
            "scale_all",
            2,
            "list",
            [(2, 99)],
            (" x 的每个数乘 {a}", "the list x with every number times {a}", "[n * {a} for n in x]"),
            lambda x, a: [n * a for n in x],
        ),
        _family(
            "drop_below",
            2,
            "list",
            [(1, 99)],
            (
                " x 去掉小于 {a} 的数",
                "the list x without the numbers below {a}",
                "[n for n in x if n >= {a}]",
            ),
            lambda x, a: [n for n in x if n >= a],
        ),
        _family(
            "length_times",
            2,
            "text",
            [(2, 99)],
            (" x 的长度乘 {a}", "the length of x times {a}", "len(x) * {a}"),
            lambda x, a: len(x) * a,
        ),
        _family(
            "reversed_tag",
            2,
            "text",
            [(1, 99)],
            (" x 倒过来再接上 '{a}'", "x reversed, followed by '{a}'", "x[::-1] + '{a}'"),
            lambda x, a: x[::-1] + str(a),
        ),
    )
}
