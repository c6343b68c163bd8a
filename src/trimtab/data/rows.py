"""Load the rows of a data set as prompts for RL, pairs for SFT, or preference pairs for the reward model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab.data.columns import shaped_rows
from trimtab.data.mapping import Columns
from trimtab.data.messages import REASONING, as_messages, as_prompt, as_reply, as_text
from trimtab.data.preferences import Preference, answer_after, is_liked, preferences_of, split_implicit
from trimtab.data.shapes import Shape
from trimtab.data.sources import Row
from trimtab.data.system import with_system
from trimtab.errors import DataError
from trimtab.types import Conversation, Message, Prompt


@dataclass(frozen=True, slots=True)
class Pair:
    """One SFT example: the prompt, and the completion as text or as the turns that follow.

    ``prompt`` is empty for language-modelling text, where every token is trained.
    """

    prompt: tuple[Message, ...]
    completion: str | tuple[Message, ...]
    columns: Mapping[str, Any] = field(default_factory=dict)


def load_prompts(
    path: str | Path, *, columns: Columns | None = None, limit: int | None = None
) -> list[Prompt]:
    """Return the prompts of a data set; the id is the column ``id``, or the row's number from 0.

    An id that several rows share gets the row's number behind it: two prompts are one only if they are one
    row. Every other column is kept in ``Prompt.columns`` for the rewards. A prompt given as a string becomes
    one user message; ``Prompt.is_conversational`` tells it from one that was given as messages.

    Args:
        path: a file, a directory or a hub name; see :func:`trimtab.data.read_rows`.
        columns: names and the paths of what they hold, as ``{"answer": "reward_model.ground_truth"}``.
        limit: read only so many rows.

    Raises:
        DataError: the data set cannot be read or does not hold prompts; names the row and the fix.
    """
    shape, rows = shaped_rows(path, "prompts", limit, columns)
    ids = unique_ids(rows)
    prompts = []
    for row, name in zip(rows, ids, strict=True):
        messages, used = _prompt_of(shape, row)
        given = "chosen" if shape.name == "implicit preference" else used[0]
        kept = {column: value for column, value in row.values.items() if column not in used}
        if messages.variables.get("tools"):
            kept["tools"] = messages.variables["tools"]
        prompts.append(
            Prompt(
                id=name,
                messages=messages,
                columns=kept,
                is_conversational=not isinstance(row.values[given], str),
            )
        )
    return prompts


def unique_ids(rows: Sequence[Row]) -> list[str]:
    """Return an id for each row: its column ``id``, with the row's number where several rows share it."""
    named = [row.values.get("id") for row in rows]
    ids = [str(number if name is None else name) for number, name in enumerate(named)]
    counts = Counter(ids)
    return [name if counts[name] == 1 else f"{name} (row {number})" for number, name in enumerate(ids)]


def load_pairs(path: str | Path, *, columns: Columns | None = None, limit: int | None = None) -> list[Pair]:
    """Return the SFT pairs of a data set; of unpaired preferences, those with a true label.

    Raises:
        DataError: the data set cannot be read or does not hold pairs; names the row and the fix.
    """
    shape, rows = shaped_rows(path, "pairs", limit, columns)
    if shape.name == "unpaired preference":
        rows = [row for row in rows if is_liked(row)]
        if not rows:
            raise DataError(f"{path}: no row has a true `label`, so there is nothing to imitate; add some.")
    return [_pair_of(shape, row) for row in rows]


def load_preferences(
    path: str | Path, *, columns: Columns | None = None, limit: int | None = None
) -> list[Preference]:
    """Return the preference pairs of a data set, each with one chosen and one rejected answer.

    Raises:
        DataError: the data set cannot be read or does not hold preferences; names the row and the fix.
    """
    shape, rows = shaped_rows(path, "preferences", limit, columns)
    return preferences_of(shape, rows, str(path))


def _prompt_of(shape: Shape, row: Row) -> tuple[Conversation, tuple[str, ...]]:
    """Return the prompt of a row and the names of the columns it was made of."""
    if shape.name == "implicit preference":
        return split_implicit(row).prompt, ()
    if shape.name in ("Alpaca", "Dolly"):
        return with_system(_instruction(row), row), ("instruction", "input")
    if shape.name in ("messages", "ShareGPT"):
        name = shape.column("messages")
        messages = as_messages(row.values[name], row.where, name)
        last = max((i for i, m in enumerate(messages) if m["role"] == "assistant"), default=len(messages))
        prompt = messages if messages[-1]["role"] != "assistant" else messages[:last]
        return with_system(as_prompt(prompt, row.where, name), row), (name,)
    name = shape.column("prompt")
    if shape.name == "UltraChat":
        return with_system(_asked_first(row), row), (name,)
    return with_system(as_prompt(row.values[name], row.where, name), row), (name,)


