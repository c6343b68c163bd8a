"""Prompts and pairs as token ids through the chat template, with exact completion masks.

Templates are rendered by transformers in its immutable Jinja sandbox only. Token ids are made once: what is
trained after the prompt is what an engine would have had to sample after the very same prompt ids (trap 12).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from trimtab.errors import DataError, ModelError
from trimtab.types import Message


def render(tokenizer: Any, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
    """Return the conversation as the text that the chat template makes of it.

    Raises:
        ModelError: the tokenizer has no chat template.
        DataError: the template refuses these messages (for example two user turns in a row).
    """
    text = _apply(tokenizer, messages, add_generation_prompt, tokenize=False, where="the conversation")
    return str(text)


def encode_prompt(
    tokenizer: Any, messages: Sequence[Message], max_tokens: int | None = None, *, where: str = "the prompt"
) -> tuple[int, ...]:
    """Return the token ids of a prompt, with the beginning of the assistant's turn.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        messages: the conversation, ending with the user's turn.
        max_tokens: a longer prompt is an error.
        where: what an error calls this prompt, such as ``row 17``.

    Raises:
        ModelError: the tokenizer has no chat template.
        DataError: the template refuses the messages, or the prompt is over ``max_tokens``.
    """
    ids = token_ids(tokenizer, messages, add_generation_prompt=True, where=where)
    if max_tokens is not None and len(ids) > max_tokens:
        raise DataError(
            f"{where} has {len(ids)} tokens, over the limit of {max_tokens}: "
            "shorten or remove it, or raise rl.max_prompt_tokens."
        )
    return ids


def token_ids(
    tokenizer: Any, messages: Sequence[Message], *, add_generation_prompt: bool, where: str
) -> tuple[int, ...]:
    """Return the conversation's token ids; see :func:`encode_prompt` for the errors."""
    ids = _apply(tokenizer, messages, add_generation_prompt, tokenize=True, where=where)
    return tuple(int(i) for i in ids)


def _apply(
    tokenizer: Any, messages: Sequence[Message], add_generation_prompt: bool, *, tokenize: bool, where: str
) -> Any:
    if not getattr(tokenizer, "chat_template", None):
        name = getattr(tokenizer, "name_or_path", "") or "this model"
        raise ModelError(
            f"The tokenizer of {name} has no chat template: give one with model.chat_template = "
            '"FILE.jinja", or start from an instruct model.'
        )
    try:
        return tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            add_generation_prompt=add_generation_prompt,
            tokenize=tokenize,
            **({"return_dict": False} if tokenize else {}),
        )
    except TemplateError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
        raise DataError(
            f"The chat template refuses {where} ({reason}): change its turns or model.chat_template."
        ) from None
