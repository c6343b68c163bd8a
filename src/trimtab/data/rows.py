"""Load the rows of a data set as prompts for RL, pairs for SFT, or preference pairs for the reward model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab.data.columns import Shape, shaped_rows
from trimtab.data.messages import as_messages, as_prompt, as_reply, as_text
from trimtab.data.preferences import Preference, is_liked, preferences_of, split_implicit
from trimtab.data.sources import Row
from trimtab.errors import DataError
from trimtab.types import Message, Prompt


@dataclass(frozen=True, slots=True)
class Pair:
    """One SFT example: the prompt, and the completion as text or as the turns that follow.

    ``prompt`` is empty for language-modelling text, where every token is trained.
    """

    prompt: tuple[Message, ...]
    completion: str | tuple[Message, ...]
    columns: Mapping[str, Any] = field(default_factory=dict)


def load_prompts(path: str | Path, *, limit: int | None = None) -> list[Prompt]:
    """Return the prompts of a data set; the id is the column ``id`` or the row's number, from 0.

    Every other column is kept in ``Prompt.columns`` for the rewards. A prompt given as a string becomes
    one user message; ``Prompt.is_conversational`` tells it from one that was given as messages.

    Raises:
        DataError: the data set cannot be read or does not hold prompts; names the row and the fix.
    """
    shape, rows = shaped_rows(path, "prompts", limit)
    prompts = []
    for number, row in enumerate(rows):
        messages, used = _prompt_of(shape, row)
        columns = {name: value for name, value in row.values.items() if name not in used}
        given = "chosen" if shape.name == "implicit preference" else used[0]
        prompts.append(
            Prompt(
                id=str(row.values.get("id", number)),
                messages=messages,
                columns=columns,
                is_conversational=not isinstance(row.values[given], str),
            )
        )
    return prompts


def load_pairs(path: str | Path, *, limit: int | None = None) -> list[Pair]:
    """Return the SFT pairs of a data set; of unpaired preferences, those with a true label.

    Raises:
        DataError: the data set cannot be read or does not hold pairs; names the row and the fix.
    """
    shape, rows = shaped_rows(path, "pairs", limit)
    if shape.name == "unpaired preference":
        rows = [row for row in rows if is_liked(row)]
        if not rows:
            raise DataError(f"{path}: no row has a true `label`, so there is nothing to imitate; add some.")
    return [_pair_of(shape, row) for row in rows]


def load_preferences(path: str | Path, *, limit: int | None = None) -> list[Preference]:
    """Return the preference pairs of a data set, each with one chosen and one rejected answer.

    Raises:
        DataError: the data set cannot be read or does not hold preferences; names the row and the fix.
    """
    shape, rows = shaped_rows(path, "preferences", limit)
    return preferences_of(shape, rows, str(path))


def _prompt_of(shape: Shape, row: Row) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    """Return the prompt of a row and the names of the columns it was made of."""
    values = row.values
    if shape.name == "implicit preference":
        return split_implicit(row).prompt, ()
    if shape.name == "Alpaca":
        return _alpaca_prompt(row), ("instruction", "input")
    if shape.name == "messages":
        messages = as_messages(values["messages"], row.where, "messages")
        last = max((i for i, m in enumerate(messages) if m["role"] == "assistant"), default=len(messages))
        prompt = messages if messages[-1]["role"] != "assistant" else messages[:last]
        return as_prompt(prompt, row.where, "messages"), ("messages",)
    return as_prompt(values["prompt"], row.where), ("prompt",)


def _alpaca_prompt(row: Row) -> tuple[Message, ...]:
    text = as_text(row.values["instruction"], row.where, "instruction")
    extra = row.values.get("input")
    if extra:
        text = f"{text}\n\n{as_text(extra, row.where, 'input')}"
    return ({"role": "user", "content": text},)


def _pair_of(shape: Shape, row: Row) -> Pair:
    values, where = row.values, row.where
    columns = {name: value for name, value in values.items() if name not in shape.columns}
    if shape.name == "language modelling":
        return Pair((), as_text(values["text"], where, "text"), columns)
    if shape.name == "Alpaca":
        return Pair(_alpaca_prompt(row), as_text(values["output"], where, "output"), columns)
    if shape.name == "messages":
        messages = as_messages(values["messages"], where, "messages")
        first = next((i for i, m in enumerate(messages) if m["role"] == "assistant"), 0)
        if first == 0:
            raise DataError(
                f"{where}: 'messages' needs a user turn and then an assistant turn; mend this row."
            )
        return Pair(messages[:first], messages[first:], columns)
    return Pair(as_prompt(values["prompt"], where), _completion(row), columns)


def _completion(row: Row) -> str | tuple[Message, ...]:
    value = row.values["completion"]
    if value is None or isinstance(value, str):
        return as_text(value, row.where, "completion")
    messages = as_messages(value, row.where, "completion")
    if messages[0]["role"] != "assistant":
        raise DataError(f"{row.where}: 'completion' must begin with an assistant turn; mend this row.")
    return as_reply(value, row.where, "completion") if len(messages) == 1 else messages