def _asked_first(row: Row) -> Conversation:
    """UltraChat's prompt with what stands before it in its messages: a system turn, as a rule."""
    prompt = as_prompt(row.values["prompt"], row.where)
    messages = as_messages(row.values["messages"], row.where, "messages")
    first = next((i for i, m in enumerate(messages) if m["role"] == "assistant"), len(messages))
    before = messages[:first]
    is_same = bool(before) and before[-1]["content"].strip() == prompt[-1]["content"].strip()
    return Conversation(before) if is_same and len(prompt) == 1 else prompt


def _instruction(row: Row) -> list[Message]:
    """Alpaca's instruction with its input (Dolly's context)."""
    text = as_text(row.values["instruction"], row.where, "instruction")
    for name in ("input", "context"):
        extra = row.values.get(name)
        if isinstance(extra, str) and extra.strip():
            text = f"{text}\n\n{as_text(extra, row.where, name)}"
        elif extra not in (None, "") and not isinstance(extra, str) and extra == extra:
            raise DataError(f"{row.where}: '{name}' is a {type(extra).__name__}, but must be text or null.")
    return [{"role": "user", "content": text}]


def _pair_of(shape: Shape, row: Row) -> Pair:
    values, where = row.values, row.where
    columns = {name: value for name, value in values.items() if name not in shape.columns}
    if shape.name == "language modelling":
        return Pair((), as_text(values["text"], where, "text"), columns)
    if "messages" in shape.columns or shape.name == "ShareGPT":
        return _dialogue_of(shape, row, columns)
    name = shape.column("completion")
    if shape.name in ("Alpaca", "Dolly"):
        prompt = with_system(_instruction(row), row)
        return Pair(prompt, _thought(as_reply(values[name], where, name), row), columns)
    asked = as_prompt(values[shape.column("prompt")], where, shape.column("prompt"))
    context, completion = _completion(asked, values[name], where, name)
    return Pair(with_system(context, row), _thought(completion, row), columns)


def _thought(completion: str | tuple[Message, ...], row: Row) -> str | tuple[Message, ...]:
    """An answer in text with the reasoning that the row has in a column of its own."""
    name = next((name for name in REASONING if isinstance(row.values.get(name), str)), None)
    if name is None or not isinstance(completion, str):
        return completion
    thought = row.values[name]
    if not thought.strip() or thought.strip() in completion:
        return completion
    return ({"role": "assistant", "content": completion, name: thought},)


def _dialogue_of(shape: Shape, row: Row, columns: Mapping[str, Any]) -> Pair:
    name, where = shape.column("messages"), row.where
    messages = as_messages(row.values[name], where, name)
    first = next((i for i, m in enumerate(messages) if m["role"] == "assistant"), 0)
    if first == 0:
        raise DataError(f"{where}: '{name}' needs a user turn and then an assistant turn; mend this row.")
    if shape.name == "UltraChat":
        asked = as_prompt(row.values["prompt"], where)[-1]["content"].strip()
        if all(asked != str(message["content"]).strip() for message in messages):
            raise DataError(
                f"{where}: 'prompt' is not among the turns of 'messages', so one would be lost; write "
                'columns = { prompt = "" } to train the messages, or { messages = "" } to leave them out.'
            )
    return Pair(with_system(messages[:first], row), messages[first:], columns)


def _completion(
    prompt: Conversation, value: Any, where: str, name: str
) -> tuple[Conversation, str | tuple[Message, ...]]:
    if value is None or isinstance(value, (str, float)):
        return prompt, as_text(value, where, name)
    messages = as_messages([value] if isinstance(value, Mapping) else value, where, name)
    if messages[0]["role"] != "assistant":
        if len(messages) > 1 and messages[-1]["role"] == "assistant":
            return answer_after(prompt, value, where, name)
        raise DataError(f"{where}: '{name}' must begin with an assistant turn; mend this row.")
    return prompt, as_reply(value, where, name) if len(messages) == 1 else messages
