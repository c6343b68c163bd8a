"""Steps of a solution: how a completion is split into them, and what of them a process reward model reads.

Training and reward use the same two functions, so a step ends for both at the same token.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from trimtab.data import encode_prompt
from trimtab.errors import ModelError
from trimtab.types import Message

NUMBERED = "numbered"
# "1." "2)" "3、" "(4)" "Step 5:" "第6步" "步骤 7：" at the beginning of a line.
_DIGITS = "[\\d一二三四五六七八九十]{1,4}"
_NUMBER = re.compile(
    r"[ \t]{0,8}(?:\*\*)?(?:[(（]?\d{1,3}(?:[)）、:：]|\.(?!\d))|step[ \t]{0,4}\d{1,3}\b"
    rf"|第[ \t]?{_DIGITS}[ \t]?步|步骤[ \t]?{_DIGITS})",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class EncodedSteps:
    """Token ids of a prompt and its steps, and the position of the last token of every step."""

    token_ids: tuple[int, ...]
    ends: tuple[int, ...]


def split_steps(text: str, separator: str = "\n") -> list[str]:
    """Return the steps of a completion, white space around each removed, empty ones left out.

    ``separator`` is the text between two steps (a line break: every line is a step). The word ``numbered``
    starts a step at each line that begins with a number ("1.", "2)", "Step 3:", "第4步"); the lines before
    the first one are a step, and a text without such a line is split into lines.

    Example:
        >>> split_steps("3+5=8\\n\\n8-2=6\\n")
        ['3+5=8', '8-2=6']
        >>> split_steps("1. Add:\\n3+5=8\\n2. Take 2: 6", "numbered")
        ['1. Add:\\n3+5=8', '2. Take 2: 6']
    """
    if separator == NUMBERED:
        pieces = _numbered(text.splitlines())
    elif separator == "\n":
        pieces = text.splitlines()
    else:
        pieces = text.split(separator)
    return [piece.strip() for piece in pieces if piece.strip()]


def _numbered(lines: Sequence[str]) -> list[str]:
    starts = [number for number, line in enumerate(lines) if _NUMBER.match(line)]
    if not starts:
        return list(lines)
    edges = [0, *starts, len(lines)]
    return ["\n".join(lines[a:b]) for a, b in pairwise(edges)]


def encode_steps(
    tokenizer: Any,
    messages: Sequence[Message],
    steps: Sequence[str],
    separator: str = "\n",
    max_length: int = 1024,
) -> EncodedSteps:
    """Return what a process reward model reads: the prompt, then every step followed by the separator.

    A step ends at the last token of the separator behind it (a line break where steps are ``numbered``), for
    only there is it certain that the step is over: "=1" may go on as "=16". Cut to ``max_length`` tokens from
    the left of the prompt, never from the steps. Special tokens that a step spells out are read as text.

    Raises:
        ModelError: the tokenizer has no chat template, or makes no token of the separator.
        DataError: the template refuses the messages.
    """
    between = _text_ids(tokenizer, "\n" if separator == NUMBERED else separator)
    if not between:
        raise ModelError(f"The tokenizer makes no token of the step separator {separator!r}; choose another.")
    answer: list[int] = []
    ends: list[int] = []
    for step in steps:
        answer += [*_text_ids(tokenizer, step), *between]
        ends.append(len(answer) - 1)
    prompt = fit_prompt(encode_prompt(tokenizer, messages), len(answer), max_length)
    return EncodedSteps((*prompt, *answer), tuple(len(prompt) + end for end in ends))


def fit_prompt(prompt: Sequence[int], answer_length: int, max_length: int) -> Sequence[int]:
    """Return the end of the prompt that fits before an answer; nothing where the answer fills the limit."""
    room = max(0, max_length - answer_length)
    return prompt[-room:] if room else ()


def _text_ids(tokenizer: Any, text: str) -> list[int]:
    encoded = tokenizer(text, add_special_tokens=False, split_special_tokens=True)
    return [int(i) for i in encoded["input_ids"]]
