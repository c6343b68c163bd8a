from __future__ import annotations

import re

import pytest

from trimtab.errors import DataError
from trimtab.tasks import TASKS, is_task, load_task, load_task_prompts
from trimtab.tasks.arithmetic import ArithmeticTask, is_hidden
from trimtab.types import Sample


def operands(text):
    """The operands and the operation of a prompt, those of a sum in order of size."""
    a, operation, b = re.search(r"(\d+)([+-])(\d+)", text).groups()
    pair = sorted((int(a), int(b))) if operation == "+" else [int(a), int(b)]
    return (operation, *pair)


@pytest.mark.parametrize("options", [{}, {"digits": 1}, {"operations": "+-"}, {"language": "en"}])
def test_splits_are_disjoint_whatever_the_seeds(options):
    """R20: no problem of the hidden set is ever trained on, in any wording, language, order or seed."""
    task = ArithmeticTask(**options)
    train = {operands(p.text) for seed in range(3) for p in task.prompts("train", 3000, seed)}
    hidden = {operands(p.text) for seed in range(3) for p in task.prompts("hidden", 3000, seed)}
    assert train
    assert hidden
    assert not train & hidden
    assert 0.1 < len(hidden) / (len(hidden) + len(train)) < 0.35


def test_order_of_a_sum_does_not_matter():
    """R20: a+b and b+a are one problem."""
    assert all(is_hidden(a, "+", b) == is_hidden(b, "+", a) for a in range(100) for b in range(a))


def test_the_split_never_changes():
    """R20: the split is a fixed function of the operands; these were written down once."""
    hidden = [b for b in range(40) if is_hidden(27, "+", b)]
    assert hidden == [2, 6, 12, 21, 23, 27]


def test_every_gold_answer_scores_one():
    """Threats: every row's gold answer scores 1, alone and in the usual wordings; its neighbour scores 0."""
    task = load_task("arithmetic?operations=+-")
    for prompt in task.prompts("train", 500, 1) + task.prompts("hidden", 200, 1):
        gold = prompt.columns["answer"]
        operation, a, b = operands(prompt.text)
        assert int(gold) == (a + b if operation == "+" else a - b)
        texts = [
            gold,
            f"答案是{gold}。",
            f"The answer is {gold}.",
            f"{prompt.text}{gold}",
            str(int(gold) + 1),
        ]
        results = task.reward().score([Sample(prompt, text) for text in texts])
        assert [r.value for r in results] == [1.0, 1.0, 1.0, 1.0, 0.0]


def test_prompts_are_seeded_and_different():
    """R12: the same seed gives the same prompts, another seed others; none comes twice before all came."""
    task = ArithmeticTask()
    first, again, other = (task.prompts("train", 200, seed) for seed in (1, 1, 2))
    assert first == again
    assert [p.text for p in first] != [p.text for p in other]
    assert len({p.text for p in first}) == 200
    assert len({p.id for p in first}) == 200
    assert {p.text[:2] for p in first} == {"计算", "Wh"}


def test_counts():
    """R21: training prompts start over when used up; hidden ones stop there."""
    task = ArithmeticTask(digits=1, language="zh")
    hidden = task.prompts("hidden", 1000, 0)
    train = task.prompts("train", 1000, 0)
    assert len(train) == 1000
    assert len(hidden) == len({p.text for p in hidden}) == 100 - len({p.text for p in train})


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("task:arithmetc", "did you mean 'arithmetic'?"),
        ("task:arithmetic?digit=1", "did you mean 'digits'?"),
        ("task:arithmetic?digits=one", "not a number"),
        ("task:arithmetic?digits=9", "must be 1, 2 or 3"),
        ("task:arithmetic?operations=*", "operations"),
        ("task:arithmetic?language=de", "known"),
        ("task:sales?digits=1", "it has none"),
    ],
)
def test_errors_are_one_sentence(source, words):
    """R25: a task or option that is not there is told with the nearest one."""
    with pytest.raises(DataError) as caught:
        load_task_prompts(source, "train", 1, 0)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_task_keeps_the_protocol(name):
    """R20: every task has a train and a hidden split without a common prompt, and a grader."""
    task = load_task(name)
    train, hidden = (task.prompts(split, 50, 3) for split in ("train", "hidden"))
    assert len(train) == len(hidden) == 50
    assert not {p.text for p in train} & {p.text for p in hidden}
    assert task.name == name
    assert task.reward().score([Sample(train[0], "1")])[0].error is None
    with pytest.raises(DataError, match="no split"):
        task.prompts("test", 1, 0)


def test_is_task():
    """R20: `task:` marks a task."""
    assert is_task("task:arithmetic")
    assert not is_task("task.json")
