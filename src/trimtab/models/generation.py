"""What a model directory says about generation: read so that it can be saved again, and saved so that every
program stops where this one does (R38)."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from trimtab.data.chat import render
from trimtab.data.turns import end_ids, ending
from trimtab.errors import TrimtabError

# Settings that only mean something while sampling: with them, `do_sample` was forgotten.
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "top_h")
_PROBES = (
    ({"role": "user", "content": "a"},),
    ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}),
    (
        {"role": "system", "content": "c"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
    ),
)


def generation_fault(generation: Any) -> str | None:
    """Why transformers would refuse to save this generation config; None where it would not."""
    from trimtab.models.quiet import quiet

    if generation is None:
        return None
    try:
        with quiet():
            generation.validate(strict=True)
        generation.to_json_string()
    except Exception as error:  # whatever it is, `save_pretrained` would meet it at the end of the run
        lines = [line.strip(" -") for line in str(error).strip().splitlines() if line.strip()]
        said = next((line for line in lines if "`" in line), lines[0] if lines else type(error).__name__)
        return " ".join(said.split())[:200].rstrip(". ")
    return None


def unreadable_generation(folder: str) -> str | None:
    """Why transformers refuses even to read the directory's generation config; None where it does not."""
    from transformers import GenerationConfig

    from trimtab.models.quiet import quiet

    if not (Path(folder) / "generation_config.json").is_file():
        return None
    try:
        with quiet():
            GenerationConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        return " ".join(str(error).split())[:200].rstrip(". ")
    return None


def mend_generation(model: Any) -> str | None:
    """Make the model's generation config one that can be saved; return what was wrong with it, or None.

    Sampling settings without ``do_sample`` get it, since they say that sampling was meant. Anything else is
    replaced by a plain config that keeps the special tokens.
    """
    generation = getattr(model, "generation_config", None)
    fault = generation_fault(generation)
    if fault is None or generation is None:
        return None
    sampling = copy.deepcopy(generation)
    sampling.do_sample = True
    is_sampling = any(getattr(generation, name, None) is not None for name in _SAMPLING)
    if is_sampling and generation_fault(sampling) is None:
        model.generation_config = sampling
        return (
            "generation_config.json has settings for sampling but no do_sample, which transformers refuses "
            "to save; it will say do_sample = true"
        )
    model.generation_config = _plain(generation)
    return f"generation_config.json cannot be saved as it is ({fault}); only its special tokens are kept"


def _plain(generation: Any) -> Any:
    from transformers import GenerationConfig

    kept = ("eos_token_id", "pad_token_id", "bos_token_id", "decoder_start_token_id")
    return GenerationConfig(**{name: getattr(generation, name, None) for name in kept})


@contextmanager
def saved_settings(model: Any, tokenizer: Any) -> Iterator[None]:
    """While it lasts, model and tokenizer hold what is to be saved: every end token, and the padding.

    ``config.json`` and ``generation_config.json`` name all ends, that of a turn first, so that plain
    ``generate`` and servers stop where the engine here does. The tokenizer's EOS becomes the end of a turn,
    unless its template or its encoding would then write something else.
    """
    generation = getattr(model, "generation_config", None)
    ends = _known_ends(model, end_ids(tokenizer, generation, model.config))
    eos = ends[0] if len(ends) == 1 else list(ends)
    changes: list[tuple[Any, str, Any]] = [(part, "eos_token_id", eos) for part in _parts(model.config)]
    pad = tokenizer.pad_token_id
    if pad is not None and pad < embedding_rows(model):
        changes += [(part, "pad_token_id", int(pad)) for part in _parts(model.config)]
    before = [(part, name, getattr(part, name, None)) for part, name, _ in changes]
    old_token = tokenizer.eos_token
    try:
        for part, name, value in changes:
            with suppress(Exception):  # a config that takes one id only keeps its own
                setattr(part, name, value)
        if generation is not None:
            model.generation_config = _with_ends(generation, ends, pad)
        _name_end(tokenizer)
        yield
    finally:
        tokenizer.eos_token = old_token
        if generation is not None:
            model.generation_config = generation
        for part, name, value in before:
            setattr(part, name, value)


def embedding_rows(model: Any) -> int:
    """How many token ids the model has a row for; where it reads and writes different numbers, the fewer."""
    tables = [model.get_input_embeddings()]
    with suppress(AttributeError, NotImplementedError):
        tables.append(model.get_output_embeddings())
    return min(int(table.weight.shape[0]) for table in tables if getattr(table, "weight", None) is not None)


def _known_ends(model: Any, ends: tuple[int, ...]) -> tuple[int, ...]:
    rows = embedding_rows(model)
    return tuple(token for token in ends if 0 <= token < rows) or ends[:1]


def _parts(config: Any) -> list[Any]:
    text = config.get_text_config()
    return [config] if text is config else [config, text]


def _with_ends(generation: Any, ends: tuple[int, ...], pad: int | None) -> Any:
    found = copy.deepcopy(generation)
    found.eos_token_id = ends[0] if len(ends) == 1 else list(ends)
    if pad is not None:
        found.pad_token_id = int(pad)
    barred = getattr(found, "suppress_tokens", None) or []
    if set(barred) & set(ends):
        found.suppress_tokens = [token for token in barred if token not in ends] or None
        warnings.warn("the generation config suppressed an end token; it is saved without that", stacklevel=4)
    fault = generation_fault(found)
    if fault is None:
        return found
    warnings.warn(
        f"the generation config cannot be saved ({fault}); only its special tokens are kept", stacklevel=4
    )
    return _plain(found)


def _name_end(tokenizer: Any) -> None:
    """Make the end of a turn the tokenizer's EOS, where nothing that it writes changes by that."""
    found, eos = ending(tokenizer), tokenizer.eos_token
    if found.token_id is None or found.token_id == tokenizer.eos_token_id:
        return
    before = _written(tokenizer)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(found.token_id)
    if _written(tokenizer) != before:
        tokenizer.eos_token = eos


def _written(tokenizer: Any) -> list[Any]:
    """What template and encoding make of a few probes."""
    found: list[Any] = [tokenizer("a b")["input_ids"]]
    for probe in _PROBES:
        for with_prompt in (False, True):
            try:
                found.append(render(tokenizer, probe, add_generation_prompt=with_prompt))
            except TrimtabError:
                found.append(None)
    return found
