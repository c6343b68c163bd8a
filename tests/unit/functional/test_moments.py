"""Running mean and deviation."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.functional.moments import Moments

FLOATS = st.floats(-1e6, 1e6)


def test_by_hand() -> None:
    """Trap 2: 1, 3 and then 8: mean 4, squares 9 + 1 + 16, unbiased deviation √13."""
    moments = Moments().with_values([1.0, 3.0]).with_values([8.0])
    assert (moments.count, moments.mean, moments.squares) == (3, 4.0, 26.0)
    assert moments.std == math.sqrt(13)


@given(st.lists(FLOATS, min_size=2, max_size=30), st.integers(0, 30))
def test_any_split_is_the_same(values: list[float], cut: int) -> None:
    """Trap 4: what matters is what was seen, not in which batches."""
    moments = Moments().with_values(values[:cut]).with_values(values[cut:])
    assert moments.mean == pytest.approx(statistics.fmean(values), rel=1e-9, abs=1e-6)
    assert moments.std == pytest.approx(statistics.stdev(values), rel=1e-6, abs=1e-3)


def test_what_is_not_finite_is_left_out() -> None:
    """Threats: not-a-number never reaches the running mean; nothing at all changes nothing."""
    moments = Moments().with_values([1.0, 2.0])
    assert moments.with_values([math.nan, math.inf]) == moments
    assert moments.with_values([]) == moments
    assert Moments().std == 0.0


def test_state_is_exact() -> None:
    """Issue 2 (8): the state is the whole of it."""
    moments = Moments().with_values([0.1, 0.7, 0.3])
    assert Moments.of_state(moments.state()) == moments
