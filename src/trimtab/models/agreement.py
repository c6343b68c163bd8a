"""Do a model, its tokenizer, its chat template and its configs agree with one another (R37)?

Each finding passes, warns or fails in one sentence that ends with what to do. `trimtab check` prints them; a
run refuses what fails before its first step.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trimtab.data.chat import encode_prompt
from trimtab.data.turns import end_ids, ending, eos_of, special_ids
from trimtab.errors import ModelError, TrimtabError
from trimtab.models.context import context_length
from trimtab.models.generation import embedding_rows, generation_fault

GIB = 2**30
_PROBE = ({"role": "user", "content": "Hello, 你好?"},)


@dataclass(frozen=True, slots=True)
class Finding:
    """What was compared, how it stands, and the sentence that says so."""

    status: Literal["pass", "warn", "fail"]
    what: str
    text: str


@dataclass(frozen=True, slots=True)
class Subject:
    """A model as far as others must agree with it. ``rows``: token ids that it has an embedding for."""

    name: str  # what a sentence calls it: "policy", "reward model"
    config: Any
    rows: int
    generation: Any = None  # its generation config; None where it only scores

    @property
    def context(self) -> int | None:
        """The most tokens in a row, or None."""
        return context_length(self.config)


def subject_of(model: Any, name: str) -> Subject:
    """A loaded model as a subject."""
    return Subject(name, model.config, embedding_rows(model), getattr(model, "generation_config", None))


def subject_at(path: str, name: str, *, trust_remote_code: bool = False) -> Subject:
    """The model in a directory as a subject, without reading its weights.

    Raises:
        ModelError: its config cannot be read.
    """
    from transformers import AutoConfig, GenerationConfig

    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=trust_remote_code)
    except Exception as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ModelError(f"the config in {path} cannot be read ({line}); fix model.path") from None
    generation = None
    if (Path(path) / "generation_config.json").is_file():
        with suppress(Exception):  # loading the model says what is wrong with it
            generation = GenerationConfig.from_pretrained(path, local_files_only=True)
    return Subject(name, config, int(config.get_text_config().vocab_size), generation)


def compare(subject: Subject, tokenizer: Any) -> Iterator[Finding]:
    """Yield what agrees and what does not between a model and the tokenizer that it is used with."""
    yield _embedding(subject, tokenizer)
    yield _padding(subject, tokenizer)
    yield from _ends(subject, tokenizer)
    yield from _beginning(subject, tokenizer)
    if fault := generation_fault(subject.generation):
        text = (
            f"the generation config of the {subject.name} could not be saved ({fault}); it is mended at load"
        )
        yield Finding("warn", "generation config", text)


def refuse(findings: Iterable[Finding]) -> list[str]:
    """Return the sentences that warn.

    Raises:
        ModelError: a finding fails; with its sentence, and how many more there are.
    """
    found = list(findings)
    failed = [finding for finding in found if finding.status == "fail"]
    if failed:
        more = f" ({len(failed) - 1} more: see `trimtab check`)" if len(failed) > 1 else ""
        raise ModelError(f"{failed[0].text.rstrip('.')}{more}")
    return [finding.text for finding in found if finding.status == "warn"]


def _embedding(subject: Subject, tokenizer: Any) -> Finding:
    rows, name = subject.rows, subject.name
    vocabulary = {str(token): int(i) for token, i in tokenizer.get_vocab().items()}
    beyond = sorted((i, token) for token, i in vocabulary.items() if i >= rows)
    size = max(vocabulary.values(), default=-1) + 1
    fix = f"resize its embeddings to {size} rows, or take the tokenizer that belongs to it"
    if beyond:
        used = _used_ids(tokenizer) | (set(vocabulary.values()) - special_ids(tokenizer))
        token_id, token = next(((i, t) for i, t in beyond if i in used), beyond[0])
        text = (
            f"the tokenizer has {len(beyond)} tokens that the {name} has no embedding for: it has {rows} "
            f"rows, and {token!r} is number {token_id}"
        )
        if token_id in used:
            return Finding("fail", "embedding", f"{text}; {fix}")
        return Finding("warn", "embedding", f"{text}; rows of data that hold one are refused")
    if rows > 1.5 * size + 1000:
        text = f"the {name} has {rows} embedding rows but the tokenizer only {size} tokens"
        return Finding("warn", "embedding", f"{text}; check that it is the model's own tokenizer")
    return Finding("pass", "embedding", f"{size} tokens of the tokenizer, {rows} rows of the {name}")


def _used_ids(tokenizer: Any) -> set[int]:
    """The special tokens that every row needs: padding, ends, and those of the chat template."""
    found = {tokenizer.pad_token_id, *end_ids(tokenizer)} - {None}
    with suppress(TrimtabError):
        found |= set(encode_prompt(tokenizer, _PROBE))
    return found


def _padding(subject: Subject, tokenizer: Any) -> Finding:
    pad = tokenizer.pad_token_id
    if pad is None:
        fix = "set pad_token in its tokenizer_config.json"
        return Finding("fail", "padding", f"the tokenizer of the {subject.name} has no padding token; {fix}")
    if pad == ending(tokenizer).token_id and subject.generation is None:
        text = f"{tokenizer.pad_token!r} is padding and also ends a turn; scores are read by position here"
        return Finding("warn", "padding", text)
    if pad == ending(tokenizer).token_id:
        fix = "choose another pad_token, or the model never learns to stop"
        return Finding("fail", "padding", f"{tokenizer.pad_token!r} is padding and also ends a turn; {fix}")
    return Finding("pass", "padding", f"padding is {tokenizer.pad_token!r}")


def _ends(subject: Subject, tokenizer: Any) -> Iterator[Finding]:
    found = ending(tokenizer)
    if found.token_id is None:
        fix = "set eos_token in tokenizer_config.json"
        yield Finding("fail", "EOS", f"neither the tokenizer nor its chat template has an end token; {fix}")
        return
    shown = f"a turn ends with {_token(tokenizer, found.token_id)}"
    others = [i for i in end_ids(tokenizer, subject.generation, subject.config) if i != found.token_id]
    known = [i for i in others if i < subject.rows]
    if known:
        shown += f"; sampling also stops at {', '.join(_token(tokenizer, i) for i in known)}"
    if found.is_written or found.closing is None:
        yield Finding("pass", "EOS", shown)
    elif found.closing.strip():
        text = (
            f"the chat template closes a turn with the text {found.closing.strip()!r}, which is no token of "
            f"this tokenizer; {_token(tokenizer, found.token_id)} is trained, sampled and saved instead, "
            "or give a template that ends turns with a token"
        )
        yield Finding("warn", "EOS", text)
    else:
        text = (
            f"the chat template writes no end of a turn; {_token(tokenizer, found.token_id)} is trained, "
            "sampled and saved as one, but turns of a longer dialogue are not told apart by it"
        )
        yield Finding("warn", "EOS", text)
    special, named = special_ids(tokenizer), {*eos_of(subject.generation), *eos_of(subject.config)}
    ordinary = [i for i in others if i not in special and i in named and i < subject.rows]
    if ordinary:
        text = (
            f"the config of the {subject.name} says that {_token(tokenizer, ordinary[0])} ends a text, and "
            "that is an ordinary token: every answer that writes it is cut there; correct its eos_token_id"
        )
        yield Finding("warn", "EOS", text)
    if missing := [i for i in others if i >= subject.rows]:
        text = f"end token {missing[0]} of the {subject.name} is beyond its {subject.rows} embedding rows"
        yield Finding("warn", "EOS", f"{text}; it is left out of what is saved")


def _beginning(subject: Subject, tokenizer: Any) -> Iterator[Finding]:
    begin = tokenizer.bos_token_id
    if begin is None:
        return
    try:
        ids = encode_prompt(tokenizer, _PROBE)
    except TrimtabError as error:
        yield Finding("warn", "chat template", f"a single question cannot be rendered: {error}")
        return
    shown = _token(tokenizer, begin)
    if ids[:2] == (begin, begin):
        fix = "write it once in the template"
        yield Finding("fail", "BOS", f"a conversation begins with {shown} twice; {fix}")
    elif ids[0] != begin and list(tokenizer("a")["input_ids"])[:1] == [begin]:
        fix = "begin it with {{ bos_token }} if the model was trained so"
        text = f"the tokenizer begins every text with {shown}, but the chat template does not; {fix}"
        yield Finding("warn", "BOS", text)
    else:
        yield Finding("pass", "BOS", f"a conversation begins with {_token(tokenizer, ids[0])}")


def _token(tokenizer: Any, token_id: int) -> str:
    found = tokenizer.convert_ids_to_tokens(int(token_id))
    return f"token {token_id}" if found is None else repr(str(found))


def can_be_saved(tokenizer: Any, directory: str, num_bytes: int) -> Iterator[Finding]:
    """Whether a model of ``num_bytes`` with this tokenizer can be written to ``directory``, tried before it
    costs time: the place is writable, large enough, and the tokenizer can be saved."""
    target = Path(directory).absolute()
    place = next(path for path in (target, *target.parents) if path.exists())
    if not place.is_dir():
        yield Finding(
            "fail", "output", f"{place} is a file, so nothing can be saved in {directory}; rename it"
        )
        return
    if not os.access(place if place != target else target.parent, os.W_OK | os.X_OK):
        fix = "choose another --output"
        yield Finding(
            "fail", "output", f"{place} may not be written to, so {directory} cannot be saved; {fix}"
        )
        return
    free = shutil.disk_usage(place).free
    if free < num_bytes:
        text = (
            f"{directory} needs {num_bytes / GIB:.1f} GiB and the disk has {free / GIB:.1f} left; make room"
        )
        yield Finding("fail", "output", text)
        return
    try:
        with tempfile.TemporaryDirectory() as scratch:
            tokenizer.save_pretrained(scratch)
    except Exception as error:
        line = " ".join(str(error).split())[:200]
        yield Finding("fail", "output", f"the tokenizer cannot be saved ({line}); mend its directory")
        return
    yield Finding("pass", "output", f"{directory} can be written, {free / GIB:.1f} GiB free")
