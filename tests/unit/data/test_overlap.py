from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.data import find_overlap, refuse_overlap
from trimtab.data.overlap import _grams, _jaccard, normalise
from trimtab.errors import DataError


def test_equal_after_normalisation():
    """R20: case, width, punctuation and spaces do not hide a leak; signs of arithmetic tell tasks apart."""
    train = ["您好，我们 30 个人，价格多少？", "What is 2+3?"]
    hidden = ["您好 我们３０个人 价格多少", "what is 2-3", "WHAT is 2 + 3"]
    assert [(o.train_index, o.hidden_index) for o in find_overlap(train, hidden)] == [(0, 0), (1, 2)]


def test_near_duplicates_by_hand():
    """R20: 3-gram Jaccard by hand: abcdefgh and abcdefgx share 5 of 7 grams."""
    (found,) = find_overlap(["abcdefgh"], ["abcdefgx"], threshold=0.7)
    assert found.similarity == pytest.approx(5 / 7)
    assert find_overlap(["abcdefgh"], ["abcdefgx"], threshold=0.72) == []


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.5, 0.8, 0.9, 1.0]))
def test_blocking_loses_nothing(seed, threshold):
    """R20: the fast search finds exactly what comparing every pair finds."""
    rng = random.Random(seed)
    texts = ["".join(rng.choices("ab c", k=rng.randint(0, 12))) for _ in range(30)]
    train, hidden = texts[:15], texts[15:]
    grams = [_grams(normalise(text)) for text in texts]
    slow = {(i, j) for i in range(15) for j in range(15) if _jaccard(grams[i], grams[15 + j]) >= threshold}
    assert {(o.train_index, o.hidden_index) for o in find_overlap(train, hidden, threshold)} == slow


def test_refusal_names_examples():
    """R20: overlap is refused at load, with the rows and a fix."""
    refuse_overlap(["a long question"], ["another thing entirely"])
    with pytest.raises(
        DataError, match=r"1 of 2 texts of the hidden data .*row 1 'Hello there' is row 0 .100%"
    ):
        refuse_overlap(["hello, there!"], ["other", "Hello there"])
