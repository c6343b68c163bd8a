from __future__ import annotations

import pytest

from trimtab.rewards.one_answer import answers_of, is_same_answer, one_answer_reward
from trimtab.types import Prompt, Sample


def graded(gold, text, **keys):
    """The value of one text."""
    row = Prompt("0", ({"role": "user", "content": "?"},), {"answer": gold})
    return one_answer_reward().score([Sample(row, text, **keys)])[0].value


@pytest.mark.parametrize(
    ("gold", "text"),
    [
        ("nus", "nus"),
        ("nus", " <answer>nus</answer> "),
        ("nus", "<think>sun or nus</think> It is <answer> nus </answer>."),
        ("nus", "The answer is nus."),
        ("nus", "so\n#### nus"),
        ("nus", r"\boxed{nus}"),
        ("12", "12.0"),
        ("1,200", "<answer>1200</answer>"),
        ("1 2\n3 4", "1 2\n3  4 \n"),
        ("A is a hero, and B is a hero.", "A is a hero, and B is a hero."),
    ],
)
def test_one_answer_is_enough(gold, text):
    """R19: the answer alone, in tags, in a box, or said."""
    assert graded(gold, text) == 1.0


@pytest.mark.parametrize(
    ("gold", "text"),
    [
        ("nus", "nus usn sun"),
        ("nus", "<answer>nus usn</answer>"),
        ("nus", "<answer>usn</answer><answer>nus</answer>"),
        ("nus", "<answer>nus"),
        ("nus", "nus</answer>"),
        ("nus", "</answer>nus<answer>"),
        ("nus", "not <answer>nus</answer>"),
        ("nus", "<answer>nus</answer> or sun"),
        ("nus", "<answer>nus</answer> is wrong"),
        ("nus", r"<answer>nus</answer> \boxed{sun}"),
        ("nus", "NUS"),
        ("Yes", "Yes or No"),
        ("Yes", "Yes, No"),
        ("12", "112"),
        ("12", "12 13"),
        ("1 2\n3 4", "1 2\n3 4\n5 6"),
        ("nus", ""),
        ("nus", "<answer></answer>"),
        ("nus", "x" * 60_000 + "<answer>nus</answer>"),
    ],
)
def test_containing_the_answer_is_not_enough(gold, text):
    """Threats: an answer that contains the gold one, lists several or takes it back earns 0."""
    assert graded(gold, text) == 0.0


def test_a_cut_text_has_no_answer_unless_it_is_closed():
    """R19: what a cut completion would have gone on to say is not known."""
    assert graded("12", "12", finish_reason="length") == 0.0
    assert graded("12", "<answer>12</answer> and", finish_reason="length") == 1.0


def test_equality_is_exact():
    """R19: by value for two plain numbers, by characters for all else."""
    assert is_same_answer("-4", "-4.0")
    assert is_same_answer("+4", "4")
    assert not is_same_answer("0x10", "16")
    assert not is_same_answer("4", "4 apples")
    assert not is_same_answer("0.3333", "1/3")


def test_a_row_without_an_answer_abstains():
    """R19: nothing to compare with is not 0."""
    row = Prompt("0", ({"role": "user", "content": "?"},))
    assert one_answer_reward().score([Sample(row, "1")])[0].value is None
    assert answers_of(Sample(row, "1\n2")) == ["1\n2"]
