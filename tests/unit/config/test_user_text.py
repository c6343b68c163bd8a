"""One reader for every text file that a user gives: marks, line ends and encodings (issue 14, bom-toml)."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimtab.config import load_recipe
from trimtab.config.user_text import read_user_text
from trimtab.errors import ConfigError, ModelError, RewardError
from trimtab.models.tokenizer import _read_template
from trimtab.rewards.judge import read_rubric

TEXT = '# 中文\n[rl]\ndata = "p"\nrewards = ["length"]\n'


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_mark_and_line_ends_change_nothing(mark: bytes, line_end: str, tmp_path: Path) -> None:
    """bom-toml: a recipe, a template and a rubric as any editor writes them are the same text."""
    file = tmp_path / "r.md"
    file.write_bytes(mark + TEXT.replace("\n", line_end).encode())
    assert read_user_text(file, "the recipe") == TEXT
    recipe = load_recipe(file)
    assert recipe.rl is not None and recipe.rl.data == "p"
    assert _read_template(str(file)) == read_rubric(str(file)) == TEXT


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("utf-16", "is UTF-16 text and not UTF-8"),
        ("utf-32", "is UTF-32 text and not UTF-8"),
        ("utf-16-le", "it has zero bytes, as UTF-16"),
        ("gb18030", "line 1 is in another encoding"),
    ],
)
def test_other_encodings_are_one_sentence(encoding: str, words: str, tmp_path: Path) -> None:
    """bom-toml: what is not UTF-8 names the file, what it seems to be, and the one thing to do."""
    file = tmp_path / "r.txt"
    file.write_bytes(TEXT.encode(encoding))
    for read, error in (
        (load_recipe, ConfigError),
        (_read_template, ModelError),
        (read_rubric, RewardError),
    ):
        with pytest.raises(error, match=words) as caught:
            read(str(file))
        assert str(file) in str(caught.value) and "save it as UTF-8" in str(caught.value)


def test_a_directory_and_a_missing_file(tmp_path: Path) -> None:
    """bom-toml: a directory in the place of a file is told as one."""
    with pytest.raises(ConfigError, match="is a directory"):
        load_recipe(tmp_path)
    with pytest.raises(RewardError, match=r"rubric .*none.md cannot be read \(No such file"):
        read_rubric(str(tmp_path / "none.md"))


def test_the_line_of_a_bad_byte_is_the_editors(tmp_path: Path) -> None:
    """bom-toml: the byte-order mark does not shift the line."""
    file = tmp_path / "r.toml"
    file.write_bytes(b"\xef\xbb\xbf# one\n# two\n# \xff\n")
    with pytest.raises(ConfigError, match="line 3 is in another encoding"):
        load_recipe(file)
