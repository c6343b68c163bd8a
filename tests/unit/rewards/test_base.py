from __future__ import annotations

import decimal
import fractions

import numpy as np
import pytest
import torch

from trimtab.rewards.base import call_reward, check_result
from trimtab.types import RewardResult

from .toy import sample


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (1, 1.0),
        (0.25, 0.25),
        (True, 1.0),
        (False, 0.0),
        (-3, -3.0),
        (np.float32(0.5), 0.5),
        (np.int64(2), 2.0),
        (np.bool_(True), 1.0),
        (torch.tensor(0.5), 0.5),
        (torch.tensor([2.0]), 2.0),
        (fractions.Fraction(1, 2), 0.5),
    ],
)
def test_numbers_are_accepted(value, wanted):
    """R19: whatever is a finite real number is a reward, numpy scalars and one-element tensors included."""
    assert check_result(value, "mine") == RewardResult(wanted)


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        -float("inf"),
        1j,
        complex(1, 0),
        "1.0",
        b"1",
        [1.0],
        {"score": 1.0},
        np.float64("nan"),
        np.complex64(1),
        torch.tensor(float("inf")),
        torch.tensor([1.0, 2.0]),
        torch.tensor(1j),
        10**400,
        1e30,
        np.array("x"),
        object(),
        decimal.Decimal("NaN"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_anything_doubtful_is_an_error(value):
    """Threats: NaN, infinity, complex numbers, strings and values out of range are refused, never 0."""
    result = check_result(value, "mine")
    assert result.value is None
    assert result.error.startswith("reward mine returned")


def test_none_does_not_apply_and_is_no_error():
    """R19: None abstains without an error."""
    assert check_result(None, "mine") == RewardResult(None)


def test_declared_range():
    """Threats: values outside the declared range are refused; its ends belong to it."""
    assert check_result(1.0, "mine", 0.0, 1.0).value == 1.0
    assert check_result(0.0, "mine", 0.0, 1.0).value == 0.0
    assert "outside its range 0 to 1" in check_result(1.01, "mine", 0.0, 1.0).error


class Returns:
    """A reward that returns what it is given, or raises it."""

    name = "odd"

    def __init__(self, value):
        self.value = value

    def score(self, samples):
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (ValueError("broken\nhere"), "ValueError: broken here"),
        ([RewardResult(1.0)], "1 results for 2 samples"),
        ([RewardResult(1.0)] * 3, "3 results for 2 samples"),
        (5, "TypeError"),
    ],
)
def test_a_failing_reward_abstains_for_all(value, words):
    """R19: an exception or a wrong count abstains with the reason; it never becomes 0."""
    results = call_reward(Returns(value), [sample("a"), sample("b")])
    assert [result.value for result in results] == [None, None]
    assert all(words in result.error for result in results)


def test_plain_values_of_a_users_class_are_checked():
    """R19: a user's own class may return plain numbers; they are checked like any other."""
    results = call_reward(Returns([0.5, float("nan")]), [sample("a"), sample("b")])
    assert results[0] == RewardResult(0.5)
    assert results[1].value is None
    assert results[1].error
