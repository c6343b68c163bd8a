"""How a chat template reads what a message has beside its text, found by trying: tool calls, reasoning."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from trimtab.data.messages import REASONING
from trimtab.types import Message

_MARK, _KEY = "q7mark7q", "q7key7q"
_USER = {"role": "user", "content": "a"}


@dataclass(frozen=True, slots=True)
class TemplateForms:
    """What a template reads: the key of the reasoning, and in which form it takes tool calls.

    ``reasoning`` is None where no key is read, ``takes_calls`` False where calls are not written.
    """

    reasoning: str | None
    takes_calls: bool
    arguments_as_text: bool  # the JSON text of the arguments, not an object
    null_content: bool  # content beside tool calls must be null, not empty
    repeats: bool  # an answer's words are written more than once
    parts: bool  # content must be a list of parts, as templates of models that see images have it


# tokenizer -> (its template, the forms); asked for every row of a data set.
_KNOWN: WeakKeyDictionary[Any, tuple[str, TemplateForms]] = WeakKeyDictionary()


def forms_of(tokenizer: Any) -> TemplateForms:
    """Return the forms that the tokenizer's chat template reads, tried once for each template."""
    key = str(tokenizer.chat_template)
    known = _KNOWN.get(tokenizer)
    if known is None or known[0] != key:
        known = _KNOWN[tokenizer] = (key, _try_forms(tokenizer))
    return known[1]


def for_template(tokenizer: Any, messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return the messages as the template reads them: its name for reasoning, its form of tool calls."""
    forms = forms_of(tokenizer)
    return [_one(dict(message), forms) for message in messages]


def _one(message: dict[str, Any], forms: TemplateForms) -> dict[str, Any]:
    key = _reasoning_key(message)
    if key and forms.reasoning and forms.reasoning not in message:
        message[forms.reasoning] = message.pop(key)
    if message.get("tool_calls"):
        if forms.null_content and not message.get("content"):
            message["content"] = None
        if forms.arguments_as_text:
            message["tool_calls"] = [_as_text(call) for call in message["tool_calls"]]
    if forms.parts and isinstance(message.get("content"), str):
        message["content"] = [{"type": "text", "text": message["content"]}] if message["content"] else []
    return message


def _reasoning_key(message: Message) -> str | None:
    return next((key for key in REASONING if message.get(key)), None)


def _as_text(call: Mapping[str, Any]) -> dict[str, Any]:
    function = dict(call["function"])
    if not isinstance(function.get("arguments"), str):
        function["arguments"] = json.dumps(function.get("arguments") or {}, ensure_ascii=False)
    return {**call, "function": function}


def _try_forms(tokenizer: Any) -> TemplateForms:
    plain = {"role": "assistant", "content": _MARK}
    parts = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in (_USER, plain)]
    needs_parts = _MARK not in _written(tokenizer, _USER, plain) and _MARK in _written(tokenizer, *parts)
    if needs_parts:
        repeats = _written(tokenizer, *parts).count(_MARK) > 1
        return TemplateForms(None, False, False, False, repeats, True)
    reasoning = next((key for key in REASONING if _MARK in _reasoned(tokenizer, key)), None)
    repeats = _written(tokenizer, _USER, plain).count(_MARK) > 1
    for content in ("", None):
        # An object first: a text would be quoted a second time by `tojson`.
        written = _called(tokenizer, content, {_KEY: _MARK})
        if _KEY in written and _MARK in written and f"'{_KEY}'" not in written:
            return TemplateForms(reasoning, True, False, content is None, repeats, False)
        written = _called(tokenizer, content, json.dumps({_KEY: _MARK}))
        if f'"{_KEY}"' in written and _MARK in written:
            return TemplateForms(reasoning, True, True, content is None, repeats, False)
    return TemplateForms(reasoning, False, False, False, repeats, False)


def _reasoned(tokenizer: Any, key: str) -> str:
    return _written(tokenizer, _USER, {"role": "assistant", "content": "b", key: _MARK})


def _called(tokenizer: Any, content: str | None, arguments: Any) -> str:
    # Mistral's templates refuse a call whose id has not nine letters and digits.
    call = {"id": "q7call7q7", "type": "function", "function": {"name": "q7name7q", "arguments": arguments}}
    written = _written(tokenizer, _USER, {"role": "assistant", "content": content, "tool_calls": [call]})
    return written if "q7name7q" in written else ""


def _written(tokenizer: Any, *turns: Mapping[str, Any]) -> str:
    """The template's text of an exchange; empty where it refuses it."""
    try:
        return str(tokenizer.apply_chat_template([dict(turn) for turn in turns], tokenize=False))
    except Exception:  # a template may fail in any way on what it does not know
        return ""
