from __future__ import annotations

import pytest

from trimtab.errors import RewardError
from trimtab.rewards import rules

from .toy import sample


def value(reward, text, **columns):
    """The value of one completion."""
    return reward.score([sample(text, **columns)])[0].value


def test_exact_match():
    """R19: equality with the row's column, white space around it ignored; numbers compare as text."""
    assert value(rules.exact_match(), " 42\n", answer="42") == 1.0
    assert value(rules.exact_match(), "42", answer=42) == 1.0
    assert value(rules.exact_match(), "4 2", answer="42") == 0.0
    assert value(rules.exact_match(), "Yes", answer="yes") == 0.0
    assert value(rules.exact_match(ignore_case=True), "Yes", answer="yes") == 1.0
    assert value(rules.exact_match("gold"), "a", gold="a") == 1.0


@pytest.mark.parametrize("columns", [{}, {"answer": None}, {"answer": " "}])
def test_a_missing_column_abstains(columns):
    """R19: a row without a gold answer abstains with a sentence; an empty completion never matches it."""
    result = rules.exact_match().score([sample("", **columns)])[0]
    assert result.value is None
    assert "needs the column 'answer', which row 7 does not have" in result.error


def test_regex():
    """R19: search or full match; a bad pattern is one sentence."""
    assert value(rules.regex(r"<answer>.+</answer>"), "x <answer>4\n2</answer>") == 1.0
    assert value(rules.regex("b", full=True), "ab") == 0.0
    assert value(rules.regex("a.*", full=True), "ab") == 1.0
    with pytest.raises(RewardError, match="not valid"):
        rules.regex("(")


@pytest.mark.parametrize(("count", "score"), [(0, 0.0), (5, 0.5), (10, 1.0), (20, 1.0), (40, 0.5)])
def test_length(count, score):
    """R19: 1 inside the range, proportional outside it."""
    assert value(rules.length(10, 20), "x" * count) == score


@pytest.mark.parametrize(("low", "high"), [(5, 4), (-1, 4), (0, 0)])
def test_length_range_is_checked(low, high):
    """R19: an impossible range is refused."""
    with pytest.raises(RewardError):
        rules.length(low, high)


def test_language():
    """R19: share of letters; 3 Chinese characters and 1 Latin letter; digits and marks do not count."""
    assert value(rules.language("zh"), "你好吗A 123!。") == 0.75
    assert value(rules.language("en"), "你好吗A 123!。") == 0.25
    assert value(rules.language("zh"), "123") == 0.0
    assert value(rules.language("en"), "Привет é") == pytest.approx(1 / 7)
    with pytest.raises(RewardError):
        rules.language("fr")


def test_contains():
    """R19: share, any, all and none of the words, and words from a column."""
    words = ["a", "b"]
    assert value(rules.contains(words), "xa") == 0.5
    assert value(rules.contains(words, "any"), "xa") == 1.0
    assert value(rules.contains(words, "all"), "xa") == 0.0
    assert value(rules.contains(words, "none"), "x") == 1.0
    assert value(rules.contains([], "all", column="must"), "b a", must="a，b") == 1.0
    assert value(rules.contains("abc"), "abc") == 1.0
    with pytest.raises(RewardError):
        rules.contains([])
    with pytest.raises(RewardError):
        rules.contains(words, "some")


def test_list_format():
    """R19: list entries are lines with a mark and text; a mark inside a line is none."""
    assert value(rules.list_format(), "1. one\n2. two") == 1.0
    assert value(rules.list_format(), "- one\n• two") == 1.0
    assert value(rules.list_format(), "a - b\nc - d") == 0.0
    assert value(rules.list_format(), "1.\n2.") == 0.0


def test_one_bad_row_costs_one_row():
    """R19: an exception in a rule abstains for its sample only."""
    reward = rules.RuleReward("odd", lambda s: 1 / len(s.completion))
    results = reward.score([sample(""), sample("ab")])
    assert results[0].value is None
    assert "ZeroDivisionError" in results[0].error
    assert results[1].value == 0.5


@pytest.mark.parametrize(
    ("prompt", "answer", "value"),
    [
        ("Is Ada fast?", "Ada is fast.", 1.0),
        ("Is Ada fast?", "It is fast.", 0.5),
        ("Is Ada fast?", "Ada is faster than Bob.", 0.5),
        ("Is Ada fast?", "Bob is fast.", 0.0),
        ("Ada or Bob?", "Bob.", 1.0),
        ("Is it fast?", "Bob is fast.", None),
    ],
)
def test_same_names(prompt: str, answer: str, value: float | None) -> None:
    """R19: an answer about something else is caught by rule; a prompt without names does not apply."""
    assert rules.same_names(["Ada", "Bob"]).score([sample(answer, prompt)])[0].value == value


def test_same_names_needs_names() -> None:
    """R19: one name cannot be confused with another."""
    with pytest.raises(RewardError, match="at least two names"):
        rules.same_names(["Ada"])
