"""NaN and infinity in tensors are found, and nothing else is."""

from __future__ import annotations

import math

import pytest
import torch

from trimtab.models.finite import find_in_tree, find_non_finite


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_bad_number_is_found_and_named(dtype: torch.dtype, value: float) -> None:
    """Issue 5 (NaN): one of many thousand numbers, wherever it is."""
    named = {"a": torch.ones(3, 5, dtype=dtype), "b": torch.randn(7, 1001).to(dtype)}
    assert find_non_finite(named) is None
    named["b"][6, 500] = value
    assert find_non_finite(named) == "b"


def test_infinities_of_both_signs_do_not_cancel() -> None:
    """Issue 5 (NaN): inf − inf is NaN, in one tensor and between two."""
    assert find_non_finite({"a": torch.tensor([math.inf, -math.inf, 1.0])}) == "a"
    assert find_non_finite({"a": torch.tensor([math.inf]), "b": torch.tensor([-math.inf])}) == "a"


def test_large_numbers_are_numbers() -> None:
    """Issue 5 (NaN): a sum that overflows is looked at closely: 3e38 twice is finite, number by number."""
    assert (
        find_non_finite({"a": torch.tensor([3e38, 3e38]), "b": torch.tensor([1e308], dtype=torch.float64)})
        is None
    )
    assert find_non_finite({"a": torch.tensor([3e38, 3e38]), "b": torch.tensor([math.nan])}) == "b"


def test_what_is_no_float_is_left_out() -> None:
    """Integers, empty tensors and no tensors at all."""
    assert find_non_finite({}) is None
    assert find_non_finite({"ids": torch.tensor([1]), "none": torch.zeros(0)}) is None


def test_trees_are_walked() -> None:
    """Issue 5 (NaN): a checkpoint's state is a tree; the path says where."""
    tree = {
        "step": 3,
        "policy": {"optimizer": {"w.exp_avg": torch.tensor([math.nan])}, "list": [torch.ones(1)]},
    }
    assert find_in_tree(tree) == "policy/optimizer/w.exp_avg"
    tree["policy"]["optimizer"] = {}  # type: ignore[index]
    assert find_in_tree(tree) is None
