from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.functional import distinct_n, repeated_share, shared_shares


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


def test_repeated_share_by_hand() -> None:
    """R14: aaaa has three bigrams, two of which were there before; a short text repeats nothing."""
    assert repeated_share("aaaa", 2) == pytest.approx(2 / 3)
    assert repeated_share("abcd", 2) == 0.0
    assert repeated_share("a", 2) == 0.0
    assert repeated_share("", 2) == 0.0


def test_shared_shares_by_hand() -> None:
    """R14: of each text the mean share that the others have; a piece of another one shares all it has."""
    # abcd: ab, bc, cd. bc: bc. xy: xy.
    assert shared_shares(["abcd", "bc", "xy"], 2) == pytest.approx([1 / 6, 1 / 2, 0.0])
    assert shared_shares(["ab", "ab"], 2) == [1.0, 1.0]
    assert shared_shares(["a", "b"], 2) == [0.0, 0.0]  # shorter than n: one n-gram of what there is
    assert shared_shares(["", "ab"], 2) == [1.0, 0.0]


def test_the_shares_refuse_what_has_no_answer() -> None:
    """Style: one text has no others, and there are no 0-grams."""
    with pytest.raises(ValueError, match="two"):
        shared_shares(["abc"], 2)
    with pytest.raises(ValueError, match="at least 1"):
        repeated_share("abc", 0)


@given(st.lists(st.text("ab", max_size=9), min_size=2, max_size=5), st.integers(1, 4))
def test_the_shares_are_bounded(texts: list[str], n: int) -> None:
    """R14: every share is in 0..1, whatever the texts."""
    assert all(0.0 <= share <= 1.0 for share in shared_shares(texts, n))
    assert all(0.0 <= repeated_share(text, n) < 1.0 for text in texts)
