"""The directory of a trained reward: its model, tokenizer and card, whichever stage made it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trimtab.config.user_text import read_user_text
from trimtab.errors import ModelError

# Stage that trains it: what it is called, and the kind of head that it has.
_KINDS = {
    "reward_model": ("reward model", "sequence"),
    "process_reward": ("process reward model", "token"),
}


def read_card(path: str | Path, name: str) -> dict[str, Any]:
    """Return the JSON object ``name`` beside a model; empty when there is no such file.

    Raises:
        ModelError: the file is there but is not a JSON object.
    """
    file = Path(path) / name
    if not file.is_file():
        return {}
    text = read_user_text(file, "the card", ModelError)
    try:
        card = json.loads(text)
    except ValueError as error:
        raise ModelError(f"{file} is not valid JSON ({error}); train the reward model again.") from None
    if not isinstance(card, dict):
        raise ModelError(f"{file} is not a JSON object; train the reward model again.")
    return card


def load_trained(stage: str, path: str, tokenizer: Any = None, device: str | None = None) -> tuple[Any, Any]:
    """Load what ``stage`` (``reward_model`` or ``process_reward``) wrote: the model and its tokenizer.

    Args:
        stage: which of the two is expected at ``path``.
        path: its directory.
        tokenizer: taken instead of the one in the directory.
        device: cpu, cuda, cuda:N; None takes a GPU where there is one.

    Raises:
        ModelError: the directory holds another kind of model, or none.
    """
    from trimtab.models import load

    name, kind = _KINDS[stage]
    tokenizer = tokenizer or load.load_tokenizer(path)
    is_right = load.is_sequence_classifier if kind == "sequence" else load.is_token_classifier
    if not is_right(path):
        raise ModelError(
            f"{path} is no {name} (a {kind} classifier): train one with the stage {stage} and give "
            "its directory."
        )
    settings: dict[str, Any] = {"pad_token_id": tokenizer.pad_token_id, "device": device}
    if kind == "sequence":
        return load.load_sequence_classifier(path, **settings), tokenizer
    return load.load_token_classifier(path, num_labels=None, **settings), tokenizer
