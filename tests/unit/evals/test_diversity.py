from __future__ import annotations

import random
from collections import Counter
from itertools import combinations

import pytest

from trimtab.evals.diversity import compare_distinct, count_ngrams, rarefied_distinct
from trimtab.functional.text_stats import distinct_n


def test_expected_share_equals_all_draws():
    """R17: the closed form is the mean over every draw without replacement."""
    items = "aaabbc"
    counts = Counter((c,) for c in items)
    for size in range(1, 7):
        draws = list(combinations(items, size))
        wanted = sum(len(set(draw)) for draw in draws) / len(draws) / size
        assert rarefied_distinct(counts, size) == pytest.approx(wanted)


def test_equal_sizes_are_plain_distinct_n():
    """R17: at equal numbers of n-grams nothing is changed."""
    a, b = [[1, 2, 1, 2]], [[1, 2, 3, 4]]
    assert compare_distinct(a, b) == (pytest.approx(distinct_n(a, 2)), pytest.approx(distinct_n(b, 2)))
    assert compare_distinct(a, b) == (pytest.approx(2 / 3), pytest.approx(1.0))


def test_length_alone_is_no_loss_of_diversity():
    """R14: a model that writes four times as much of the same kind is not called repetitive."""
    rng = random.Random(0)
    short = [[rng.randrange(12) for _ in range(20)] for _ in range(20)]
    long = [[rng.randrange(12) for _ in range(80)] for _ in range(20)]
    plain = distinct_n(long, 2) / distinct_n(short, 2)
    a, b = compare_distinct(short, long)
    assert plain < 0.5
    assert 0.9 < b / a < 1.1


def test_collapse_is_seen():
    """R14: the same answer to everything scores low beside varied ones, in either place."""
    rng = random.Random(1)
    varied = [[rng.randrange(50) for _ in range(10)] for _ in range(20)]
    collapsed = [varied[0]] * 40
    assert compare_distinct(collapsed, varied)[0] < 0.3 < compare_distinct(collapsed, varied)[1]
    assert compare_distinct(varied, collapsed)[0] > 0.3 > compare_distinct(varied, collapsed)[1]


def test_nothing_to_count():
    """R17: empty and too short completions give 0."""
    assert compare_distinct([[1]], [[1, 2, 3]]) == (0.0, 0.0)
    assert count_ngrams(["ab", "ab"], 2) == {("a", "b"): 2}
