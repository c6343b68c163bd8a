"""An SFT row as token ids and an exact mask of what is trained: assistant turns and their ends (trap 13)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.data.chat import refuse_lost, render, token_ids
from trimtab.data.fidelity import TAG, is_open, lost_of, tags_of
from trimtab.data.messages import REASONING, Reply, is_trained, says_more
from trimtab.data.template_forms import forms_of
from trimtab.data.turns import turn_end
from trimtab.errors import DataError
from trimtab.types import Conversation, Message

_MARK = "q7mark7q"
_OPENS = (
    "The generation prompt of the chat template opens a reasoning block ({tag}), which the answer of {where} "
    "does not begin with: put its reasoning, or an empty block, before the answer, or change "
    "model.chat_template."
)
_CLOSES = (
    "The generation prompt of the chat template writes a whole reasoning block ({block!r}) and the answer of "
    "{where} brings its own: leave that one out, or give a template without it with model.chat_template "
    "(where it has a switch: the column chat_template_kwargs)."
)


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """Token ids [T] of prompt and completion, and a mask [T] that is True on what is trained."""

    token_ids: tuple[int, ...]
    completion_mask: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True, slots=True)
class _Turn:
    """One assistant turn: the ids that a model is given before it, the ids it must say, and these as text."""

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    text: str


def encode_pair(
    tokenizer: Any,
    prompt: Sequence[Message],
    completion: str | Sequence[Message],
    *,
    where: str = "the pair",
) -> EncodedPair:
    """Return the ids of a pair and the mask of its assistant turns, each turn's end token included.

    An empty prompt means plain text. See :func:`encode_row` for what is trained.

    Raises:
        ModelError: the tokenizer has no chat template, or nothing that ends a turn.
        DataError: as encode_row, or the template rewrites earlier turns, so that one sequence cannot hold
            all.
    """
    rows = encode_row(tokenizer, prompt, completion, where=where)
    if len(rows) > 1:
        raise DataError(
            f"The chat template rewrites earlier turns of {where}, so its assistant turns cannot all be "
            "trained exactly: split it into one row per assistant turn, or change model.chat_template."
        )
    return rows[0]


def encode_row(
    tokenizer: Any,
    prompt: Sequence[Message],
    completion: str | Sequence[Message],
    *,
    where: str = "the pair",
) -> list[EncodedPair]:
    """Return what is trained of a row: each assistant turn after exactly the ids that a model would see.

    Those are the ids of the turns before it with the generation prompt. What follows is the template's own
    text of the turn where that says all that the row says, once; else, for a turn that is text alone, the
    text itself without what the generation prompt has already opened. Then comes the turn's end. All turns
    are one sequence where each turn's ids go on from those before, and a sequence of their own from where a
    template rewrites what came before (reasoning of the past left out, as a rule).

    Raises:
        ModelError: the tokenizer has no chat template, or nothing that ends a turn.
        DataError: the template refuses the messages, or what a turn says cannot be trained once and in order.
    """
    if not prompt:
        return [_plain_text(tokenizer, completion, where)]
    turns: Sequence[Message] = (
        ({"role": "assistant", "content": completion},) if isinstance(completion, str) else completion
    )
    variables = prompt.variables if isinstance(prompt, Conversation) else {}
    messages = Conversation([*prompt, *turns], variables)
    rows: list[EncodedPair] = []
    ids: tuple[int, ...] = ()
    mask: list[bool] = []
    seen = 0
    for index in range(len(prompt), len(messages)):
        if messages[index]["role"] != "assistant" or not is_trained(messages[index]):
            continue
        turn = _turn(tokenizer, messages, index, where, seen)
        seen = index + 1  # not lost where the template leaves it out of what follows: it is trained here
        if ids and turn.prompt_ids[: len(ids)] != ids:
            rows.append(EncodedPair(ids, tuple(mask)))
            mask = []
        mask += [False] * (len(turn.prompt_ids) - len(mask)) + [True] * len(turn.answer_ids)
        ids = (*turn.prompt_ids, *turn.answer_ids)
    if not ids:
        raise DataError(
            f"{where} has no assistant turn to train (`weight` 0 or `train` false): remove the row."
        )
    return [*rows, EncodedPair(ids, tuple(mask))]


def reply_text(tokenizer: Any, prompt: Sequence[Message], reply: Reply, *, where: str = "the row") -> str:
    """Return an answer as the text that a policy would have to write: tool calls as the template has them.

    Raises:
        DataError: the template does not write what the answer says.
    """
    if isinstance(reply, str):
        return reply
    variables = prompt.variables if isinstance(prompt, Conversation) else {}
    messages = Conversation([*prompt, *reply], variables)
    return _turn(tokenizer, messages, len(prompt), where, 0).text


def _plain_text(tokenizer: Any, text: str | Sequence[Message], where: str) -> EncodedPair:
    if not isinstance(text, str):
        raise DataError(f"{where} begins with an assistant turn: put a user turn before it.")
    ids = [int(i) for i in tokenizer.encode(text, add_special_tokens=False)]
    end = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    begin = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
    mask = [False] * len(begin) + [True] * (len(ids) + len(end))
    return EncodedPair((*begin, *ids, *end), tuple(mask))


def _turn(tokenizer: Any, messages: Conversation, index: int, where: str, seen: int) -> _Turn:
    """The assistant turn at ``index``; the turns from ``seen`` to it are checked for what is left out."""
    before, message = Conversation(messages[:index], messages.variables), messages[index]
    through = Conversation(messages[: index + 1], messages.variables)
    head = render(tokenizer, before, add_generation_prompt=True, where=where)
    refuse_lost(tokenizer, before, head, where, range(seen, index))
    prompt_ids = token_ids(tokenizer, before, add_generation_prompt=True, where=where)
    past, whole = render(tokenizer, before, where=where), render(tokenizer, through, where=where)
    # What the generation prompt writes after the turns before it: a role, perhaps a block that it opens.
    opening = _beyond(head, past)
    ends = turn_end(tokenizer)
    written = _written_after(whole, head, past, opening)
    lost = lost_of(message, "", _beyond(whole, past)) or "what the generation prompt begins"
    if written is not None:
        end = str(tokenizer.decode(list(ends)))
        body = written.rpartition(end)[0] if end in written else written
        lost = lost_of(message, opening, body) or ""
        if not lost and forms_of(tokenizer).repeats:
            lost = "its content once only"
        if not lost:
            tail = "" if end in written else _tail(tokenizer, before, head)
            body = body[: len(body) - len(tail)] if tail and body.endswith(tail) else body
            ids = _rendered_ids(tokenizer, through, prompt_ids, written, ends, where)
            return _Turn(prompt_ids, ids or (*_ids(tokenizer, body), *ends), body)
    if says_more(message):
        raise DataError(_refusal(message, opening, lost, where))
    text = _after_opening(str(message["content"]), opening, where)
    return _Turn(prompt_ids, (*_ids(tokenizer, text), *ends), text)


def _written_after(whole: str, head: str, past: str, opening: str) -> str | None:
    """What the template's text of the turns has after the generation prompt; None where it goes on otherwise.

    Where the prompt opens a reasoning block, a block that the template closes at once in another way of
    spacing counts as the same block.
    """
    if whole.startswith(head):
        return whole[len(head) :]
    if not is_open(opening):
        return None
    tag = tags_of(opening)[-1]
    _, found, rest = _beyond(whole, past).partition(tag)
    return rest.removeprefix(opening.rpartition(tag)[2]) if found else None


def _refusal(message: Message, opening: str, lost: str, where: str) -> str:
    """Why a turn that is more than text cannot be trained."""
    has_reasoning = any(message.get(key) for key in REASONING)
    if is_open(opening) and not has_reasoning:
        return _OPENS.format(tag=tags_of(opening)[-1], where=where)
    if tags_of(opening) and has_reasoning and not is_open(opening):
        return _CLOSES.format(block=_block(opening).strip(), where=where)
    return (
        f"The chat template does not write {lost} in an assistant turn of {where}, so it would be lost: "
        "give a template that does with model.chat_template, or put it into `content` as the model is to "
        "write it."
    )


def _rendered_ids(
    tokenizer: Any,
    through: Conversation,
    prompt_ids: tuple[int, ...],
    written: str,
    ends: Sequence[int],
    where: str,
) -> tuple[int, ...] | None:
    """The answer's ids as the template's whole text has them, or those of the answer alone where they merge.

    None where the template writes nothing that ends a turn.
    """
    whole = token_ids(tokenizer, through, add_generation_prompt=False, where=where)
    is_prefix = whole[: len(prompt_ids)] == prompt_ids
    answer = whole[len(prompt_ids) :] if is_prefix else tuple(_ids(tokenizer, written))
    last = next((i + 1 for i in range(len(answer) - 1, -1, -1) if answer[i] in ends), None)
    return None if last is None else answer[:last]


def _beyond(text: str, start: str) -> str:
    """What ``text`` has after the longest beginning that it shares with ``start``."""
    shared = next((i for i, (a, b) in enumerate(zip(text, start, strict=False)) if a != b), len(start))
    return text[shared:]


def _ids(tokenizer: Any, text: str) -> list[int]:
    return [int(i) for i in tokenizer.encode(text, add_special_tokens=False)]


def _tail(tokenizer: Any, before: Conversation, head: str) -> str:
    """What the template writes after an answer's words, where no token ends a turn."""
    probe = Conversation([*before, {"role": "assistant", "content": _MARK}], before.variables)
    return render(tokenizer, probe)[len(head) :].partition(_MARK)[2]


def _after_opening(content: str, opening: str, where: str) -> str:
    """An answer without what the generation prompt has already written of it.

    Raises:
        DataError: the prompt opens a reasoning block that the answer does not have, or has closed one and the
            answer brings its own.
    """
    tags = tags_of(opening)
    if not tags:
        return content
    block = _block(opening)
    bare = content.lstrip()
    if is_open(opening):
        if not bare.startswith(tags[-1]):
            raise DataError(_OPENS.format(tag=tags[-1], where=where))
        rest, space = bare[len(tags[-1]) :], block.rpartition(tags[-1])[2]
        return rest.removeprefix(space)
    if bare.startswith(block.strip()):
        return bare[len(block.strip()) :].lstrip()
    if TAG.search(content):
        raise DataError(_CLOSES.format(block=block.strip(), where=where))
    return content


def _block(opening: str) -> str:
    """What the generation prompt writes from its first tag of a reasoning block on."""
    return opening[opening.index(tags_of(opening)[0]) :]
