"""Values of trees: exact fractions without any library, and everything else as sympy expressions.

No number passes through a float. sympy is only used inside killable processes, since what it computes has no
bound; sizes that no answer needs are refused before.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from trimtab.rewards.math_node import Node
from trimtab.rewards.math_text import MYRIADS, TENS
from trimtab.rewards.math_tokens import Unreadable

_MAX_BITS = 50_000  # of a number
_MAX_FACTORIAL = 2_000
_REPEATING = re.compile(r"([0-9]*)\.([0-9]*)\(([0-9]+)\)")
_CALLS = {
    "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec", "csc": "csc", "arcsin": "asin",
    "arccos": "acos", "arctan": "atan", "arccot": "acot", "arcsec": "asec", "arccsc": "acsc",
    "sin^-1": "asin",
    "cos^-1": "acos", "tan^-1": "atan", "cot^-1": "acot", "sec^-1": "asec", "csc^-1": "acsc", "sinh": "sinh",
    "cosh": "cosh", "tanh": "tanh", "exp": "exp", "max": "Max", "min": "Min", "gcd": "gcd", "lcm": "lcm",
    "abs": "Abs", "mod": "Mod",
}  # fmt: skip
_MANY = ("max", "min", "gcd", "lcm", "mod")


def number_of(text: str) -> Fraction:
    """The number that the digits of a token write: ``1.5``, ``2e3``, ``0.1(6)``.

    Example:
        >>> number_of("0.1(6)"), number_of("1e6")
        (Fraction(1, 6), Fraction(1000000, 1))
    """
    repeating = _REPEATING.fullmatch(text)
    if repeating is None:
        return Fraction(text)
    whole, fixed, period = repeating.groups()
    head = Fraction(int(f"{whole}{fixed}" or "0"), 10 ** len(fixed))
    return head + Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(fixed))


def fraction_of(node: Node) -> Fraction | None:
    """The value of a tree of plain numbers; None where there is more, or it divides by zero."""
    if node.kind == "number":
        return number_of(node.text)
    if node.kind == "square" and len(node.parts) == 1:
        return fraction_of(node.parts[0])
    if node.kind not in ("negative", "quotient", "product", "sum", "power", "mixed", "percent", "scaled"):
        return None
    values = [fraction_of(part) for part in node.parts]
    if any(value is None for value in values):
        return None
    found: list[Fraction] = [value for value in values if value is not None]
    first = found[0]
    if node.kind == "power":
        return _power(first, found[1])
    if node.kind in ("quotient", "mixed") and found[-1] == 0:
        return None
    if node.kind == "product":
        for value in found[1:]:
            first *= value
        return first
    simple = {
        "negative": lambda: -first,
        "percent": lambda: first / 100,
        "sum": lambda: sum(found, Fraction(0)),
        "scaled": lambda: first * (MYRIADS | TENS)[node.text],
        "quotient": lambda: first / found[1],
        "mixed": lambda: first + found[1] / found[2],
    }
    return simple[node.kind]()


def _power(base: Fraction, exponent: Fraction) -> Fraction | None:
    bits = max(abs(base.numerator), base.denominator).bit_length()
    if exponent.denominator != 1 or (base == 0 and exponent <= 0) or abs(exponent) * bits > _MAX_BITS:
        return None
    return base ** int(exponent)


def letters_of(node: Node) -> frozenset[str]:
    """The letters and the functions' names of a tree, constants aside."""
    return frozenset(f"{n.kind} {n.text}" for n in node.walk() if n.kind in ("letter", "apply", "field"))


def is_infinite(node: Node) -> bool:
    """Whether it is ∞ with one sign or none."""
    return node == _INFINITY or (node.kind == "negative" and node.parts[0] == _INFINITY)


_INFINITY = Node("constant", (), "infty")


def is_same_value(one: Node, other: Node) -> bool:
    """Whether two values are equal for every value of the same letters; proved, not only probable.

    Raises:
        Unreadable: one of them has no value.
    """
    if one == other:
        return True
    first, second = fraction_of(one), fraction_of(other)
    if first is not None and second is not None:
        return first == second
    if is_infinite(one) or is_infinite(other) or letters_of(one) != letters_of(other):
        return False
    return is_zero(expression(one) - expression(other))


def is_zero(difference: Any) -> bool:
    """Whether a sympy expression is 0. A number that is far from 0 is seen at once, the rest is proved."""
    import sympy

    if difference.is_Rational:
        return bool(difference == 0)
    if difference.has(sympy.nan, sympy.zoo, sympy.oo):
        return False
    if not _may_be_zero(difference):
        return False
    attempts = (
        sympy.expand,
        sympy.simplify,
        lambda e: sympy.simplify(sympy.expand_log(sympy.expand(e, func=True, trig=True))),
        lambda e: sympy.radsimp(sympy.sqrtdenest(e)),
    )
    for attempt in attempts:
        if attempt(difference) == 0:
            return True
    return difference.equals(0) is True


