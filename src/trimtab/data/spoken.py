"""Whether tokens say what a row says: every text of the row is in the decoded tokens, and once.

Nothing here knows how rows are encoded. Tokens are decoded and compared with the row's own texts, white space
aside, so that a template that drops, repeats or rewrites something is seen.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from trimtab.types import Message

# Keys of a message that hold words, beside `content`: publishers spell the reasoning differently.
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
_BLOCKS = "think|thinking|thought|reasoning|reason|analysis|scratchpad"
_SHORT = 4  # letters below which a text may stand in the template's own words


def texts_of(message: Message, *, with_reasoning: bool = True) -> list[str]:
    """The texts that a message says: reasoning, content, and names and arguments of its tool calls."""
    found = []
    if with_reasoning:
        found += [message[key] for key in REASONING_KEYS if isinstance(message.get(key), str)]
    content: Any = message.get("content")
    if isinstance(content, str):
        found.append(content)
    elif isinstance(content, Sequence):
        found += [part["text"] for part in content if isinstance(part, Mapping) and part.get("text")]
    found += list(_leaves(message.get("tool_calls")))
    return [text for text in found if text.strip()]


def find_difference(texts: Sequence[str], decoded: str) -> str | None:
    """Return how ``decoded`` differs from ``texts``: what is missing, or there too often; None where it fits.

    Example:
        >>> find_difference(["<think>why</think>", "yes"], "yes<|im_end|>")
        "'<think>why</think>' is missing"
    """
    whole = _squeezed(decoded)
    parts = Counter(part for text in texts if (part := _squeezed(text)))
    originals = {_squeezed(text): text for text in texts}
    for part, times in parts.items():
        if whole.count(part) < times and not (part not in whole and _is_escaped(originals[part], whole)):
            return f"{_first_missing(originals[part], whole)!r} is missing"
    rest = whole
    for part in sorted(parts, key=len, reverse=True):
        rest = rest.replace(part, "\0", parts[part])
    for part in parts:
        if (len(part) >= _SHORT and part in rest) or rest.strip("\0") == part:
            return f"{_shown(originals[part])!r} is there more than once"
    return None


def find_open_block(before: str, answer: str) -> str | None:
    """Return what is wrong where ``answer`` follows ``before``: a reasoning block that the prompt opened is
    opened again or never closed, or the prompt holds an empty one beside the answer's own.

    Example:
        >>> find_open_block("assistant\\n<think>\\n", "5")
        "the answer stands inside an open '<think>'"
    """
    if found := re.search(rf"<({_BLOCKS})>\s*$", before):
        tag = found[1]
        if re.match(rf"\s*<{tag}>", answer):
            return f"'<{tag}>' is opened twice"
        if f"</{tag}>" not in answer:
            return f"the answer stands inside an open '<{tag}>'"
    elif (found := re.search(rf"<({_BLOCKS})>\s*</\1>\s*$", before)) and f"<{found[1]}>" in answer:
        return f"an empty '<{found[1]}>' block stands before the answer's own"
    return None


def open_tag(before: str) -> str:
    """The reasoning tag that ``before`` ends with, ``<think>`` or ``[THINK]``; empty where it ends otherwise.

    Example:
        >>> open_tag("assistant\\n<think>\\n")
        '<think>'
    """
    found = re.search(rf"(<(?:{_BLOCKS})>|\[(?:{_BLOCKS})\])\s*$", before, re.IGNORECASE)
    return found[1] if found else ""


def stretches(tokenizer: Any, token_ids: Sequence[int], mask: Sequence[bool]) -> list[tuple[str, str]]:
    """Every stretch of trained tokens as text, each with the text of the tokens before it, prompt and all."""
    starts = [i for i, m in enumerate(mask) if m and (i == 0 or not mask[i - 1])]
    found = []
    for start in starts:
        end = next((i for i in range(start, len(mask)) if not mask[i]), len(mask))
        parts = (list(token_ids[:start]), list(token_ids[start:end]))
        before, answer = (
            tokenizer.decode(part, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            if part
            else ""
            for part in parts
        )
        found.append((before, answer))
    return found


def decoded(
    tokenizer: Any,
    token_ids: Sequence[int],
    mask: Sequence[bool],
    *,
    trained: bool,
    without: Collection[int] = (),
) -> str:
    """The text of the tokens whose ``mask`` equals ``trained``, stretch by stretch.

    The ids ``without`` (the end of a turn) are left out where they close a stretch.
    """
    pieces: list[list[int]] = [[]]
    for token, is_trained in zip(token_ids, mask, strict=True):
        if is_trained == trained:
            pieces[-1].append(token)
        elif pieces[-1]:
            pieces.append([])
    for piece in pieces:
        if piece and piece[-1] in without:
            piece.pop()
    texts = [
        tokenizer.decode(piece, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        for piece in pieces
        if piece
    ]
    return "\n".join(texts)


def round_trip(tokenizer: Any, text: str) -> str:
    """What the tokenizer alone makes of a text: a letter that it has no token for is lost by it, not by a
    template."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _leaves(value: Any) -> Iterator[str]:
    """Texts and numbers inside a tool call; arguments may be JSON in a text."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key not in ("id", "type"):
                yield from _leaves(item)
    elif isinstance(value, str):
        try:
            inner = json.loads(value) if value.lstrip()[:1] in ("{", "[") else None
        except ValueError:
            inner = None
        yield from _leaves(inner) if inner is not None else [value]
    elif isinstance(value, Sequence):
        for item in value:
            yield from _leaves(item)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _is_escaped(text: str, whole: str) -> bool:
    """Whether ``whole`` holds ``text`` as JSON writes it."""
    return any(_squeezed(json.dumps(text, ensure_ascii=ascii)[1:-1]) in whole for ascii in (False, True))


def _first_missing(text: str, whole: str) -> str:
    words = text.split()
    return _shown(next((word for word in words if _squeezed(word) not in whole), text))


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 40 else f"{line[:39]}…"


def _squeezed(text: str) -> str:
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", text))
