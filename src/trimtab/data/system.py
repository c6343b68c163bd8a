"""The system turn and the past of a dialogue where a row has them in columns of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trimtab.data.columns import variables_of
from trimtab.data.messages import NOT_TEXT, as_messages, as_text
from trimtab.data.sources import Row
from trimtab.errors import DataError
from trimtab.types import Conversation, Message

_COLUMNS = ("system", "system_prompt")
# What a recipe may map `history` to.
_ASKED = ("prompt", "messages", "conversations", "question", "query", "input", "instruction")


def with_system(messages: Sequence[Message], row: Row) -> Conversation:
    """Return the turns with the text of the column ``system`` (or ``system_prompt``) as their first.

    Those of the column ``history`` come next. The row's ``tools`` and other variables of its chat template
    go with them.

    Raises:
        DataError: the turns have another system turn already, or the row has images or sounds.
    """
    seen = next((name for name in NOT_TEXT if row.values.get(name)), None)
    if seen is not None:
        raise DataError(
            f"{row.where}: the column '{seen}' would not be seen by the model, for only text is trained; "
            f'remove the row, or leave the column out with columns = {{ {seen} = "" }}.'
        )
    given = next((row.values[name] for name in _COLUMNS if isinstance(row.values.get(name), str)), "")
    turns = list(messages)
    is_led = turns[0]["role"] in ("system", "developer")
    turns[is_led:is_led] = past_turns(row)
    if given.strip():
        first = turns[0]
        if first["role"] not in ("system", "developer"):
            turns.insert(0, {"role": "system", "content": as_text(given, row.where, "system")})
        elif str(first["content"]).strip() != given.strip():
            raise DataError(
                f"{row.where}: the column of the system prompt and the first turn say different things; "
                'leave one out, for example with columns = { system = "" }.'
            )
    return Conversation(turns, variables_of(row))


def past_turns(row: Row) -> list[Message]:
    """Return the turns of the column ``history``: [user, assistant] texts (LLaMA-Factory, Swift) or messages.

    Nothing where the column is itself what was mapped to be the prompt.

    Raises:
        DataError: it is of another form.
    """
    history = row.values.get("history")
    if not history or history != history or any(history == row.values.get(name) for name in _ASKED):
        return []
    if isinstance(history, (list, tuple)) and all(isinstance(turn, Mapping) for turn in history):
        return list(as_messages(history, row.where, "history"))
    fix = 'mend this row, or leave the column out with columns = { history = "" }.'
    if not isinstance(history, (list, tuple)):
        raise DataError(f"{row.where}: 'history' must be a list of [user's text, answer]; {fix}")
    turns: list[Message] = []
    for number, pair in enumerate(history):
        place = f"history[{number}]"
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise DataError(f"{row.where}: '{place}' must be [user's text, answer]; {fix}")
        for role, text in zip(("user", "assistant"), pair, strict=True):
            turns.append({"role": role, "content": as_text(text, row.where, place)})
    return turns
