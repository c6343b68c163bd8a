"""Arguments that JSON could not hold as they were: dicts with whole numbers as keys, tuples in lists.

A row says ``{"1": 5}`` where its author's function takes ``{1: 5}``. When a solution fails with what is
written, it is tried with what may have been meant; what it must return is the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trimtab.rewards.code_cases import Case

_WHOLE = re.compile(r"-?(?:0|[1-9]\d{0,17})")


def other_readings(cases: Sequence[Case], replies: Mapping[int, Mapping[str, Any]]) -> list[tuple[Case, ...]]:
    """The same cases with other arguments, in each way that makes a difference.

    Example:
        >>> other_readings([{"fn": "f", "args": [{"1": 5}], "expected": 5}], {})[0][0]["args"]
        [{1: 5}]
    """
    errors = " ".join(str(reply.get("error", "")) for reply in replies.values())
    ways: list[Callable[[Any], Any]] = [with_whole_keys]
    # A list where a tuple was: it cannot be in a set, be a key, or be added to a tuple.
    if re.search(r"unhashable type|TypeError.*tuple", errors):
        ways += [inner_tuples, lambda args: inner_tuples(with_whole_keys(args))]
    found = [_changed(cases, way) for way in ways]
    if any("readings" in case for case in cases):
        found.append(
            tuple(
                {**case, "args": case.get("readings", [case.get("args")])[0]} if "fn" in case else case
                for case in cases
            )
        )
    return [reading for reading in found if [*reading] != [*cases]]


def with_whole_keys(value: Any) -> Any:
    """Dicts whose keys all are texts of whole numbers get these as keys, at every depth."""
    if isinstance(value, Mapping):
        is_whole = bool(value) and all(isinstance(key, str) and _WHOLE.fullmatch(key) for key in value)
        return {int(key) if is_whole else key: with_whole_keys(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(with_whole_keys(item) for item in value)
    return value


def inner_tuples(args: list[Any]) -> list[Any]:
    """Lists inside of arguments become tuples; arguments themselves stay lists."""
    return [[_as_tuples(item) for item in arg] if isinstance(arg, list) else _in_dict(arg) for arg in args]


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list) else _in_dict(value)


def _in_dict(value: Any) -> Any:
    return {key: _as_tuples(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def _changed(cases: Sequence[Case], way: Callable[[Any], Any]) -> tuple[Case, ...]:
    return tuple(
        case | {"args": way(case["args"]), **({"kwargs": way(case["kwargs"])} if "kwargs" in case else {})}
        if "fn" in case
        else case
        for case in cases
    )
