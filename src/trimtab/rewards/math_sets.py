"""Sets of real numbers: intervals, unions, conditions on one letter. In killable processes only: sympy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.rewards.math_node import Node
from trimtab.rewards.math_tokens import Unreadable
from trimtab.rewards.math_values import expression, is_infinite, letters_of

_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_FIELDS = {"R": "Reals", "Z": "Integers", "N": "Naturals", "Q": "Rationals"}
_SHAPES = frozenset(
    ("tuple", "square", "half", "set", "empty", "field", "cup", "cap", "minus", "builder", "relation", "list")
)


@dataclass(frozen=True, slots=True)
class Solutions:
    """What values a letter may have; ``letter`` is None where the text names none."""

    letter: str | None
    values: Any  # a sympy set


def solutions_of(node: Node) -> Solutions | None:
    """The set that an interval, a union or a condition on one letter describes; None where it is none."""
    if node.kind not in _SHAPES or (node.kind == "relation" and "=" in node.text.split(" ")):
        return None  # an equation is compared as one
    try:
        return _read(node)
    except (Unreadable, TypeError, ValueError, NotImplementedError):
        return None


def is_same_set(one: Solutions, other: Solutions) -> bool:
    """Equal sets; where both name a letter, of the same letter."""
    if None not in (one.letter, other.letter) and one.letter != other.letter:
        return False
    if one.values == other.values:
        return True
    try:
        return one.values.symmetric_difference(other.values).is_empty is True
    except (TypeError, ValueError, ArithmeticError, NotImplementedError, AttributeError):
        return False


def _read(node: Node) -> Solutions:
    import sympy

    kind, parts = node.kind, node.parts
    if kind in ("square", "half", "tuple"):
        return Solutions(None, _interval(node))
    if kind == "empty":
        return Solutions(None, sympy.S.EmptySet)
    if kind == "field":
        return Solutions(None, getattr(sympy.S, _FIELDS[node.text])) if node.text in _FIELDS else _refuse()
    if kind == "set":
        return Solutions(None, sympy.FiniteSet(*map(_number, parts)))
    if kind in ("cup", "cap", "minus"):
        sets = [_read(part).values for part in parts]
        return Solutions(None, _combined(kind, sets))
    if kind == "relation":
        return _relation(node)
    if kind == "list" and node.text in ("or", "and"):
        found = [_read(part) for part in parts]
        if any(part.kind != "relation" for part in parts) or len({one.letter for one in found}) != 1:
            return _refuse()
        kind = "cup" if node.text == "or" else "cap"
        return Solutions(found[0].letter, _combined(kind, [one.values for one in found]))
    if kind == "builder":
        return _builder(*parts)
    return _refuse()


def _refuse() -> Solutions:
    raise Unreadable("no set of real numbers")


def _combined(kind: str, sets: Sequence[Any]) -> Any:
    """A union, an intersection or a difference in which no end point is lost, unlike in x<5 or x<3."""
    import sympy

    make = {"cup": sympy.Union, "cap": sympy.Intersection, "minus": sympy.Complement}[kind]
    found = make(*sets)
    bounds = sympy.Union(*(one.boundary for one in sets if one not in _fields()))
    if found.is_empty is not False or found.boundary != bounds:
        return _refuse()
    return found


def _fields() -> tuple[Any, ...]:
    import sympy

    return tuple(getattr(sympy.S, name) for name in _FIELDS.values())


def _builder(element: Node, condition: Node) -> Solutions:
    """``{x | …}``: the letter is bound, so its name says nothing."""
    import sympy

    found = _read(condition)
    domain: Any = sympy.S.Reals
    letter = element
    if element.kind == "relation" and element.text == "∈":
        letter, domain = element.parts[0], _read(element.parts[1]).values
    if letter.kind != "letter" or found.letter != letter.text:
        return _refuse()
    return Solutions(None, sympy.Intersection(found.values, domain))


def _interval(node: Node) -> Any:
    import sympy

    if len(node.parts) != 2:
        return _refuse()
    low, high = map(_number, node.parts)
    brackets = {"tuple": "()", "square": "[]"}.get(node.kind, node.text)
    is_open = brackets[0] == "(", brackets[1] == ")"
    if not low < high or (low == -sympy.oo and not is_open[0]) or (high == sympy.oo and not is_open[1]):
        return _refuse()
    return sympy.Interval(low, high, *is_open)


def _number(node: Node) -> Any:
    import sympy

    if is_infinite(node):
        return -sympy.oo if node.kind == "negative" else sympy.oo
    if letters_of(node):
        raise Unreadable("a letter")
    value = expression(node)
    if value.is_extended_real is not True:
        raise Unreadable("no real number")
    return value


def _relation(node: Node) -> Solutions:
    """``x > 3``, ``-2 < x <= 5``, ``x != 0``, ``x = 3``, ``x in S``: one letter and numbers."""
    import sympy

    signs = node.text.split(" ")
    places = [index for index, part in enumerate(node.parts) if part.kind == "letter"]
    if len(places) != 1 or len(node.parts) > 3:
        return _refuse()
    at = places[0]
    letter = node.parts[at].text
    if signs == ["∈"] and at == 0:
        return Solutions(letter, _read(node.parts[1]).values)
    values: Any = sympy.S.Reals
    for index, part in enumerate(node.parts):
        if index == at:
            continue
        if abs(index - at) != 1:
            return _refuse()
        sign = signs[min(index, at)]
        sign = _FLIPPED.get(sign, sign) if index < at else sign
        values = sympy.Intersection(values, _half_line(sign, _number(part)))
    if values.is_empty is not False:
        return _refuse()
    return Solutions(letter, values)


def _half_line(sign: str, value: Any) -> Any:
    import sympy

    if sign == "=":
        return sympy.FiniteSet(value)
    if sign == "!=":
        return sympy.Complement(sympy.S.Reals, sympy.FiniteSet(value))
    if sign in ("<", "<="):
        return sympy.Interval(-sympy.oo, value, True, sign == "<")
    if sign in (">", ">="):
        return sympy.Interval(value, sympy.oo, sign == ">", True)
    return _refuse()