def _may_be_zero(difference: Any) -> bool:
    """Whether it is near 0 at a point where nothing is special. Only ever used to say no."""
    import sympy

    symbols = sorted(difference.free_symbols, key=str)
    point = {s: sympy.Rational(1009 + 97 * n, 811) for n, s in enumerate(symbols)}
    if difference.atoms(sympy.core.function.AppliedUndef):
        return True
    try:
        parts = difference.subs(point).evalf(60).as_real_imag()
    except (ArithmeticError, ValueError, TypeError, NotImplementedError, AttributeError):
        return True
    return not any(part.is_comparable and abs(part) > sympy.Float("1e-40") for part in parts)


def expression(node: Node) -> Any:
    """The sympy expression of a value. Letters are real numbers, i and e constants.

    Raises:
        Unreadable: it has none, or one of no reasonable size.
    """
    import sympy

    value = fraction_of(node)
    if value is not None:
        return sympy.Rational(value.numerator, value.denominator)
    kind, parts = node.kind, node.parts
    if kind == "letter":
        return sympy.Symbol(node.text, real=True)
    if kind == "constant":
        if node.text == "infty":
            raise Unreadable("infinity in a value")
        return {"e": sympy.E, "i": sympy.I, "pi": sympy.pi}[node.text]
    if kind == "quotient" and _is_derivative(node):
        return sympy.Symbol(f"derivative {parts!r}", real=True)
    if kind == "power":
        return _sympy_power(expression(parts[0]), expression(parts[1]))
    if kind == "call":
        return _call(node)
    if kind == "apply":
        return sympy.Function(node.text)(*map(expression, parts))
    return _arithmetic(kind, parts, [expression(part) for part in parts])


def _arithmetic(kind: str, parts: tuple[Node, ...], given: list[Any]) -> Any:
    import sympy

    if kind == "sum":
        return sympy.Add(*given)
    if kind == "product":
        return sympy.Mul(*given)
    if kind in ("negative", "percent"):
        return -given[0] if kind == "negative" else given[0] / 100
    if kind == "square" and len(parts) == 1:
        return given[0]
    if kind == "degree":
        return given[0] * sympy.pi / 180
    if kind in ("abs", "floor", "ceil"):
        return {"abs": sympy.Abs, "floor": sympy.floor, "ceil": sympy.ceiling}[kind](given[0])
    if kind == "quotient":
        if given[1] == 0:
            raise Unreadable("a division by zero")
        return given[0] / given[1]
    if kind == "root":
        return _sympy_power(given[0], 1 / given[1] if len(given) > 1 else sympy.Rational(1, 2))
    if kind in ("factorial", "binom"):
        if any(
            value.is_number and not (value.is_Integer and 0 <= value <= _MAX_FACTORIAL) for value in given
        ):
            raise Unreadable(f"a {kind} of that size")
        return sympy.factorial(given[0]) if kind == "factorial" else sympy.binomial(*given)
    raise Unreadable(f"a {kind} in a value")


def _sympy_power(base: Any, exponent: Any) -> Any:
    import sympy

    if base.is_Rational and exponent.is_Rational:
        bits = max(abs(int(base.p)), int(base.q)).bit_length()
        if abs(exponent) * bits > _MAX_BITS or (base == 0 and exponent <= 0):
            raise Unreadable("a power of that size")
    elif exponent.is_Integer and abs(exponent) > _MAX_FACTORIAL:
        raise Unreadable("a power of that size")
    return sympy.Pow(base, exponent)


def _call(node: Node) -> Any:
    import sympy

    given = [expression(part) for part in node.parts]
    if node.text in ("log", "ln", "lg", "log_"):
        if given[0] == 0 or (node.text == "log_" and given[1] in (0, 1)):
            raise Unreadable("a logarithm that is none")
        # Whose base `log` is depends on the book: one symbol, so that it is neither 10 nor e.
        bases = {"log": sympy.Symbol("base of log", positive=True), "ln": sympy.E, "lg": sympy.Integer(10)}
        if len(given) != (2 if node.text == "log_" else 1):
            raise Unreadable("a logarithm of several values")
        return sympy.log(given[0]) / sympy.log(given[1] if node.text == "log_" else bases[node.text])
    if node.text not in _CALLS or (len(given) > 1) != (node.text in _MANY):
        raise Unreadable(f"the function {node.text}")
    if node.text in ("gcd", "lcm") and not all(value.is_Integer for value in given):
        raise Unreadable(f"the {node.text} of something")
    if node.text in ("gcd", "lcm"):
        return getattr(sympy, node.text)(given)
    return getattr(sympy, _CALLS[node.text])(*given)


def _is_derivative(node: Node) -> bool:
    """``dy/dx``: the letter d is no factor there."""
    names = []
    for part in node.parts:
        first = part.parts[0] if part.kind == "product" else part
        first = first.parts[0] if first.kind == "power" else first
        names.append(first.text if first.kind == "letter" else "")
    return names[0] == names[1] and names[0] in ("d", "\\partial")
