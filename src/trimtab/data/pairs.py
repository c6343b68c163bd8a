"""An SFT pair as token ids and an exact mask of what is trained: assistant turns and their ends (trap 13)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.data.chat import render, token_ids
from trimtab.data.turns import turn_end
from trimtab.errors import DataError
from trimtab.types import Message

_GENERATION_TAG = re.compile(r"\{%-?\s*generation\b")


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """Token ids [T] of prompt and completion, and a mask [T] that is True on what is trained."""

    token_ids: tuple[int, ...]
    completion_mask: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.token_ids)


def encode_pair(
    tokenizer: Any,
    prompt: Sequence[Message],
    completion: str | Sequence[Message],
    *,
    where: str = "the pair",
) -> EncodedPair:
    """Return the ids of a pair and the mask of its assistant turns, each turn's end token included.

    The ids of the prompt with generation prompt must be a prefix of the ids of the whole conversation. Where
    the template or a merge across the border breaks that, the pair is put together by hand from the prompt's
    ids, the completion's ids and the turn's end: exactly what an engine would have had to sample. What the
    template writes after the last turn's end (a newline) is left out. An empty prompt means plain text.

    Raises:
        ModelError: the tokenizer has no chat template, or nothing that ends a turn.
        DataError: the template refuses the messages, or rewrites earlier turns so that no mask is exact.
    """
    if not prompt:
        return _plain_text(tokenizer, completion, where)
    turns: Sequence[Message]
    turns = ({"role": "assistant", "content": completion},) if isinstance(completion, str) else completion
    messages = [*prompt, *turns]
    ends = turn_end(tokenizer)
    if len(turns) > 1 and _GENERATION_TAG.search(str(tokenizer.chat_template)):
        return _trim(_tagged(tokenizer, messages, len(prompt), ends, where), ends)
    found = _by_prefixes(tokenizer, messages, len(prompt), ends, where)
    return found if found is not None else _by_hand(tokenizer, messages, len(prompt), ends, where)


def _plain_text(tokenizer: Any, text: str | Sequence[Message], where: str) -> EncodedPair:
    if not isinstance(text, str):
        raise DataError(f"{where} begins with an assistant turn: put a user turn before it.")
    ids = [int(i) for i in tokenizer.encode(text, add_special_tokens=False)]
    end = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    begin = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
    mask = [False] * len(begin) + [True] * (len(ids) + len(end))
    return EncodedPair((*begin, *ids, *end), tuple(mask))


def _by_prefixes(
    tokenizer: Any, messages: Sequence[Message], start: int, ends: Sequence[int], where: str
) -> EncodedPair | None:
    """Mask by incremental prefixes; None when the ids of a shorter conversation are no prefix."""
    whole = token_ids(tokenizer, messages, add_generation_prompt=False, where=where)
    mask = [False] * len(whole)
    for index in range(start, len(messages)):
        if messages[index]["role"] != "assistant":
            continue
        before = token_ids(tokenizer, messages[:index], add_generation_prompt=True, where=where)
        after = whole
        if index + 1 < len(messages):
            after = token_ids(tokenizer, messages[: index + 1], add_generation_prompt=False, where=where)
        stop = _last_end(after, len(before), ends)
        if whole[: len(before)] != before or stop is None or whole[:stop] != after[:stop]:
            return None
        mask[len(before) : stop] = [True] * (stop - len(before))
    return _trim(EncodedPair(whole, tuple(mask)), ends)


def _last_end(ids: Sequence[int], begin: int, ends: Sequence[int]) -> int | None:
    """Return the position after the last turn end at or after ``begin``."""
    return next((i + 1 for i in range(len(ids) - 1, begin - 1, -1) if ids[i] in ends), None)


def _trim(pair: EncodedPair, ends: Sequence[int]) -> EncodedPair:
    """Leave out what follows the last trained token."""
    stop = max((i + 1 for i, trained in enumerate(pair.completion_mask) if trained), default=0)
    return EncodedPair(pair.token_ids[:stop], pair.completion_mask[:stop])


def _tagged(
    tokenizer: Any, messages: Sequence[Message], start: int, ends: Sequence[int], where: str
) -> EncodedPair:
    """Take the mask of a template with ``{% generation %}``, mended at the turn's end."""
    out = tokenizer.apply_chat_template(
        [dict(message) for message in messages],
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    ids = tuple(int(i) for i in out["input_ids"])
    mask = [bool(m) for m in out["assistant_masks"]]
    prompt = token_ids(tokenizer, messages[:start], add_generation_prompt=True, where=where)
    mask[: len(prompt)] = [False] * len(prompt)  # assistant turns of the prompt are context
    for i in range(len(ids)):
        follows = i > 0 and mask[i - 1]
        if follows and ids[i - 1] in ends:
            mask[i] = False  # the newline after the turn's end
        elif follows and ids[i] in ends:
            mask[i] = True  # templates differ on whether the tag encloses the turn's end
    if not any(mask):
        raise DataError(f"The chat template's generation tags mark nothing in {where}: mend the template.")
    return EncodedPair(ids, tuple(mask))


def _by_hand(
    tokenizer: Any, messages: Sequence[Message], start: int, ends: Sequence[int], where: str
) -> EncodedPair:
    """Prompt ids, then for each assistant turn its text's ids and the turn's end, and what lies between."""
    ids: list[int] = list(token_ids(tokenizer, messages[:start], add_generation_prompt=True, where=where))
    mask = [False] * len(ids)
    for index in range(start, len(messages)):
        if messages[index]["role"] != "assistant":
            continue
        if index > start:
            between = _between(tokenizer, messages, start, index, ends, where)
            ids.extend(between)
            mask.extend([False] * len(between))
        start = index
        content = [int(i) for i in tokenizer.encode(messages[index]["content"], add_special_tokens=False)]
        ids.extend((*content, *ends))
        mask.extend([True] * (len(content) + len(ends)))
    return EncodedPair(tuple(ids), tuple(mask))


def _between(
    tokenizer: Any, messages: Sequence[Message], previous: int, index: int, ends: Sequence[int], where: str
) -> list[int]:
    """Return the ids of the turns between two assistant turns, generation prompt included."""
    head = render(tokenizer, messages[: previous + 1])
    text = render(tokenizer, messages[:index], add_generation_prompt=True)
    if not text.startswith(head):
        raise DataError(
            f"The chat template rewrites earlier turns of {where}, so its assistant turns cannot all be "
            "trained exactly: split it into one row per assistant turn, or change model.chat_template."
        )
    closing = tokenizer.decode(list(ends))
    tail = head[head.rindex(closing) + len(closing) :] if closing in head else ""
    return [int(i) for i in tokenizer.encode(tail + text[len(head) :], add_special_tokens=False)]
