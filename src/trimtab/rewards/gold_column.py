"""Gold answers as data have them: a text, a number, several accepted ones, a value inside a struct.

``reward_model.ground_truth`` reads the key ``ground_truth`` of the column ``reward_model``, a struct or its
JSON. A whole solution is cut to its final answer: GSM8K's ``#### 18``, or the content of its last box.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from trimtab.errors import RewardError, nearest
from trimtab.rewards.math_claim import boxes_of
from trimtab.types import Sample

DEFAULT = "answer"
NESTED = "reward_model.ground_truth"  # where verl's data have it
_IN_STRUCT = ("ground_truth",)  # the key that is read where a column is a struct
_MAX_GOLDS = 64
_HASHES = re.compile(r"####[ \t]*([^\n]+?)\s*$")


def value_of(columns: Mapping[str, Any], path: str) -> Any:
    """The value at a column's name or at a dotted path; None where there is none.

    Example:
        >>> value_of({"reward_model": '{"ground_truth": "4"}'}, "reward_model.ground_truth")
        '4'
    """
    if path in columns:
        return columns[path]
    found: Any = columns
    rest = path
    while rest:
        found = _plain(found)
        found = _from_json(found) if isinstance(found, str) else found
        if not isinstance(found, Mapping):
            return None
        if rest in found:
            return found[rest]
        key, _, rest = rest.partition(".")
        found = found.get(key)
    return found


def golds_of(sample: Sample, column: str, name: str) -> tuple[str, ...]:
    """The accepted answers of a row as texts, at least one; any of them is right.

    Args:
        sample: a completion with the columns of its row.
        column: a column or a dotted path. Where the row lacks ``answer``, verl's place is read.
        name: the reward's, for errors.

    Raises:
        RewardError: there is none, or it is a struct without a known key.
    """
    columns = sample.prompt.columns
    value = value_of(columns, column)
    if _is_nothing(value) and column == DEFAULT:
        value = value_of(columns, NESTED)
    try:
        texts = _texts(value)
    except _NotText as problem:
        raise RewardError(
            f"Reward {name}: the column '{column}' of row {sample.prompt.id} is {problem.said}; "
            f"{problem.fix.format(column=column)}"
        ) from None
    if not texts:
        raise RewardError(
            f"Reward {name} needs the column '{column}', which row {sample.prompt.id} does not have"
            f"{_hint(columns, column)}."
        )
    return tuple(dict.fromkeys(texts))[:_MAX_GOLDS]


def column_of(sample: Sample, column: str, name: str) -> str:
    """A column of the row as text; of several accepted texts the first.

    Raises:
        RewardError: the row has no such column, or it is empty.
    """
    return golds_of(sample, column, name)[0]


def final_of(gold: str) -> str:
    """The final answer of a gold text that may be a whole solution.

    Example:
        >>> final_of("9 * 2 = <<9*2=18>>18\\n#### 18"), final_of("so $\\\\boxed{\\\\pi}$."), final_of("x = 3")
        ('18', '\\\\pi', 'x = 3')
    """
    hashes = _HASHES.search(gold)
    if hashes:
        return hashes.group(1).strip()
    boxes = boxes_of(gold) if "boxed" in gold else None
    return boxes[-1][0].strip() or gold if boxes else gold


class _NotText(Exception):
    def __init__(self, said: str, fix: str) -> None:
        super().__init__(said)
        self.said, self.fix = said, fix


def _texts(value: Any) -> list[str]:
    """Every accepted answer in a value as text."""
    value = _plain(value)
    if isinstance(value, str):
        inside = _from_json(value)
        if isinstance(inside, Mapping) and any(key in inside for key in _IN_STRUCT):
            return _texts(inside)
        if isinstance(inside, list) and inside and all(isinstance(item, str) for item in inside):
            return [text for item in inside for text in _texts(item)]
        return [value] if value.strip() else []
    if isinstance(value, Mapping):
        key = next((key for key in _IN_STRUCT if not _is_nothing(value.get(key))), None)
        if key is None:
            keys = ", ".join(map(str, list(value)[:6])) or "none"
            first = next(iter(value), "key")
            fix = f'name the key that holds the answer, such as column = "{{column}}.{first}".'
            raise _NotText(f"a struct with the keys {keys}", fix)
        return _texts(value[key])
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        if any(isinstance(_plain(item), (Mapping, Sequence)) and not isinstance(item, str) for item in value):
            raise _NotText(
                "a list of lists or structs", "write a list of texts or numbers, each an accepted answer."
            )
        return [text for item in value for text in _texts(item)]
    if _is_nothing(value):
        return []
    if isinstance(value, bool):
        return [str(value), str(value).lower()]
    if isinstance(value, float):
        # A column of integers with a hole in it comes as floats.
        return [str(int(value)), repr(value)] if value.is_integer() and abs(value) < 2**53 else [repr(value)]
    if isinstance(value, Decimal):
        return [f"{value:f}"]
    return [str(value)]


def _plain(value: Any) -> Any:
    """Scalars and arrays of numpy and pyarrow as Python has them."""
    for method in ("as_py", "tolist"):
        convert = getattr(value, method, None)
        if callable(convert):
            return convert()
    return value


def _is_nothing(value: Any) -> bool:
    if value is None or (isinstance(value, str) and not value.strip()):
        return True
    return isinstance(value, float) and not math.isfinite(value)


def _from_json(text: str) -> Any:
    """What a JSON text of a struct or a list says; the text itself where it is none."""
    if text.lstrip()[:1] not in ("{", "["):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _hint(columns: Mapping[str, Any], column: str) -> str:
    """Where the answer might be instead."""
    paths = [*columns]
    for key, value in columns.items():
        inside = _from_json(value) if isinstance(value, str) else _plain(value)
        if isinstance(inside, Mapping):
            paths += [f"{key}.{inner}" for inner in inside]
    if not paths:
        return ""
    close = nearest(column, paths) if column != DEFAULT else ""
    return close or f"; it has {', '.join(map(str, paths[:8]))}"
