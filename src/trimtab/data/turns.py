"""The end of an assistant's turn, defined once: SFT trains it, the engine stops at it, reward models read up
to it, and a saved model names it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from jinja2 import TemplateError

from trimtab.errors import ModelError

_MARK = "Q7mark7Q"
# Templates differ in which conversations they take: without a system turn, or only with one.
_TALKS = (
    ({"role": "user", "content": "a"}, {"role": "assistant", "content": _MARK}),
    (
        {"role": "system", "content": "b"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": _MARK},
    ),
)
# tokenizer -> (its template and end token, how a turn ends); asked for every row of a data set.
_KNOWN: WeakKeyDictionary[Any, tuple[str, Ending]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Ending:
    """How an assistant's turn ends.

    ``token_id`` is the one that is trained and sampled; None where there is neither a closing token of the
    template nor an EOS token. ``closing`` is the text that the template writes after the assistant's words;
    None where it renders no conversation. ``is_written`` says that the template itself writes the token.
    """

    token_id: int | None
    closing: str | None
    is_written: bool


def ending(tokenizer: Any) -> Ending:
    """Return how the chat template ends an assistant's turn.

    The end is the first special (or added) token after the assistant's words, or the tokenizer's EOS token
    where there is none: ChatML gives ``<|im_end|>`` (without the newline that follows it), Llama 3
    ``<|eot_id|>``, a template that ends turns with a line break the EOS token.
    """
    key = f"{tokenizer.chat_template}\0{tokenizer.eos_token_id}\0{len(tokenizer)}"
    known = _KNOWN.get(tokenizer)
    if known is None or known[0] != key:
        known = _KNOWN[tokenizer] = (key, _find(tokenizer))
    return known[1]


def turn_end(tokenizer: Any) -> tuple[int, ...]:
    """Return the ids that end an assistant's turn; see :func:`ending`.

    Raises:
        ModelError: the tokenizer has neither a closing token in its template nor an EOS token.
    """
    found = ending(tokenizer).token_id
    if found is None:
        raise ModelError(
            "The tokenizer has no EOS token and its chat template no closing token, so no completion could "
            "ever end: set `eos_token` in tokenizer_config.json."
        )
    return (found,)


def end_ids(tokenizer: Any, *configs: Any) -> tuple[int, ...]:
    """Return every id that ends a completion, the end of a turn first, then EOS, then those of ``configs``.

    A config is anything with ``eos_token_id`` (an id, a list of ids or None): a model's config, its
    generation config, or None.
    """
    found = [ending(tokenizer).token_id, tokenizer.eos_token_id]
    for config in configs:
        found += eos_of(config)
    return tuple(dict.fromkeys(int(i) for i in found if i is not None))


def eos_of(config: Any) -> list[int]:
    """The end tokens that a config names, those of its text part included."""
    parts = [config]
    if hasattr(config, "get_text_config"):
        parts.append(config.get_text_config())
    found: list[int] = []
    for part in parts:
        ids = getattr(part, "eos_token_id", None)
        found += [ids] if isinstance(ids, int) else list(ids or [])
    return list(dict.fromkeys(found))


def special_ids(tokenizer: Any) -> frozenset[int]:
    """The ids that are no ordinary text: special tokens and added ones."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return frozenset(int(i) for i in (*tokenizer.all_special_ids, *added))


def _find(tokenizer: Any) -> Ending:
    closing = _closing(tokenizer)
    eos = None if tokenizer.eos_token_id is None else int(tokenizer.eos_token_id)
    if closing is not None:
        token = _first(tokenizer.encode(closing, add_special_tokens=False), special_ids(tokenizer))
        if token is not None:
            return Ending(token, closing, is_written=True)
    return Ending(eos, closing, is_written=False)


def _first(ids: Iterable[Any], wanted: frozenset[int]) -> int | None:
    return next((int(i) for i in ids if int(i) in wanted), None)


def _closing(tokenizer: Any) -> str | None:
    """What the template writes after the assistant's last words."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    for talk in _TALKS:
        try:
            text = tokenizer.apply_chat_template([dict(turn) for turn in talk], tokenize=False)
        except (TemplateError, ValueError, KeyError, TypeError, IndexError):
            continue  # it refuses this conversation: rows that it refuses get a sentence of their own
        _, found, closing = str(text).rpartition(_MARK)
        if found:
            return closing
    return None
