"""Prompts and pairs as token ids through the chat template, with exact completion masks.

Templates are rendered by transformers in its immutable Jinja sandbox only. Token ids are made once: what is
trained after the prompt is what an engine would have had to sample after the very same prompt ids (trap 12).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from trimtab.data.fidelity import call_names, spoken, tool_names
from trimtab.data.template_forms import for_template
from trimtab.errors import DataError, ModelError
from trimtab.types import Conversation, Message

_MARK = "Q7mark7Q"
_CHANGE = 'give a template that does with model.chat_template = "FILE.jinja"'


def render(
    tokenizer: Any,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool = False,
    where: str = "the conversation",
) -> str:
    """Return the conversation as the text that the chat template makes of it.

    The ``variables`` of a :class:`Conversation` (``tools``) are given to the template.

    Raises:
        ModelError: the tokenizer has no chat template.
        DataError: the template refuses these messages (for example two user turns in a row).
    """
    text = _apply(tokenizer, messages, add_generation_prompt, tokenize=False, where=where)
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
        DataError: the template refuses the messages or leaves something out that they say, or the prompt is
            over ``max_tokens``.
    """
    ids = token_ids(tokenizer, messages, add_generation_prompt=True, where=where)
    text = render(tokenizer, messages, add_generation_prompt=True, where=where)
    refuse_lost(tokenizer, messages, text, where)
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


def refuse_lost(
    tokenizer: Any, messages: Sequence[Message], text: str, where: str, checked: range | None = None
) -> None:
    """Raise when the template leaves out of ``text``, its own, what the messages (those ``checked``) say.

    What a template changes (lower case, trimmed) is what a model sees and is let through; so is reasoning of
    the past, which templates leave out by design.

    Raises:
        DataError: a turn's words, a tool call or the tools are not written at all.
    """
    for index in range(len(messages)) if checked is None else checked:
        message = messages[index]
        words = spoken(message)
        if words and words not in text and _is_left_out(tokenizer, messages, index):
            raise DataError(
                f"The chat template leaves out the words of a '{message['role']}' turn of {where}: change "
                "model.chat_template, or the row."
            )
        if message["role"] != "tool" and str(message.get("name") or "") not in text:
            # A tool's name is that of its call; who speaks among several would be new to the model.
            warnings.warn("the chat template does not write the `name` of a turn of the data", stacklevel=2)
        if any(name not in text for name in call_names(message)):
            raise DataError(f"The chat template does not write the `tool_calls` of {where}: {_CHANGE}.")
    tools = messages.variables.get("tools") if isinstance(messages, Conversation) else None
    if tools and any(name not in text for name in tool_names(tools)):
        raise DataError(
            f"The chat template does not write the column `tools` of {where}: {_CHANGE}, or leave the column "
            'out with columns = { tools = "" }.'
        )


def _is_left_out(tokenizer: Any, messages: Sequence[Message], index: int) -> bool:
    """Whether a message may say what it likes and the template writes none of it."""
    changed = [*messages[:index], {**messages[index], "content": _MARK}, *messages[index + 1 :]]
    variables = messages.variables if isinstance(messages, Conversation) else {}
    text = render(tokenizer, Conversation(changed, variables), add_generation_prompt=True)
    return _MARK.lower() not in text.lower()


def _apply(
    tokenizer: Any, messages: Sequence[Message], add_generation_prompt: bool, *, tokenize: bool, where: str
) -> Any:
    if not getattr(tokenizer, "chat_template", None):
        name = getattr(tokenizer, "name_or_path", "") or "this model"
        raise ModelError(
            f"The tokenizer of {name} has no chat template: give one with model.chat_template = "
            '"FILE.jinja", or start from an instruct model.'
        )
    variables = messages.variables if isinstance(messages, Conversation) else {}
    try:
        return tokenizer.apply_chat_template(
            for_template(tokenizer, messages),
            add_generation_prompt=add_generation_prompt,
            tokenize=tokenize,
            **variables,
            **({"return_dict": False} if tokenize else {}),
        )
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
        raise DataError(
            f"The chat template refuses {where} ({reason}): change its turns or model.chat_template."
        ) from None
