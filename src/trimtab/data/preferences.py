"""Preference pairs: explicit prompt, implicit prompt (the common beginning), and unpaired labels."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trimtab.data.columns import variables_of
from trimtab.data.dialogue_text import parse_dialogue, split_at_answer
from trimtab.data.messages import Reply, as_messages, as_prompt, as_reply, as_text
from trimtab.data.shapes import Shape
from trimtab.data.sources import Row
from trimtab.data.system import with_system
from trimtab.errors import DataError
from trimtab.types import Conversation, Message


@dataclass(frozen=True, slots=True)
class Preference:
    """One preference: the prompt, the better answer and the worse one.

    An answer is text, or its one message where that says more (tool calls, reasoning).
    """

    prompt: Conversation
    chosen: Reply
    rejected: Reply
    columns: Mapping[str, Any] = field(default_factory=dict)


def preferences_of(shape: Shape, rows: Sequence[Row], path: str) -> list[Preference]:
    """Return the preferences of rows that have one of the preference shapes.

    Raises:
        DataError: a row is not usable, or unpaired rows contain no pair of one prompt.
    """
    if shape.name == "unpaired preference":
        return _pair_up(rows, path)
    if shape.name == "implicit preference":
        return [split_implicit(row) for row in rows]
    return [_explicit(row, shape.column("prompt")) for row in rows]


def is_liked(row: Row) -> bool:
    """Return the ``label`` of an unpaired preference; 1 and 0 count as true and false.

    Raises:
        DataError: any other label.
    """
    label = row.values["label"]
    if label not in (True, False):
        raise DataError(f"{row.where}: 'label' must be true or false, not {label!r}; mend this row.")
    return bool(label)


def _explicit(row: Row, name: str) -> Preference:
    values, where = row.values, row.where
    prompt = as_prompt(values[name], where, name)
    contexts, replies = [], []
    for side in ("chosen", "rejected"):
        context, reply = answer_after(prompt, values[side], where, side)
        contexts.append(context)
        replies.append(reply)
    if contexts[0] != contexts[1]:
        raise DataError(
            f"{where}: 'chosen' and 'rejected' have different turns before their last answer, so they answer "
            "different prompts; remove the row, or cut both to one answer."
        )
    used = (name, "chosen", "rejected")
    columns = {key: value for key, value in values.items() if key not in used}
    return Preference(with_system(contexts[0], row), replies[0], replies[1], columns)


def answer_after(
    prompt: Sequence[Message], value: Any, where: str, column: str
) -> tuple[Conversation, Reply]:
    """Return the turns before an answer and the answer, of a column that may hold the whole conversation.

    Raises:
        DataError: the conversation does not contain the turns of ``prompt``, or does not end with an answer.
    """
    own = Conversation(prompt)
    if value is None or isinstance(value, (str, float, Mapping)) or len(value) == 1:
        return own, as_reply(value, where, column)
    messages = as_messages(value, where, column)
    context, wanted = messages[:-1], [_said(message) for message in prompt]
    if messages[-1]["role"] != "assistant" or context[-1]["role"] not in ("user", "tool"):
        return own, as_reply(value, where, column)  # says what is wrong
    turns = [_said(message) for message in context]
    if not any(turns[i : i + len(wanted)] == wanted for i in range(len(turns))):
        raise DataError(
            f"{where}: '{column}' is a whole conversation, but the prompt is not among its turns; write "
            'columns = { prompt = "" } to take the prompt from the conversation alone, or mend this row.'
        )
    return Conversation(context), as_reply(messages[-1:], where, column)


def _said(message: Message) -> tuple[str, str]:
    return message["role"], str(message["content"]).strip()


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
        with_system(prompt, row),
        as_reply(good[shared:], row.where, "chosen"),
        as_reply(bad[shared:], row.where, "rejected"),
        columns,
    )


def _split_text(row: Row, columns: Mapping[str, Any]) -> Preference:
    chosen = as_text(row.values["chosen"], row.where, "chosen")
    rejected = as_text(row.values["rejected"], row.where, "rejected")
    cut = split_at_answer(chosen, rejected)
    if cut is not None:
        turns = parse_dialogue(chosen[:cut])
        assert turns is not None
        prompt = with_system(Conversation(turns), row)
        return Preference(prompt, chosen[cut:].strip(), rejected[cut:].strip(), columns)
    if parse_dialogue(chosen) or parse_dialogue(rejected):
        raise DataError(
            f"{row.where}: 'chosen' and 'rejected' are dialogues that share no user's turn; add the column "
            "`prompt`, or remove the row."
        )
    pairs = enumerate(zip(chosen, rejected, strict=False))
    cut = next((i for i, (a, b) in pairs if a != b), min(len(chosen), len(rejected)))
    # Do not cut a word of a spaced script in two ("bl|ue" and "bl|ack").
    while 0 < cut < max(len(chosen), len(rejected)) and _splits_a_word(chosen, rejected, cut):
        cut -= 1
    text = chosen[:cut].rstrip()
    if not text:
        raise DataError(f"{row.where}: 'chosen' and 'rejected' share no beginning; add the column `prompt`.")
    user: Message = {"role": "user", "content": text}
    return Preference(
        with_system(Conversation((user,)), row), chosen[cut:].strip(), rejected[cut:].strip(), columns
    )


def _splits_a_word(chosen: str, rejected: str, cut: int) -> bool:
    """Whether both sides of ``cut`` are in one word, in either text."""
    return _is_word(chosen, cut - 1) and (_is_word(chosen, cut) or _is_word(rejected, cut))


def _is_word(text: str, index: int) -> bool:
    return index < len(text) and text[index].isascii() and text[index].isalnum()


def _pair_up(rows: Sequence[Row], path: str) -> list[Preference]:
    """Join liked and disliked answers to the same prompt, in their order."""
    groups: dict[str, tuple[Conversation, list[Reply], list[Reply]]] = {}
    for row in rows:
        prompt = with_system(as_prompt(row.values["prompt"], row.where), row)
        key = repr(([sorted(message.items()) for message in prompt], variables_of(row)))
        _, reply = answer_after(prompt, row.values["completion"], row.where, "completion")
        _, liked, disliked = groups.setdefault(key, (prompt, [], []))
        (liked if is_liked(row) else disliked).append(reply)
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
    if 2 * len(pairs) < len(rows):
        warnings.warn(
            f"{path}: {len(rows) - 2 * len(pairs)} of {len(rows)} rows have no row of the other `label` to "
            "be compared with, and are left out",
            stacklevel=2,
        )
    return pairs
