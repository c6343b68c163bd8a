"""Dialogues written as one text: ``\\n\\nHuman: … \\n\\nAssistant: …`` (HH-RLHF) and its relatives."""

from __future__ import annotations

import re
from dataclasses import dataclass

# What opens a turn of the user, and what opens one of the assistant, by family.
_FAMILIES = (
    ("Human", "Assistant"),
    ("User", "Assistant"),
    ("### Human", "### Assistant"),
    ("### User", "### Assistant"),
    ("### Instruction", "### Response"),
    ("USER", "ASSISTANT"),
    ("Question", "Answer"),
    ("Q", "A"),
)


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: who speaks, where its marker begins, where its words begin, and the words."""

    role: str
    start: int
    begin: int
    content: str


def parse_turns(text: str) -> list[Turn]:
    """Return the turns of a dialogue that is one text; empty where it is none.

    A text is one when it begins with a user's marker and has an assistant's marker after it. Turns alternate:
    a marker that repeats the one before it belongs to the words of its turn. Where a blank line stands before
    the first assistant's marker, one stands before each: ``Human:`` within a line or at its beginning is then
    said, not a turn.

    Example:
        >>> [(turn.role, turn.content) for turn in parse_turns("\\n\\nHuman: hi\\n\\nAssistant: hello")]
        [('user', 'hi'), ('assistant', 'hello')]
    """
    for user, assistant in _FAMILIES:
        opening = re.match(rf"\s*{re.escape(user)}:", text)
        if not opening:
            continue
        first = re.search(rf"\n\s*{re.escape(assistant)}:", text)
        if not first:
            continue
        break_ = r"\n\n" if first[0].startswith("\n\n") else r"\n"
        marker = re.compile(rf"{break_}({re.escape(user)}|{re.escape(assistant)}):")
        turns = [("user", 0, opening.end())]
        for found in marker.finditer(text, opening.end()):
            role = "user" if found[1] == user else "assistant"
            if role != turns[-1][0]:
                turns.append((role, found.start(), found.end()))
        ends = [start for _, start, _ in turns[1:]] + [len(text)]
        return [
            Turn(role, start, begin, text[begin:end].strip())
            for (role, start, begin), end in zip(turns, ends, strict=True)
        ]
    return []


def parse_dialogue(text: str) -> list[dict[str, str]] | None:
    """Return the turns of a dialogue as messages; a last assistant's turn without words is left out."""
    turns = parse_turns(text)
    if len(turns) > 1 and turns[-1].role == "assistant" and not turns[-1].content:
        turns = turns[:-1]
    return [{"role": turn.role, "content": turn.content} for turn in turns] or None


def is_open_dialogue(text: str) -> bool:
    """Whether a text is HH-RLHF's dialogue that ends with the marker of an assistant's turn, for its answer.

    The other families also serve as plain prompts ("Q: 2+2? A:"), which stay as they are written.
    """
    if not re.match(r"\s*Human:", text) or not re.search(r"\n\nAssistant:\s*$", text):
        return False
    turns = parse_turns(text)
    return bool(turns) and turns[-1].role == "assistant" and not turns[-1].content


def split_at_answer(chosen: str, rejected: str) -> int | None:
    """Return where both dialogues' answers begin in their texts: after an assistant's marker that they share.

    The last such marker before the texts part. None where the texts are no dialogues, or share no marker.

    Example:
        >>> split_at_answer("Human: a?\\n\\nAssistant: I can.", "Human: a?\\n\\nAssistant: I will not.")
        21
    """
    ours, theirs = parse_turns(chosen), parse_turns(rejected)
    at = None
    for one, other in zip(ours, theirs, strict=False):
        if (one.role, one.begin) != (other.role, other.begin) or chosen[: one.begin] != rejected[: one.begin]:
            break
        if one.role == "assistant":
            at = one.begin
    return at
