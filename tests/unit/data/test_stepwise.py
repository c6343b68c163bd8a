from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trimtab.data import load_prompts, load_stepwise
from trimtab.errors import DataError

ROW = {"prompt": "3+5-2=?", "completions": ["3+5=8", "8-2=5"], "labels": [True, False]}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    file = path / "steps.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_rows_of_stepwise_supervision(tmp_path: Path) -> None:
    """R22, R31: TRL's columns, booleans or numbers, a prompt as text or messages; other columns are kept."""
    messages = [{"role": "system", "content": "Be exact."}, {"role": "user", "content": "1+1=?"}]
    file = write(
        tmp_path, {**ROW, "source": "x"}, {"prompt": messages, "completions": ["a", "b"], "labels": [1, 0.25]}
    )
    first, second = load_stepwise(file)
    assert (first.steps, first.labels) == (("3+5=8", "8-2=5"), (1.0, 0.0))
    assert first.prompt == ({"role": "user", "content": "3+5-2=?"},)
    assert first.columns == {"source": "x"}
    assert (first.first_error, second.first_error) == (1, 1)
    assert (len(second.prompt), second.labels) == (2, (1.0, 0.25))
    assert [prompt.text for prompt in load_prompts(file)] == ["3+5-2=?", "1+1=?"]
    assert load_stepwise(write(tmp_path, {**ROW, "labels": [True, 0.5]}))[0].first_error is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": [True]}, "'completions' has 2 step.s. but 'labels' has 1; give one label per step"),
        ({"labels": [True, 2]}, r"'labels\[1\]' is 2, but must be true, false or from 0 to 1"),
        ({"labels": [True, None]}, r"'labels\[1\]' is None"),
        ({"labels": [True, "no"]}, r"'labels\[1\]' is 'no'"),
        ({"labels": [float("nan"), 1]}, r"'labels\[0\]' is nan"),
        ({"labels": True}, "'labels' must be a non-empty list"),
        ({"completions": "3+5=8"}, "'completions' must be a non-empty list of steps"),
        ({"completions": [], "labels": []}, "'completions' must be a non-empty list"),
        ({"completions": ["a", " "]}, r"'completions\[1\]' is empty"),
        ({"completions": ["a", 3]}, r"'completions\[1\]' is a int"),
        ({"prompt": " "}, "'prompt' is empty"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_row(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    """R22: one sentence with the file, the line and the fix."""
    file = write(tmp_path, ROW, {**ROW, **change})
    with pytest.raises(DataError, match=rf"steps\.jsonl:2: ?{words}"):
        load_stepwise(file)


def test_other_shapes_are_refused(tmp_path: Path) -> None:
    """R22: pairs hold no labelled steps, and the sentence says what would."""
    with pytest.raises(DataError, match=r"does not hold labelled steps: rename 'completion'"):
        load_stepwise(write(tmp_path, {"prompt": "a", "completion": "b"}))
