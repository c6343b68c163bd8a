"""Values that cross the wall of a sandbox as JSON, and when two of them are the same.

A value is told by what it holds: lists as lists, everything else that JSON cannot hold with a tag
(``{"tuple": […]}``, ``{"dict": [[key, value], …]}``, ``{"set": […]}``). Nothing is compared by a method of
the solution's: what arrives here is rebuilt from plain types.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

_MAX_DEPTH = 50
_LONG_BITS = 12_000  # of whole numbers; Python writes no longer ones in digits
_LISTS, _DICTS = ("tuple", "deque"), ("dict", "ordered", "counter")
Near = tuple[float, float]  # relative and absolute
EXACT: Near = (1e-9, 1e-12)


def encode_value(value: Any, depth: int = 0) -> Any:
    """``value`` as the sandbox reads it.

    Raises:
        TypeError: it holds something that no sandbox can be given.

    Example:
        >>> encode_value((1, {2: "a"}))
        {'tuple': [1, {'dict': [[2, 'a']]}]}
    """
    if depth > _MAX_DEPTH:
        raise TypeError("value that is nested too deeply")
    if isinstance(value, int) and value.bit_length() > _LONG_BITS:
        return {"long": hex(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        tag = "ordered" if isinstance(value, OrderedDict) else "dict"
        pairs = [[encode_value(key, depth + 1), encode_value(item, depth + 1)] for key, item in value.items()]
        return {tag: pairs}
    if isinstance(value, list):
        return [encode_value(item, depth + 1) for item in value]
    if isinstance(value, (tuple, set, frozenset)):
        tag = "tuple" if isinstance(value, tuple) else "set"
        return {tag: [encode_value(item, depth + 1) for item in value]}
    if isinstance(value, bytes):
        return {"bytes": value.decode("latin-1")}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if callable(to_list := getattr(value, "tolist", None)):
        return encode_value(to_list(), depth + 1)
    raise TypeError(type(value).__name__)


class SetOf(list[Any]):
    """The members of a set, in no order."""


def decode_value(value: Any, depth: int = 0) -> Any:
    """A value as the guest writes it; what is not of that form equals nothing (NaN).

    Tuples and deques become lists, dicts get texts as keys (JSON has no others), sets a ``SetOf``.
    """
    if depth > _MAX_DEPTH:
        return math.nan
    if isinstance(value, list):
        return [decode_value(item, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        return math.nan
    ((tag, held),) = value.items()
    if not isinstance(held, list):
        return _decode_text(tag, held)
    if tag in _LISTS:
        return [decode_value(item, depth + 1) for item in held]
    if tag == "set":
        return SetOf(decode_value(item, depth + 1) for item in held)
    if tag in _DICTS:
        return _decode_pairs(held, depth)
    return _decode_number(tag, held)


def _decode_text(tag: str, held: Any) -> Any:
    if tag == "bytes" and isinstance(held, str):
        return held.encode("latin-1", "replace")
    if tag == "long" and isinstance(held, str) and re.fullmatch(r"-?0x[0-9a-f]+", held):
        return int(held, 16)
    return math.nan


def _decode_pairs(pairs: list[Any], depth: int) -> Any:
    found = {}
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2):
            return math.nan
        key = _key(decode_value(pair[0], depth + 1))
        if key is None or key in found:
            return math.nan
        found[key] = decode_value(pair[1], depth + 1)
    return found


def _decode_number(tag: str, held: list[Any]) -> Any:
    try:
        if tag == "complex":
            return complex(*held)
        if tag == "number":
            top, _, bottom = held[1].partition("/")
            return float(top) / float(bottom or 1)
    except (TypeError, ValueError, ArithmeticError, AttributeError, IndexError):
        return math.nan
    return math.nan


def _key(key: Any) -> str | None:
    """A key of a dict as the text that JSON, or a writer of JSON, makes of it."""
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    if isinstance(key, int) and key.bit_length() > _LONG_BITS:
        return hex(key)
    if isinstance(key, (int, float)):
        return str(key)
    if isinstance(key, (list, tuple)) and not isinstance(key, SetOf):
        parts = [repr(item) if isinstance(item, str) else _key(item) for item in key]
        return None if None in parts else "(" + ", ".join(map(str, parts)) + ("," * (len(parts) == 1)) + ")"
    return None


def is_same(expected: Any, found: Any, near: Near = EXACT) -> bool:
    """Equality of plain values: booleans are no numbers, floats within 1e-9, tuples lists, sets unordered.

    With a tolerance of its own (``near``: relative, absolute) whole numbers are compared by it too.

    Example:
        >>> is_same([1, 2.0], [1, 2]), is_same(1, True), is_same(0.3, 0.1 + 0.2)
        (True, False, True)
    """
    if isinstance(expected, bool) or isinstance(found, bool) or expected is None or found is None:
        return type(expected) is type(found) and expected == found
    if isinstance(expected, (int, float)) and isinstance(found, (int, float)):
        return _is_near(expected, found, near)
    if isinstance(expected, complex) or isinstance(found, complex):
        return _is_near_complex(expected, found, near)
    if isinstance(expected, (str, bytes)) or isinstance(found, (str, bytes)):
        return type(expected) is type(found) and expected == found
    if isinstance(expected, (set, frozenset)):
        return isinstance(found, SetOf) and _is_permutation(list(expected), list(found), near)
    if isinstance(expected, (list, tuple)) and isinstance(found, list):
        if len(expected) != len(found):
            return False
        if isinstance(found, SetOf):
            return _is_permutation(list(expected), list(found), near)
        return all(is_same(one, other, near) for one, other in zip(expected, found, strict=True))
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        wanted = {_key(key): value for key, value in expected.items()}
        return set(wanted) == set(found) and all(
            is_same(value, found[key], near) for key, value in wanted.items()
        )
    return False


def is_same_output(expected: str, found: str, near: Near | None = None) -> bool:
    """Equality of what programs print, line by line without white space at the ends of lines and of the text.

    With a tolerance word by word, where two numbers may differ by it.
    """
    if _lines(expected) == _lines(found):
        return True
    if near is None:
        return False
    wanted, given = expected.split(), found.split()
    return len(wanted) == len(given) and all(
        one == other or _are_near_words(one, other, near) for one, other in zip(wanted, given, strict=True)
    )


def _is_near(expected: float, found: float, near: Near) -> bool:
    if near is EXACT and isinstance(expected, int) and isinstance(found, int):
        return expected == found
    try:
        return math.isclose(expected, found, rel_tol=near[0], abs_tol=near[1])
    except OverflowError:
        return False


def _is_near_complex(expected: Any, found: Any, near: Near) -> bool:
    """A complex number is the same as another, or as a list of its two parts, never as a real number."""
    if not isinstance(found, complex):
        return False
    if isinstance(expected, complex):
        expected = [expected.real, expected.imag]
    if not isinstance(expected, (list, tuple)) or len(expected) != 2:
        return False
    return all(is_same(*pair, near) for pair in zip(expected, (found.real, found.imag), strict=True))


def _are_near_words(one: str, other: str, near: Near) -> bool:
    try:
        return _is_near(float(one), float(other), near)
    except ValueError:
        return False


def _lines(text: str) -> list[str]:
    """Lines without white space at their ends, and without empty ones at the end of the text."""
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _is_permutation(expected: list[Any], found: list[Any], near: Near) -> bool:
    for item in expected:
        place = next((at for at, other in enumerate(found) if is_same(item, other, near)), None)
        if place is None:
            return False
        del found[place]
    return not found
