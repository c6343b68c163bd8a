"""Tokenizers that are fit for training: a chat template, an end token, and padding that is not the end."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import Any

from trimtab.config.user_text import read_user_text
from trimtab.data.turns import end_ids, ending
from trimtab.errors import ModelError
from trimtab.models.generation import embedding_rows
from trimtab.models.paths import resolve_model_path

# Special tokens that a vocabulary may hold and that may serve as padding, best first.
_PADDING = ("<|pad|>", "<pad>", "[PAD]", "<|padding|>", "<|finetune_right_pad_id|>", "<|endoftext|>", "<unk>")


def load_tokenizer(
    path: str | os.PathLike[str],
    chat_template: str | None = None,
    *,
    is_scorer: bool = False,
    default_template: str | None = None,
) -> Any:
    """Load the tokenizer of a model directory and check what training needs of it.

    ``chat_template`` names a Jinja file that replaces the model's own template, ``default_template`` one that
    stands in where the model has none. When padding is missing or is the token that ends a turn, another
    special token of the vocabulary takes its place, with a warning; a model that only scores (``is_scorer``)
    needs no end token, and any padding will do.

    Raises:
        ModelError: no tokenizer, no chat template, no end token, or no token left for padding.
    """
    from transformers import AutoTokenizer

    folder = resolve_model_path(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise ModelError(f"the tokenizer in {folder} cannot be loaded ({_first_line(error)})") from error
    if chat_template is not None:
        tokenizer.chat_template = _read_template(chat_template)
    if not tokenizer.chat_template and default_template is not None:
        tokenizer.chat_template = _read_template(default_template)
    if not tokenizer.chat_template:
        fix = "set model.chat_template = FILE (Jinja)"
        if is_scorer:
            fix = (
                "give the Jinja file that it was trained with: the reward's option chat_template, "
                "or model.chat_template"
            )
        raise ModelError(f"{folder} has no chat template; {fix}")
    if is_scorer:
        return tokenizer
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{folder} has no end token; set eos_token in its tokenizer_config.json")
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id, ending(tokenizer).token_id):
        _choose_padding(tokenizer, folder)
    return tokenizer


def eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return every token id that ends a completion: the end of a turn, and each EOS that anything names.

    Those of the generation config, the model config and the tokenizer, and the token with which the chat
    template closes the assistant's turn (:func:`trimtab.data.turns.ending`). ``model`` may be None.
    """
    configs = (getattr(model, "generation_config", None), getattr(model, "config", None))
    found = frozenset(end_ids(tokenizer, *configs))
    if model is None:
        return found
    rows = embedding_rows(model)  # what a config names beyond them can be neither sampled nor barred
    return frozenset(token for token in found if token < rows)


def _choose_padding(tokenizer: Any, folder: str) -> None:
    why = "no padding token" if tokenizer.pad_token_id is None else "padding equal to its end token"
    old, end = tokenizer.pad_token_id, ending(tokenizer).token_id
    vocabulary = tokenizer.get_vocab()
    added = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    reserved = sorted(token for token in added if re.search(r"pad|reserved|unused", token, re.IGNORECASE))
    for token in (*_PADDING, tokenizer.unk_token, *reserved):
        if token in vocabulary and vocabulary[token] not in (end, tokenizer.eos_token_id):
            tokenizer.pad_token = token
            break
    else:
        # Masks go by position, so EOS hides nothing as padding where turns end with another token.
        if tokenizer.eos_token_id == end:
            raise ModelError(
                f"the tokenizer in {folder} has {why}, so a model could not learn to stop; add a pad token "
                'to it (tokenizer.add_special_tokens({"pad_token": "<|pad|>"}), then resize the embeddings)'
            )
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id != old:
        warnings.warn(
            f"the tokenizer in {folder} has {why}; padding with {tokenizer.pad_token}", stacklevel=3
        )


def _read_template(file: str) -> str:
    path = Path(file)
    if not path.is_file():
        raise ModelError(f"there is no chat template {file}; point model.chat_template at a Jinja file")
    return read_user_text(path, "the chat template", ModelError)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
