"""Is what a row says in what a chat template writes of it: once, in order, and not inside an open block?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trimtab.data.messages import REASONING
from trimtab.types import Message

_NAMES = r"(?:think|thinking|thoughts?|reasoning|reason|analysis|scratchpad|reflection|cot)"
# The opening and closing tags of reasoning blocks that models are published with.
TAG = re.compile(
    rf"<(?P<close>/)?(?:\w+:)?(?P<name>{_NAMES})>|\[(?P<close2>/)?(?P<name2>THINK)\]"
    rf"|<\|(?P<edge>begin|start|end)_of_(?P<name3>{_NAMES})\|>|<\|(?P<close4>/)?(?P<name4>{_NAMES})\|>"
    r"|◁(?P<close5>/)?(?P<name5>think)▷",
    re.IGNORECASE,
)


def is_closing(tag: re.Match[str]) -> bool:
    """Whether a match of ``TAG`` ends a block."""
    found = tag.groupdict()
    return found["edge"] == "end" or any(found[key] for key in ("close", "close2", "close4", "close5"))


def tags_of(text: str) -> list[str]:
    """The tags of reasoning blocks in a text, in order."""
    return [found[0] for found in TAG.finditer(text)]


def is_open(text: str) -> bool:
    """Whether a text ends inside a reasoning block."""
    found = list(TAG.finditer(text))
    return bool(found) and not is_closing(found[-1])


def pieces_of(text: str) -> list[str]:
    """What a text says between the tags of its reasoning blocks, without white space around it.

    Example:
        >>> pieces_of("<think>\\n2+3 is 5.\\n</think>\\n\\n5")
        ['2+3 is 5.', '5']
    """
    edges = [0, *(edge for found in TAG.finditer(text) for edge in found.span()), len(text)]
    pieces = [text[edges[i] : edges[i + 1]].strip() for i in range(0, len(edges), 2)]
    return [piece for piece in pieces if piece]


def lost_of(message: Message, opening: str, answer: str) -> str | None:
    """Say what of an assistant's message is not, or not once, in the ``answer`` that follows ``opening``.

    Args:
        opening: what the generation prompt writes after the turns before: the head of the assistant's turn.
        answer: what the template writes after the generation prompt, up to the end of the turn.

    Returns:
        What is lost, doubled or misplaced, as words for a sentence; None where nothing is.
    """
    content = str(message.get("content") or "")
    reasoning = [str(message[key]).strip() for key in REASONING if message.get(key)]
    calls = list(message.get("tool_calls") or ())
    said = "\n".join([content, *reasoning, *(repr(call) for call in calls)])
    for words in reasoning:
        if words not in answer:
            return f"`{next(key for key in REASONING if message.get(key))}`"
    for call in calls:
        if not _is_called(call, answer):
            return "`tool_calls`"
    position = 0
    for piece in pieces_of(content):
        found = answer.find(piece, position)
        if found < 0:
            return f"'{_short(piece)}' of its content"
        position = found + len(piece)
    for piece in (*pieces_of(content), *reasoning):
        if answer.count(piece) > max(1, said.count(piece)) and len(piece) > 3:
            return f"'{_short(piece)}' once only (it is written {answer.count(piece)} times)"
    return _misplaced(content, bool(reasoning), opening, answer)


def _misplaced(content: str, has_reasoning: bool, opening: str, answer: str) -> str | None:
    """Blocks that the row does not have, beside an empty one of the template's own."""
    written, own = tags_of(opening + answer), tags_of(content)
    if written == own:
        return None
    if is_open(opening + answer) and not is_open(content):
        return "the end of the reasoning block that it opens"
    if own or len(written) > 2:
        return f"its reasoning block once (it writes {' '.join(written) or 'none'})"
    is_empty = len(written) == 2 and not _between(opening + answer).strip()
    return None if is_empty or has_reasoning else "the answer outside of a reasoning block"


def _between(text: str) -> str:
    first, last = list(TAG.finditer(text))[:2]
    return text[first.end() : last.start()]


def _is_called(call: Mapping[str, Any], answer: str) -> bool:
    """Whether a call's name and every word and number of its arguments are in the answer."""
    function = call["function"]
    return str(function["name"]) in answer and all(
        leaf in answer for leaf in _leaves(function.get("arguments") or {})
    )


def _leaves(value: Any) -> Iterator[str]:
    """Names and plain words of arguments, in a form that no way of quoting changes."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(str(key))
            yield from _leaves(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, str):
        yield from re.findall(r"[A-Za-z0-9_]+", value)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def call_names(message: Message) -> list[str]:
    """The names of the functions that a message calls."""
    return [str(call["function"]["name"]) for call in message.get("tool_calls") or ()]


def spoken(message: Message) -> str:
    """What a template must keep of a turn of the past: its words, without reasoning before them."""
    pieces = pieces_of(str(message.get("content") or ""))
    return pieces[-1] if pieces else ""


def tool_names(tools: Sequence[Any]) -> list[str]:
    """The names in a list of tools, as descriptions of functions give them."""
    return [
        str(tool.get("function", tool).get("name", ""))
        for tool in tools
        if isinstance(tool, Mapping) and isinstance(tool.get("function", tool), Mapping)
    ]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 40 else f"{line[:39]}…"
