"""Check the texts and chat messages that a row carries, and bring them into one form."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.data.dialogue_text import is_open_dialogue, parse_dialogue
from trimtab.errors import DataError, nearest
from trimtab.types import Conversation, Message

ROLES = ("system", "developer", "user", "assistant", "tool")
REASONING = ("reasoning_content", "reasoning", "thinking")
# What other tools call these roles: ShareGPT, LLaMA-Factory, older chat formats.
_OTHER_ROLES = {
    **dict.fromkeys(("human", "prompter"), "user"),
    **dict.fromkeys(
        ("gpt", "chatgpt", "bard", "bing", "claude", "model", "bot", "chatbot", "ai"), "assistant"
    ),
    **dict.fromkeys(("observation", "function", "function_response", "ipython"), "tool"),
}
_CALL_ROLES = ("function_call", "tool_call")
_ROLE_KEYS, _CONTENT_KEYS = ("role", "from"), ("content", "value")
NOT_TEXT = ("image", "images", "audio", "audios", "video", "videos")
Reply = str | tuple[Message, ...]


def as_text(value: Any, where: str, column: str, *, allow_empty: bool = False) -> str:
    """Return ``value`` when it is usable text.

    Raises:
        DataError: it is missing, not a string, empty (unless allowed), or holds broken Unicode.
    """
    if not isinstance(value, str):
        is_missing = value is None or value != value  # NaN is how tables write a missing text
        shown = "missing" if is_missing else f"a {type(value).__name__}"
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
    """Return chat messages as plain mappings with ``role`` and ``content`` strings.

    ``value`` is a list, the JSON text of one, or a text ``Human: … Assistant: …``. Messages may be ShareGPT's
    (``from``, ``value``). Content given as a list of text parts is joined, and ``content: null`` beside tool
    calls is empty. Other keys of a message (``name``, ``reasoning_content``) are kept.

    Raises:
        DataError: not a list of objects with ``role`` and ``content``, an unknown role, or not text.
    """
    if isinstance(value, str):
        value = _messages_in_json(value) or parse_dialogue(value) or value
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise DataError(
            f"{where}: '{column}' must be text or a non-empty list of messages "
            '{"role": ..., "content": ...}; mend this row.'
        )
    return tuple(_message(item, where, f"{column}[{index}]") for index, item in enumerate(value))


def _messages_in_json(text: str) -> list[Any] | None:
    """The messages that a text is the JSON of; None where it is something else."""
    if not text.lstrip().startswith("["):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    is_list = isinstance(found, list) and bool(found) and all(isinstance(item, dict) for item in found)
    return found if is_list and all({"role", "from"} & item.keys() for item in found) else None


def _message(item: Any, where: str, place: str) -> Message:
    if not isinstance(item, Mapping):
        raise DataError(f"{where}: '{place}' is not an object with `role` and `content`; mend this row.")
    # Null says that a message does not have the key; a template must not see it.
    given = {key: kept for key, kept in item.items() if kept is not None}
    seen = next((key for key in NOT_TEXT if given.get(key)), None)
    if seen is not None:
        raise DataError(
            f"{where}: '{place}' has '{seen}', which is not text; only text is trained, remove the row."
        )
    role = _role(given, where, place)
    calls = _tool_calls(given, role, where, place)
    content_key = next((key for key in _CONTENT_KEYS if key in given), None)
    is_silent = bool(calls) or any(given.get(key) for key in REASONING)
    if content_key is None and not is_silent:
        others = [key for key in item if key not in _CONTENT_KEYS]
        close = nearest("content", others)
        hint = close if "did you mean" in close else ""
        raise DataError(f"{where}: '{place}' has no `content`{hint}; mend this row.")
    content: Any = "" if content_key is None or str(given.get("from")) in _CALL_ROLES else given[content_key]
    if isinstance(content, (list, tuple)):
        content = "".join(_part(part, where, place) for part in content)
    own = (*_ROLE_KEYS[: 1 if "role" in given else 2], content_key, "tool_calls", "function_call")
    rest = {key: kept for key, kept in given.items() if key not in own}
    for key in REASONING:
        if key in rest and not as_text(rest[key], where, f"{place}.{key}", allow_empty=True).strip():
            del rest[key]
    text = as_text(content, where, place, allow_empty=role != "user")
    return {**rest, "role": role, "content": text, **({"tool_calls": calls} if calls else {})}


def _role(given: Mapping[str, Any], where: str, place: str) -> str:
    key = next((key for key in _ROLE_KEYS if key in given), None)
    if key is None:
        close = nearest("role", given)
        hint = close if "did you mean" in close else ""
        raise DataError(f"{where}: '{place}' has no `role`{hint}; mend this row.")
    role = str(given[key])
    if role in _CALL_ROLES:
        return "assistant"
    known = _OTHER_ROLES.get(role.lower(), role.lower())
    if known not in ROLES:
        raise DataError(f"{where}: '{place}' has the role {role!r}{nearest(role, ROLES)}; mend this row.")
    return known


def _tool_calls(given: Mapping[str, Any], role: str, where: str, place: str) -> list[dict[str, Any]]:
    """The tool calls of a message in the form of transformers: objects with ``function``."""
    calls: Any = given.get("tool_calls")
    if not calls and "function_call" in given:
        calls = [given["function_call"]]
    if not calls and str(given.get("from", given.get("role"))) in _CALL_ROLES:
        calls = given.get("value", given.get("content"))
    if isinstance(calls, str):
        try:
            calls = json.loads(calls)
        except ValueError:
            raise DataError(
                f"{where}: the tool calls of '{place}' are not valid JSON; mend this row."
            ) from None
    if not calls:
        return []
    if role != "assistant":
        raise DataError(f"{where}: '{place}' has tool calls but the role '{role}'; only the assistant calls.")
    return [_call(call, where, place) for call in (calls if isinstance(calls, (list, tuple)) else [calls])]


def _call(call: Any, where: str, place: str) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise DataError(f"{where}: a tool call of '{place}' has no function with a `name`; mend this row.")
    inner = {key: value for key, value in function.items() if value is not None}
    arguments = inner.get("arguments", {})
    if isinstance(arguments, str):
        try:
            parsed = json.loads(arguments or "{}")
        except ValueError:
            parsed = None
        arguments = parsed if isinstance(parsed, dict) else arguments
    outer = {key: value for key, value in call.items() if value is not None} if function is not call else {}
    return {**outer, "type": "function", "function": {**inner, "arguments": arguments}}


def _part(part: Any, where: str, place: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type", "") if isinstance(part, Mapping) else ""
    shown = f"of the type '{kind}'" if kind else "without a text"
    raise DataError(
        f"{where}: '{place}' holds a part {shown}, which is not text; only text is trained, remove the row."
    )


def as_prompt(value: Any, where: str, column: str = "prompt") -> Conversation:
    """Return a prompt: a string becomes one user message, a list must end with the user's (or a tool's) turn.

    A string that is the JSON of messages, or a dialogue ``Human: … Assistant:`` that waits for its answer, is
    read as its turns.

    Raises:
        DataError: the text or the messages are not usable, or the last turn is not the user's.
    """
    if value is None or isinstance(value, float) or (isinstance(value, str) and not _is_dialogue(value)):
        return Conversation(({"role": "user", "content": as_text(value, where, column)},))
    messages = as_messages(value, where, column)
    last = messages[-1]["role"]
    if last not in ("user", "tool"):
        raise DataError(
            f"{where}: '{column}' ends with a turn of '{last}', but a prompt must end with the user's; "
            "move the answer into the column `completion`."
        )
    return Conversation(messages)


def _is_dialogue(text: str) -> bool:
    return is_open_dialogue(text) or _messages_in_json(text) is not None


def as_reply(value: Any, where: str, column: str) -> Reply:
    """Return one answer: text, or its one assistant message where that says more than text.

    Raises:
        DataError: it is not text and not exactly one assistant message.
    """
    if value is None or isinstance(value, (str, float)):
        return as_text(value, where, column, allow_empty=value is not None)
    messages = as_messages([value] if isinstance(value, Mapping) else value, where, column)
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        roles = ", ".join(message["role"] for message in messages)
        raise DataError(
            f"{where}: '{column}' must be one assistant turn, not ({roles}); put earlier turns into `prompt`."
        )
    return messages if says_more(messages[0]) else str(messages[0]["content"])


def says_more(message: Message) -> bool:
    """Whether a message has more than content: reasoning, tool calls, or that it is not trained."""
    return any(message.get(key) for key in (*REASONING, "tool_calls")) or not is_trained(message)


def is_trained(message: Message) -> bool:
    """Whether an assistant turn is learned: ``weight`` (OpenAI) 0 and ``train`` (others) false say no."""
    return bool(message.get("weight", 1)) and bool(message.get("train", True))
