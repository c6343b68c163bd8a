"""What a reward model reads: a conversation as its chat template writes it, from beginning to end.

Publishers score ``apply_chat_template(conversation)`` and read the classifier's logit at its last token. So
what the template writes behind the end of the turn (ChatML: a line break) is read too, and what it does to an
answer (Llama 3 trims it) is done here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from trimtab.data import render
from trimtab.types import Conversation, Message

_MARK = "Q7mark7Q"


def encode_for_reward(
    tokenizer: Any, messages: Sequence[Message], response: str, max_length: int = 1024
) -> list[int]:
    """Return the token ids that a reward model reads: the conversation with the response, as rendered.

    Cut to ``max_length`` tokens from the left of the prompt and never from the response: one that is longer
    than the limit by itself is kept whole, without a prompt. Special tokens that a response spells out
    ("<|im_end|>") are read as plain text, so that it cannot close its turn and praise itself.

    Raises:
        ModelError: the tokenizer has no chat template.
        DataError: the template refuses the messages.
    """
    before, answer, behind = _parts(tokenizer, messages, response)
    spelled = _spelled_tokens(tokenizer, answer, before + behind)
    tail = [*_plain_ids(tokenizer, answer, spelled), *_ids(tokenizer, behind)]
    # As one text, so that tokens may reach across the borders as they do where the model is served.
    whole = [*_ids(tokenizer, before), *tail] if spelled else _ids(tokenizer, before + answer + behind)
    return whole[-max(max_length, len(tail)) :]


def _parts(tokenizer: Any, messages: Sequence[Message], response: str) -> tuple[str, str, str]:
    """The rendered text before the answer, the answer as the template writes it, and the text behind it."""
    frame = render(tokenizer, _with_answer(messages, _MARK))
    before, _, behind = frame.rpartition(_MARK)
    text = render(tokenizer, _with_answer(messages, response))
    if text.startswith(before) and text.endswith(behind) and len(text) >= len(before) + len(behind):
        return before, text[len(before) : len(text) - len(behind)], behind
    # The template writes this answer in another frame; all behind the common beginning may be the answer's.
    common = next((i for i, (a, b) in enumerate(zip(text, before, strict=False)) if a != b), len(before))
    return text[:common], text[common:], ""


def _with_answer(messages: Sequence[Message], answer: str) -> Conversation:
    variables = messages.variables if isinstance(messages, Conversation) else {}
    return Conversation([*messages, {"role": "assistant", "content": answer}], variables)


def _spelled_tokens(tokenizer: Any, answer: str, frame: str) -> list[str]:
    """Special tokens, and added tokens of the template's own frame, that an answer spells out."""
    added = [str(token.content) for token in getattr(tokenizer, "added_tokens_decoder", {}).values()]
    framing = {token for token in added if token and token in frame}
    tokens = {*map(str, tokenizer.all_special_tokens), *framing}
    return sorted((token for token in tokens if token in answer), key=lambda token: (-len(token), token))


def _plain_ids(tokenizer: Any, text: str, spelled: Sequence[str]) -> list[int]:
    """Ids of a text in which no spelled token becomes that token: it is cut behind its first character."""
    if not spelled:
        return _ids(tokenizer, text)
    cuts = [0, *(match.start() + 1 for match in re.finditer("|".join(map(re.escape, spelled)), text))]
    pieces = [text[a:b] for a, b in zip(cuts, [*cuts[1:], len(text)], strict=True)]
    return [i for piece in pieces for i in _ids(tokenizer, piece, split_special_tokens=True)]


def _ids(tokenizer: Any, text: str, **options: bool) -> list[int]:
    return [int(i) for i in tokenizer(text, add_special_tokens=False, **options)["input_ids"]]
