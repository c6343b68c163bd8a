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

_OWN = '"FILE.py:function"'


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


def load_scorer_tokenizer(path: str, chat_template: str | None = None) -> Any:
    """Load the tokenizer of a model that scores and is not trained: any padding will do.

    ``chat_template`` names a Jinja file for a tokenizer that has no template of its own.

    Raises:
        ModelError: no tokenizer, or no template at all.
    """
    from trimtab.models.load import load_tokenizer

    return load_tokenizer(path, is_scorer=True, default_template=chat_template)


def load_trained(stage: str, path: str, tokenizer: Any, device: str | None = None) -> Any:
    """Load the model that ``stage`` (``reward_model`` or ``process_reward``) wrote, or one like it.

    Args:
        stage: which of the two is expected at ``path``.
        path: its directory.
        tokenizer: the directory's own.
        device: cpu, cuda, cuda:N; None takes a GPU where there is one.

    Raises:
        ModelError: the directory holds another kind of model, one whose scores cannot be read, or none.
    """
    from trimtab.models import load

    check_trained(stage, path)
    name, kind = _KINDS[stage]
    if kind == "sequence":
        model = load.load_sequence_classifier(path, num_labels=None, pad_token_id=None, device=device)
    else:
        pad = tokenizer.pad_token_id
        model = load.load_token_classifier(path, num_labels=None, pad_token_id=pad, device=device)
    if model.config.num_labels > 2:
        raise ModelError(
            f"{path} has {model.config.num_labels} labels; a {name} has 1, or 2 (the second is the good "
            f"one). Score with it in a function of your own: rewards = [{_OWN}]."
        )
    return model


def check_trained(stage: str, path: str) -> None:
    """Refuse a directory whose scores cannot be read, from its config and the headers of its weights alone.

    Raises:
        ModelError: it holds another kind of model, an encoder's classifier, or a head of another name.
    """
    from trimtab.models import load

    name, kind = _KINDS[stage]
    is_right = load.is_sequence_classifier if kind == "sequence" else load.is_token_classifier
    if not is_right(path):
        found = ", ".join(load.architectures(path)) or "nothing that its config.json names"
        raise ModelError(
            f"{path} is no {name} (a {kind} classifier): it holds {found}. Train one with the stage {stage}, "
            f"or score with it in a function of your own: rewards = [{_OWN}]."
        )
    if any(stored.endswith("score.weight") for stored in load.stored_names(path)):
        return
    raise ModelError(
        f"{path} ({', '.join(load.architectures(path))}) has no tensor score.weight, the score head on a "
        f"causal trunk, so it cannot be used as a {name} here: rename the tensor if its head has another "
        f"name, or score with it in a function of your own: rewards = [{_OWN}]."
    )
