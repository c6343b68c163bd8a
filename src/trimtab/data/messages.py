"""Check the texts and chat messages that a row carries, and bring them into one form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.errors import DataError, nearest
from trimtab.types import Message

ROLES = ("system", "developer", "user", "assistant", "tool")


def as_text(value: Any, where: str, column: str, *, allow_empty: bool = False) -> str:
    """Return ``value`` when it is usable text.

    Raises:
        DataError: it is missing, not a string, empty (unless allowed), or holds broken Unicode.
    """
    if not isinstance(value, str):
        shown = "missing" if value is None else f"a {type(value).__name__}"
        raise DataError(f"{where}: '{column}' is {shown}, but must be text; fill it in or remove the row.")
    if not value.strip() and not allow_empty:
        raise DataError(f"{where}: '{column}' is empty; fill it in or remove the row.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(
            f"{where}: '{column}' holds half a Unicode character (a lone surrogate); mend or remove the row."
        ) from None
    return value


def as_messages(value: Any, where: str, column: str) -> tuple[Message, ...]:
    """Return a list of chat messages as plain mappings with ``role`` and ``content`` strings.

    Content given as a list of text parts is joined. Other keys of a message (``name``) are kept.

    Raises:
        DataError: not a list of objects with ``role`` and ``content``, an unknown role, or not text.
    """
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise DataError(
            f"{where}: '{column}' must be text or a non-empty list of messages "
            '{"role": ..., "content": ...}; mend this row.'
        )
    return tuple(_message(item, where, f"{column}[{index}]") for index, item in enumerate(value))


def _message(item: Any, where: str, place: str) -> Message:
    if not isinstance(item, Mapping):
        raise DataError(f"{where}: '{place}' is not an object with `role` and `content`; mend this row.")
    for key in ("role", "content"):
        if item.get(key) is None:
            raise DataError(f"{where}: '{place}' has no `{key}`{nearest(key, item)}; mend this row.")
    role = item["role"]
    if role not in ROLES:
        raise DataError(
            f"{where}: '{place}' has the role {role!r}{nearest(str(role), ROLES)}; mend this row."
        )
    content = item["content"]
    if isinstance(content, list):
        content = "".join(_part(part, where, place) for part in content)
    # Parquet writes absent keys as null; a template must not see those.
    rest = {key: kept for key, kept in item.items() if kept is not None}
    return {**rest, "role": role, "content": as_text(content, where, place, allow_empty=role != "user")}


def _part(part: Any, where: str, place: str) -> str:
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return str(part["text"])
    raise DataError(
        f"{where}: '{place}' holds a part that is not text; only text is trained, remove the row."
    )


def as_prompt(value: Any, where: str, column: str = "prompt") -> tuple[Message, ...]:
    """Return a prompt: a string becomes one user message, a list must end with the user's (or a tool's) turn.

    Raises:
        DataError: the text or the messages are not usable, or the last turn is not the user's.
    """
    if value is None or isinstance(value, str):
        return ({"role": "user", "content": as_text(value, where, column)},)
    messages = as_messages(value, where, column)
    last = messages[-1]["role"]
    if last not in ("user", "tool"):
        raise DataError(
            f"{where}: '{column}' ends with a turn of '{last}', but a prompt must end with the user's; "
            "move the answer into the column `completion`."
        )
    return messages


def as_reply(value: Any, where: str, column: str) -> str:
    """Return one answer as text: a string, or a list that holds exactly one assistant message.

    Raises:
        DataError: anything else.
    """
    if value is None or isinstance(value, str):
        return as_text(value, where, column, allow_empty=value is not None)
    messages = as_messages(value, where, column)
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        roles = ", ".join(message["role"] for message in messages)
        raise DataError(
            f"{where}: '{column}' must be one assistant turn, not ({roles}); put earlier turns into `prompt`."
        )
    return messages[0]["content"]
