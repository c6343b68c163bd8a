"""Chains of sums: what is asked, what is right, and what the labels of corrupted lines say."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest

from trimtab.errors import DataError
from trimtab.rewards.equalities import equalities
from trimtab.tasks.chain import ChainTask, sft_rows
from trimtab.tasks.registry import load_task, load_task_solutions
from trimtab.types import Sample

DATA = Path(__file__).parents[3] / "data" / "math" / "chain_sft.jsonl"


def judged(prompt: str, steps: tuple[str, ...]) -> list[bool]:
    """The labels by an independent reading: result, number, sign and start of every line, then the answer."""
    problem = prompt.removeprefix("逐步计算：").removesuffix("=？")
    cuts = [i for i, char in enumerate(problem) if char in "+-"]
    parts = [problem[a:b] for a, b in zip([0, *cuts], [*cuts, len(problem)], strict=True)]
    left, found = parts[0], []
    for part, line in zip(parts[1:], steps, strict=False):
        start, _, result = line.partition("=")
        found.append(start == left + part and equalities(f"0+{line}")[0].holds)
        left = result
    return [*found, steps[-1] == f"答案：{left}"]


def test_labels_say_what_is_wrong_with_each_line() -> None:
    """R22: labels agree with an independent check of every line; both labels occur at every place."""
    rows = ChainTask().solutions("train", 400, seed=1)
    for row in rows:
        assert [label == 1 for label in row.labels] == judged(row.prompt[0]["content"], row.steps), row
    assert {row.first_error for row in rows} == {0, 1, 2, None}
    share = sum(label for row in rows for label in row.labels) / sum(len(row.labels) for row in rows)
    assert 0.6 < share < 0.7


def test_kinds_of_errors() -> None:
    """R22: with results only, numbers, signs, starts and answers are the problem's; no error at 0."""
    for row in ChainTask(errors="result").solutions("train", 100, seed=2):
        wrong = [number for number, label in enumerate(row.labels) if label == 0]
        for number in wrong:
            assert not equalities(f"0+{row.steps[number]}")[0].holds
    assert all(row.first_error is None for row in ChainTask(wrong=0.0).solutions("train", 50, seed=3))


def test_lucky_solutions_are_right_by_wrong_lines() -> None:
    """R22: the answer is the right one, and two lines are labelled wrong and are wrong."""
    task = ChainTask()
    for row in task.lucky("hidden", 100, seed=1):
        assert row.labels == (0.0, 0.0, 1.0)
        assert row.steps[-1] == f"答案：{row.columns['answer']}"
        assert judged(row.prompt[0]["content"], row.steps) == [False, False, True]


def test_the_grader_pays_the_right_solution() -> None:
    """R19: prompts and grader agree, in both languages; splits share no problem and seeds repeat."""
    task = ChainTask(language="both", wrong=0.0)
    for row in task.solutions("train", 60, seed=4):
        from trimtab.types import Prompt

        result = task.reward().score([Sample(Prompt("0", row.prompt, row.columns), "\n".join(row.steps))])[0]
        assert result.value == 1.0, row
    train = {p.text for p in ChainTask(top=5).prompts("train", 500, seed=1)}
    assert not train & {p.text for p in ChainTask(top=5).prompts("hidden", 200, seed=2)}
    assert task.prompts("train", 5, seed=9) == task.prompts("train", 5, seed=9)
    answer = Fraction(task.prompts("train", 1, seed=9)[0].columns["answer"])
    assert answer >= 0


def test_options_that_make_no_sense() -> None:
    """Issue 2: one sentence each; a task without solutions says which ones have some."""
    for options in ("operations=1", "top=1", "wrong=2.0", "language=fr", "errors=results"):
        with pytest.raises(DataError, match="task:chain"):
            load_task(f"chain?{options}")
    with pytest.raises(DataError, match=r"makes no labelled solutions.*chain"):
        load_task_solutions("arithmetic", "train", 2, 0)
    with pytest.raises(DataError, match="no split"):
        ChainTask().solutions("test", 1, 0)


def test_the_committed_file_is_the_generators() -> None:
    """R20: the SFT file is reproducible and holds no hidden problem."""
    rows = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
    assert rows == sft_rows()
    hidden = {prompt.text for prompt in ChainTask().prompts("hidden", 2000, seed=0)}
    assert not hidden & {row["prompt"] for row in rows}
