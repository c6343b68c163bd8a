from __future__ import annotations

import pytest

from trimtab.functional import distinct_n


def test_distinct_n_by_hand():
    """R17: distinct-1 and distinct-2 over the whole corpus, not averaged per text."""
    corpus = [[1, 2, 1, 2], [1, 2], []]
    assert distinct_n(corpus, 1) == pytest.approx(2 / 6)
    assert distinct_n(corpus, 2) == pytest.approx(2 / 4)
    assert distinct_n(["您好您好"], 2) == pytest.approx(2 / 3)


def test_copies_lower_it():
    """R14: the same varied answer to everything is seen as collapse."""
    assert distinct_n([[1, 2, 3, 4]], 2) == 1.0
    assert distinct_n([[1, 2, 3, 4]] * 4, 2) == 0.25


def test_edges():
    """R17: texts shorter than n have no n-grams; n under 1 is refused."""
    assert distinct_n([[1], [2]], 2) == 0.0
    assert distinct_n([], 1) == 0.0
    with pytest.raises(ValueError, match="n = 0"):
        distinct_n([[1]], 0)
