"""Preference pairs: explicit prompt, implicit prompt (the common beginning), and unpaired labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trimtab.data.columns import Shape
from trimtab.data.messages import as_messages, as_prompt, as_reply, as_text
from trimtab.data.sources import Row
from trimtab.errors import DataError
from trimtab.types import Message


@dataclass(frozen=True, slots=True)
class Preference:
    """One preference: the prompt, the better answer and the worse one."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    columns: Mapping[str, Any] = field(default_factory=dict)


def preferences_of(shape: Shape, rows: Sequence[Row], path: str) -> list[Preference]:
    """Return the preferences of rows that have one of the three preference shapes.

    Raises:
        DataError: a row is not usable, or unpaired rows contain no pair of one prompt.
    """
    if shape.name == "unpaired preference":
        return _pair_up(rows, path)
    return [_explicit(row) if shape.name == "preference" else split_implicit(row) for row in rows]


def is_liked(row: Row) -> bool:
    """Return the ``label`` of an unpaired preference; 1 and 0 count as true and false.

    Raises:
        DataError: any other label.
    """
    label = row.values["label"]
    if label not in (True, False):
        raise DataError(f"{row.where}: 'label' must be true or false, not {label!r}; mend this row.")
    return bool(label)


def _explicit(row: Row) -> Preference:
    values, where = row.values, row.where
    used = ("prompt", "chosen", "rejected")
    return Preference(
        prompt=as_prompt(values["prompt"], where),
        chosen=as_reply(values["chosen"], where, "chosen"),
        rejected=as_reply(values["rejected"], where, "rejected"),
        columns={name: value for name, value in values.items() if name not in used},
    )


def split_implicit(row: Row) -> Preference:
    """Return the preference of a row whose prompt is what ``chosen`` and ``rejected`` begin with.

    Raises:
        DataError: there is no common beginning, or what follows is not one assistant turn each.
    """
    chosen, rejected = row.values["chosen"], row.values["rejected"]
    columns = {name: value for name, value in row.values.items() if name not in ("chosen", "rejected")}
    if isinstance(chosen, str) or isinstance(rejected, str):
        return _split_text(row, columns)
    good = as_messages(chosen, row.where, "chosen")
    bad = as_messages(rejected, row.where, "rejected")
    shared = next((i for i, (a, b) in enumerate(zip(good, bad, strict=False)) if a != b), len(good))
    # Equal answers, or one list inside the other: the prompt still ends before the last turn.
    shared = min(shared, len(good) - 1, len(bad) - 1)
    if shared == 0:
        raise DataError(f"{row.where}: 'chosen' and 'rejected' share no first turn; add the column `prompt`.")
    prompt = as_prompt(good[:shared], row.where, "chosen")
    return Preference(
        prompt,
        as_reply(good[shared:], row.where, "chosen"),
        as_reply(bad[shared:], row.where, "rejected"),
        columns,
    )


def _split_text(row: Row, columns: Mapping[str, Any]) -> Preference:
    chosen = as_text(row.values["chosen"], row.where, "chosen")
    rejected = as_text(row.values["rejected"], row.where, "rejected")
    pairs = enumerate(zip(chosen, rejected, strict=False))
    cut = next((i for i, (a, b) in pairs if a != b), min(len(chosen), len(rejected)))
    # Do not cut a word of a spaced script in two ("bl|ue" and "bl|ack").
    while 0 < cut < max(len(chosen), len(rejected)) and _is_word(chosen, cut) and _is_word(chosen, cut - 1):
        cut -= 1
    prompt = chosen[:cut].rstrip()
    if not prompt:
        raise DataError(f"{row.where}: 'chosen' and 'rejected' share no beginning; add the column `prompt`.")
    user: Message = {"role": "user", "content": prompt}
    return Preference((user,), chosen[cut:].strip(), rejected[cut:].strip(), columns)


def _is_word(text: str, index: int) -> bool:
    return index < len(text) and text[index].isascii() and text[index].isalnum()


def _pair_up(rows: Sequence[Row], path: str) -> list[Preference]:
    """Join liked and disliked answers to the same prompt, in their order."""
    groups: dict[tuple[tuple[str, str], ...], tuple[tuple[Message, ...], list[str], list[str]]] = {}
    for row in rows:
        prompt = as_prompt(row.values["prompt"], row.where)
        key = tuple((message["role"], message["content"]) for message in prompt)
        _, liked, disliked = groups.setdefault(key, (prompt, [], []))
        (liked if is_liked(row) else disliked).append(
            as_reply(row.values["completion"], row.where, "completion")
        )
    pairs = [
        Preference(prompt, good, bad)
        for prompt, liked, disliked in groups.values()
        for good, bad in zip(liked, disliked, strict=False)
    ]
    if not pairs:
        raise DataError(
            f"{path}: no prompt has both a true and a false `label`, so there is no pair to compare; "
            "give rows with chosen and rejected."
        )
    return pairs
