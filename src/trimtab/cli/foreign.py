"""Errors of libraries that come from what a user gave, as sentences: a damaged file, a full disk, a template.

A mistake in Trimtab itself (a wrong type, a missing attribute or name) is none of them and stays a bug.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

# Mistakes of the programmer, whoever raises them.
_BUGS = (AssertionError, AttributeError, NameError, NotImplementedError, SyntaxError, TypeError)
_DISK = {
    errno.ENOSPC: "no space left on the disk{place}: make room, then go on with --resume",
    errno.EDQUOT: "the disk quota is used up{place}: make room, then go on with --resume",
    errno.EROFS: "the disk is read-only{place}: choose another --output",
    errno.EACCES: "no permission{place}: change it, or choose another place",
    errno.EPERM: "no permission{place}: change it, or choose another place",
    errno.ENOENT: "there is no file or directory{place}: check the path",
    errno.EISDIR: "a directory is where a file is expected{place}: check the path",
    errno.ENOTDIR: "a file is where a directory is expected{place}: check the path",
    errno.ENAMETOOLONG: "the name is too long{place}: choose a shorter one",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n 4096)",
    errno.EIO: "the disk failed while reading or writing{place}: check it",
}
# Package in which the error was raised → what a user gave to it.
_READERS = {
    "safetensors": ("the weights", "the file is damaged or incomplete: fetch or save the model again"),
    "tokenizers": ("the tokenizer", "check tokenizer.json of the model"),
    "sentencepiece": ("the tokenizer", "check tokenizer.model of the model"),
    "tiktoken": ("the tokenizer", "check the tokenizer's files of the model"),
    "pyarrow": ("the data", "the file is damaged or of another kind: write it again"),
    "datasets": ("the data set", "check its name, its files, and that this machine can reach the hub"),
    "jinja2": ("the chat template", "mend it, or give another with model.chat_template"),
    "huggingface_hub": ("the hub", "check the name, the network, and your access to it"),
    "httpx": ("the network", "check the address, and that this machine can reach it"),
    "requests": ("the network", "check the address, and that this machine can reach it"),
    "peft": ("the adapter", "check [model.lora]"),
    "transformers": ("the model", "run `trimtab check RECIPE` to see what does not fit"),
}
_WORDS = (
    ("out of memory", "memory ran out: lower train.max_tokens, or take a smaller model or a lower precision"),
    ("can't allocate memory", "memory ran out: lower train.max_tokens, or take a smaller model"),
    (
        "index out of range in self",
        "a token or a position is beyond the model's tables: run `trimtab check RECIPE`, which names it",
    ),
    ("no kernel image is available", "this torch was not built for this GPU: install another, or use cpu"),
    ("torch not compiled with cuda", "this torch has no CUDA: install another, or set model.device = cpu"),
    ("found no nvidia driver", "there is no NVIDIA driver on this machine: set model.device = cpu"),
    ("invalid device ordinal", "there is no GPU of that number: correct model.device"),
    ("(os error 28)", "no space left on the disk: make room, then go on with --resume"),
)


def foreign_sentence(error: BaseException) -> str | None:
    """Return one sentence (without its full stop) for an error that a user can mend, or None for a bug."""
    if isinstance(error, OSError) and error.errno in _DISK:
        name = error.filename2 or error.filename
        return _DISK[error.errno].format(place=f" ({name})" if name else "")
    if isinstance(error, MemoryError):
        return _WORDS[0][1]
    said = " ".join(str(error).split())
    for words, sentence in _WORDS:
        if words in said.lower():
            return sentence
    if isinstance(error, UnicodeDecodeError):
        return f"a file is not UTF-8 ({said[:200]}): save it as UTF-8"
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("trimtab"):
        return f"a package is missing ({said[:200]}): install it"
    if isinstance(error, _BUGS):
        return None
    if type(error) is Exception:  # only code in Rust raises it, and leaves no trace of where
        return f"the tokenizer could not be used ({_first(said)}): {_READERS['tokenizers'][1]}"
    for package in _packages(error):
        if package in _READERS:
            what, fix = _READERS[package]
            return f"{what} could not be used ({_first(said)}): {fix}"
        if package == "trimtab":
            return None
    return None


def _packages(error: BaseException) -> Iterator[str]:
    """Packages that the error came through, innermost first; a class written in Rust or C names its own."""
    yield type(error).__module__.partition(".")[0]
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append(str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0])
        trace = trace.tb_next
    yield from reversed(frames)


def _first(said: str) -> str:
    return said[:200].rstrip(" .:") or "no reason given"
