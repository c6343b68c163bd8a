"""Whether two final answers are the same mathematics. Runs in killable processes only: see ``forked.py``.

Both texts are read wholly, into trees that hold every number, letter, relation, bracket, modulus, base and
unit, or they are compared as texts. Numbers are compared exactly, as fractions; sympy proves the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from trimtab.rewards.math_sets import is_same_set, solutions_of
from trimtab.rewards.math_statements import (
    has_names_alike,
    is_list,
    is_relation,
    items_of,
    names_matter,
    quantity_of,
    split_name,
)
from trimtab.rewards.math_text import is_same_choice, is_same_word, tidy
from trimtab.rewards.math_tokens import Unreadable, tokens_of
from trimtab.rewards.math_tree import Node, read_tree
from trimtab.rewards.math_values import expression, fraction_of, is_same_value, is_zero, letters_of

_MAX_LENGTH = 400
_MAX_ITEMS = 64
# What says that two texts cannot be compared: a part of them, or sympy's ways to say that it cannot.
_NO_VALUE = (
    Unreadable,
    TypeError,
    ValueError,
    ArithmeticError,
    NotImplementedError,
    AttributeError,
    RecursionError,
)
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_SYMMETRIC = ("=", "!=", "≈", "~", "≅", "≃", "∥", "⊥")


def is_equal(gold: str, answer: str) -> bool:
    """Whether ``answer`` says the same as ``gold``; what cannot be read is equal only as text."""
    gold, answer = tidy(gold), tidy(answer)
    if not gold or not answer or max(len(gold), len(answer)) > _MAX_LENGTH:
        return False
    if is_same_text(gold, answer) or is_same_choice(gold, answer):
        return True
    try:
        return _same(read_tree(gold), read_tree(answer))
    except _NO_VALUE:
        return False


def is_one_of(golds: Sequence[str], answer: str) -> bool:
    """Whether ``answer`` says the same as any of the accepted answers."""
    return any(is_equal(gold, answer) for gold in golds)


def is_readable(text: str) -> bool:
    """Whether a text is read wholly, as mathematics or as words; else only the same writing is equal to it.

    Example:
        >>> is_readable("x^2 + 1"), is_readable("\\\\int_0^1 x dx")
        (True, False)
    """
    try:
        read_tree(tidy(text))
        return len(text) <= _MAX_LENGTH
    except (Unreadable, RecursionError):
        return False


def is_same_text(gold: str, answer: str) -> bool:
    """Equality of the written signs: spacing, layout and the case of words aside."""
    if gold == answer or is_same_word(gold, answer):
        return True
    try:
        return _written(gold) == _written(answer)
    except Unreadable:  # a brace is open
        return False


def _written(text: str) -> list[tuple[str, str]]:
    tokens = [token for token in tokens_of(text, is_strict=False) if token.kind != "gap"]
    return [
        (
            token.kind,
            token.text.replace(".", "").casefold() if _is_word(token.kind, token.text) else token.text,
        )
        for token in tokens
    ]


def _is_word(kind: str, text: str) -> bool:
    """Words of one or two letters are symbols, and their case counts; but a.m. is a word."""
    return kind == "word" and (len(text) > 2 or text.endswith("."))


def read_quantity(text: str) -> tuple[Fraction, str | None] | None:
    """A number as a fraction, and its unit; None where the text is more than that.

    Example:
        >>> read_quantity("1,250.5 cm"), read_quantity("x + 1")
        ((Fraction(2501, 2), 'cm'), None)
    """
    try:
        value, _, name = quantity_of(read_tree(tidy(text)))
    except (Unreadable, RecursionError):
        return None
    number = fraction_of(value)
    return None if number is None else (number, name)


def _same(gold: Node, answer: Node) -> bool:
    """Whether two trees say the same.

    Raises:
        Unreadable: there is no way to compare them.
    """
    if gold == answer:
        return True
    gold, answer = _unnamed(gold, answer)
    if gold == answer:
        return True
    for compare in (_same_lists, _same_sets, _same_shapes):
        found = compare(gold, answer)
        if found is not None:
            return found
    return _same_quantity(gold, answer)


# A name and its value: x = 5.


def _unnamed(gold: Node, answer: Node) -> tuple[Node, Node]:
    """``x = 5`` beside ``5``: the name is left out where only one side has one, or both have the same."""
    wanted, given = split_name(gold), split_name(answer)
    if wanted is not None and given is not None:
        return (wanted[1], given[1]) if wanted[0] == given[0] else (gold, answer)
    first = wanted[1] if wanted and not is_relation(answer) else gold
    second = given[1] if given and not is_relation(gold) else answer
    return first, second


# Several values, in any order.


def _same_lists(gold: Node, answer: Node) -> bool | None:
    """Lists without brackets and sets; ± stands for two values. None where neither is one."""
    if gold.kind == answer.kind == "set" or (not is_list(gold) and not is_list(answer)):
        return _same_items(gold.parts, answer.parts) if gold.kind == answer.kind == "set" else None
    if {gold.text, answer.text} == {"or", "and"} and any(
        is_relation(p) for p in (*gold.parts, *answer.parts)
    ):
        return _same_sets(gold, answer) or False
    sets = _same_sets(gold, answer)
    if sets:
        return True
    wanted, given = items_of(gold), items_of(answer)
    names = [[split_name(item) for item in items] for items in (wanted, given)]
    if any(names_matter(found) for found in names) and not has_names_alike(names):
        return False
    return _same_items(wanted, given)


def _same_items(wanted: Sequence[Node], given: Sequence[Node]) -> bool:
    """Each of one has its own in the other."""
    if len(wanted) != len(given) or len(wanted) > _MAX_ITEMS:
        return False
    left = list(given)
    for item in wanted:
        found = next((n for n, other in enumerate(left) if _same_or_not(item, other)), None)
        if found is None:
            return False
        del left[found]
    return True


def _same_or_not(one: Node, other: Node) -> bool:
    try:
        return _same(one, other)
    except _NO_VALUE:
        return False


def _same_in_order(wanted: Sequence[Node], given: Sequence[Node]) -> bool:
    return len(wanted) == len(given) and all(map(_same_or_not, wanted, given))


# Sets of numbers, relations, matrices, congruences.


def _same_sets(gold: Node, answer: Node) -> bool | None:
    """Intervals, unions and conditions on a letter; None where one side is none of them."""
    pair = {gold.kind, answer.kind}
    if (pair <= {"tuple", "square", "half", "set"} and len(pair) == 1) or pair == {"tuple", "set"}:
        return None  # entry by entry
    wanted, given = solutions_of(gold), solutions_of(answer)
    if wanted is None or given is None:
        return None
    if "set" in pair and "relation" in pair:
        return None  # x = 2 is no set of one element
    return is_same_set(wanted, given)


def _same_shapes(gold: Node, answer: Node) -> bool | None:
    """Trees of one kind, part by part; None where both are values."""
    kinds = {gold.kind, answer.kind}
    if not kinds & _SHAPES:
        return None
    if len(kinds) > 1:
        return False
    if gold.kind == "relation":
        return _same_relations(gold, answer)
    if gold.kind == "modulo":
        return _same_congruence(gold, answer)
    if gold.kind == "word":
        return is_same_word(gold.text, answer.text)
    if gold.kind == "based":
        return (gold.text.lstrip("0"), _base(gold)) == (answer.text.lstrip("0"), _base(answer))
    if gold.kind in ("cup", "cap"):
        return _same_items(gold.parts, answer.parts)
    if gold.kind == "square" and len(gold.parts) == len(answer.parts) == 1:
        return _same(gold.parts[0], answer.parts[0])
    return gold.text == answer.text and _same_in_order(gold.parts, answer.parts)


_SHAPES = frozenset(
    (
        "tuple",
        "half",
        "square",
        "set",
        "angle",
        "relation",
        "modulo",
        "builder",
        "cup",
        "cap",
        "minus",
        "field",
        "empty",
        "matrix",
        "row",
        "ratio",
        "word",
        "based",
        "list",
        "empty cell",
    )
)


def _base(node: Node) -> str:
    said = node.parts[0].text.strip().lower()
    names = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    return str(names.index(said) + 2) if said in names else said


def _same_congruence(gold: Node, answer: Node) -> bool:
    """The same modulus, and values that differ by a multiple of it: 8 (mod 5) is 3 (mod 5)."""
    (one, modulus), (other, second) = gold.parts, answer.parts
    if not _same(modulus, second):
        return False
    if _same_or_not(one, other):
        return True
    if (
        one.kind == other.kind == "relation"
        and one.text == other.text == "≡"
        and one.parts[0] == other.parts[0]
    ):
        one, other = one.parts[-1], other.parts[-1]
    numbers = [fraction_of(node) for node in (one, other, modulus)]
    if None in numbers or any(number.denominator != 1 for number in numbers if number is not None):
        return False
    first, last, size = (int(number) for number in numbers if number is not None)
    return size != 0 and (first - last) % size == 0


def _same_relations(gold: Node, answer: Node) -> bool:
    """The same signs between the same values; one equation or inequality may also be multiplied through."""
    signs = [node.text.split(" ") for node in (gold, answer)]
    if not letters_of(gold) and _written_parts(gold) != _written_parts(answer):
        return False  # two true statements are not the same statement
    turned = [_FLIPPED.get(sign, sign if sign in _SYMMETRIC else "") for sign in reversed(signs[1])]
    if signs[0] == signs[1] and _same_in_order(gold.parts, answer.parts):
        return True
    if signs[0] == turned and _same_in_order(gold.parts, answer.parts[::-1]):
        return True
    if len(signs[0]) != 1 or len(signs[1]) != 1 or letters_of(gold) != letters_of(answer):
        return False
    if signs[0] not in (signs[1], turned) or signs[0][0] not in ("=", "!=", *_FLIPPED):
        return False
    parts = answer.parts if signs[0] == signs[1] else answer.parts[::-1]
    sides = [expression(a) - expression(b) for a, b in (gold.parts, parts)]
    return _is_multiple(sides, is_sign_free=signs[0][0] in ("=", "!="))


def _written_parts(node: Node) -> list[str]:
    return sorted(part.text for part in node.walk() if part.text)


def _is_multiple(sides: Sequence[object], is_sign_free: bool) -> bool:
    """Whether one expression is a number other than 0 times the other (a positive one for inequalities)."""
    import sympy

    if any(is_zero(side) or not getattr(side, "free_symbols", None) for side in sides):
        return False
    ratio = sympy.simplify(sides[0] / sides[1])  # type: ignore[operator]
    if ratio.free_symbols or not ratio.is_number or ratio.is_zero is not False:
        return False
    return bool(is_sign_free or ratio.is_positive)


# Values and quantities.


def _same_quantity(gold: Node, answer: Node) -> bool:
    """With two units the quantities are equal; with one or none the numbers are.

    A gold answer whose unit may be a variable, ``5 m``, is not the bare number.
    """
    (one, unit, _), (other, given, _) = quantity_of(gold), quantity_of(answer)
    if given is None and any(node.kind == "measure" for node in gold.walk()):
        return False
    if unit is None or given is None:
        return is_same_value(one, other)
    if unit.dimension != given.dimension:
        return False
    first, second = fraction_of(one), fraction_of(other)
    if first is not None and second is not None:
        return first * unit.factor == second * given.factor
    return unit.factor == given.factor and is_same_value(one, other)


def warm_up() -> None:
    """Import and run everything once, so that a forked child does not."""
    is_equal("\\frac{x}{2}", "\\frac{2x+1-1}{4}")
    is_equal("[1, 2]", "1 \\le x < 2")
    is_equal("\\sqrt{8}", "2\\sqrt{2}")
