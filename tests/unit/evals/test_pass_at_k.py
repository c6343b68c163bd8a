from __future__ import annotations

from itertools import combinations

import pytest

from trimtab.evals.pass_at_k import mean_pass_at_k, pass_at_k


@pytest.mark.parametrize("n", range(1, 7))
def test_equals_counting_every_draw(n):
    """R27: the closed form is the share of all k-subsets that hold a right sample."""
    for right in range(n + 1):
        samples = [i < right for i in range(n)]
        for k in range(1, n + 1):
            draws = list(combinations(samples, k))
            assert pass_at_k(n, right, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_edges():
    """R27: pass@1 is the mean; no right sample is 0; more right ones than places for wrong ones is 1."""
    assert pass_at_k(10, 3, 1) == pytest.approx(0.3)
    assert pass_at_k(10, 0, 10) == 0.0
    assert pass_at_k(10, 6, 5) == 1.0
    for bad in ((2, 3, 1), (2, -1, 1), (2, 1, 0), (2, 1, 3)):
        with pytest.raises(ValueError, match="pass_at_k"):
            pass_at_k(*bad)


def test_mean_leaves_out_problems_with_too_few_samples():
    """R19: a problem whose samples abstained is left out, not failed."""
    assert mean_pass_at_k([[True, False], [False, False], [True]], 2) == 0.5
    assert mean_pass_at_k([[True]], 2) == 0.0
