"""What libraries raise over a user's files becomes a sentence; a mistake of ours stays a bug."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from trimtab.cli.foreign import foreign_sentence
from trimtab.cli.main import main


def raised(call: Any) -> BaseException:
    """What ``call`` raises, its traceback with it."""
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def damaged_weights(folder: Path) -> None:
    from safetensors import safe_open

    (folder / "m.safetensors").write_bytes(b"garbage")
    safe_open(folder / "m.safetensors", framework="pt")


def damaged_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer

    (folder / "tokenizer.json").write_text("{}")
    Tokenizer.from_file(str(folder / "tokenizer.json"))


def damaged_table(folder: Path) -> None:
    import pyarrow.parquet

    (folder / "rows.parquet").write_bytes(b"PAR1 nothing PAR1")
    pyarrow.parquet.read_table(folder / "rows.parquet")


def broken_template(folder: Path) -> None:
    import jinja2

    jinja2.Environment().from_string("{% for m in messages %}")


def unknown_family(folder: Path) -> None:
    from transformers import AutoConfig

    (folder / "config.json").write_text('{"model_type": "nobodys"}')
    AutoConfig.from_pretrained(folder)


def not_text(folder: Path) -> None:
    (folder / "x.txt").write_bytes(b"\xff\xfe")
    (folder / "x.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (damaged_weights, ("the weights", "damaged or incomplete")),
        (damaged_tokenizer, ("the tokenizer", "check tokenizer.json")),
        (damaged_table, ("the data", "damaged or of another kind")),
        (broken_template, ("the chat template", "model.chat_template")),
        (unknown_family, ("the model", "trimtab check")),
        (not_text, ("not UTF-8", "save it as UTF-8")),
        (lambda folder: (folder / "no").read_text(), ("no file or directory", "/no)")),
        (lambda folder: folder.read_text(), ("a directory is where a file is expected",)),
        (lambda folder: torch.nn.Embedding(2, 2)(torch.tensor([5])), ("beyond the model's tables",)),
        (lambda folder: torch.empty(2**52), ("memory ran out",)),
    ],
)
def test_what_users_give_to_libraries(call: Any, words: tuple[str, ...], tmp_path: Path) -> None:
    """Issue 14, A.8: each family of errors names what was wrong with what was given, and what to do."""
    sentence = foreign_sentence(raised(lambda: call(tmp_path)))
    assert sentence is not None
    assert all(word in sentence for word in words), sentence
    assert "\n" not in sentence and len(sentence) < 400


def test_disks_and_memory() -> None:
    """Issue 14, A.8: a full disk in Python and in Rust, a quota, a read-only disk, no memory."""
    for number, words in (
        (errno.ENOSPC, "no space left on the disk (a/b)"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "no permission (a/b)"),
    ):
        assert words in str(foreign_sentence(OSError(number, "x", "a/b")))
    rust = Exception("I/O error: No space left on device (os error 28)")
    assert "no space left" in str(foreign_sentence(rust))
    assert "memory ran out" in str(foreign_sentence(MemoryError()))


def test_our_own_mistakes_stay_bugs() -> None:
    """Design: exit code 1 and the traceback are for those; a library told nonsense by us is one of them."""
    import transformers

    def ours() -> None:
        transformers.LlamaConfig.from_dict(5)

    for call in (ours, lambda: [].x, lambda: {}["key"], lambda: 1 // 0, lambda: int("x")):
        assert foreign_sentence(raised(call)) is None
    assert foreign_sentence(ModuleNotFoundError("no trimtab.x", name="trimtab.x")) is None
    assert "a package is missing" in str(foreign_sentence(ModuleNotFoundError("tiktoken", name="tiktoken")))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer.json", "{"),
        ("tokenizer_config.json", "[]"),
        ("tokenizer_config.json", '{"tokenizer_class": "Nobody"}'),
        ("config.json", "[]"),
        ("config.json", '{"model_type": "nobodys"}'),
        ("config.json", '{"model_type": "llama", "hidden_size": "big"}'),
        ("config.json", '{"model_type": "llama", "hidden_size": 24}'),
        ("generation_config.json", '{"early_stopping": "perhaps"}'),
        ("generation_config.json", "["),
        ("chat_template.jinja", "{% for m in messages %}"),
        ("chat_template.jinja", "{{ messages[0].nothing.at.all }}"),
        ("model.safetensors", "damaged"),
    ],
)
@pytest.mark.parametrize("command", ["run", "check", "chat"])
def test_a_damaged_model_directory(
    command: str, file: str, content: str, model: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    """Issue 14, A.8: whatever file of a model is damaged, one sentence and exit code 2."""
    import shutil

    monkeypatch.chdir(tmp_path)
    shutil.copytree(model, "m")
    Path("m", file).write_text(content)
    Path("rows.jsonl").write_text(json.dumps({"prompt": "a", "completion": "b"}))
    Path("r.toml").write_text('[model]\npath = "m"\ndevice = "cpu"\n[sft]\ndata = "rows.jsonl"\nsteps = 1\n')
    words = {
        "run": ["run", "r.toml", "--output", "out"],
        "check": ["check", "r.toml"],
        "chat": ["chat", "m", "--once", "a", "--max-new-tokens", "2"],
    }[command]
    code = main(words)
    told = capsys.readouterr()
    assert code == 2 and "bug" not in told.err, told.err
    assert "Traceback" not in told.err + told.out
