from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.data import find_overlap, overlap, refuse_overlap
from trimtab.data.overlap import Overlap, _grams, _jaccard, band_rows, normalise, text_of
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
def test_up_to_two_million_pairs_nothing_is_lost(seed, threshold):
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
        DataError,
        match=r"1 of 2 texts of the hidden data .*row 1 'Hello there' is row 0 'hello, there!' .100%.*remove",
    ):
        refuse_overlap(["hello, there!"], ["other", "Hello there"])


def planted(count: int, seed: int, low: float = 0.9, high: float = 0.93) -> tuple[list[str], list[str]]:
    """Pairs of texts that are barely similar enough: what an index misses first."""
    rng = random.Random(seed)
    letters = "".join(map(chr, range(0x4E00, 0x4E00 + 600))) + "abcdefghijklmnopqrstuvwxyz0123456789"
    train, hidden = [], []
    while len(train) < count:
        text = rng.choices(letters, k=rng.randint(60, 160))
        other = list(text)
        for _ in range(rng.randint(1, 4)):
            other[rng.randrange(len(other))] = rng.choice(letters)
        if low <= _jaccard(_grams("".join(text)), _grams("".join(other))) <= high:
            train.append("".join(text))
            hidden.append("".join(other))
    return train, hidden


def recall_of_the_index(count: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> float:
    """Share of the planted pairs that the index finds; what it reports must be true."""
    monkeypatch.setattr(overlap, "EXACT_PAIRS", 0)
    train, hidden = planted(count, seed)
    found = find_overlap(train, hidden)
    assert all(o.similarity >= 0.9 for o in found)
    known, held_out = ([_grams(normalise(text)) for text in texts] for texts in (train, hidden))
    assert all(o.similarity == _jaccard(known[o.train_index], held_out[o.hidden_index]) for o in found)
    return sum(o.train_index == o.hidden_index for o in found) / count


def test_the_index_finds_near_duplicates_at_the_threshold(monkeypatch):
    """R20: of pairs that are 0.90 to 0.93 alike at least 999 in 1,000 are found, none that is not there."""
    assert recall_of_the_index(1000, 1, monkeypatch) >= 0.999


def test_what_the_index_proposes_is_verified(monkeypatch):
    """R20: pairs that are 0.80 to 0.89 alike share many bands, and none of them is reported."""
    monkeypatch.setattr(overlap, "EXACT_PAIRS", 0)
    assert find_overlap(*planted(200, 3, low=0.8, high=0.89)) == []


@pytest.mark.slow
def test_the_index_on_ten_thousand_pairs(monkeypatch):
    """R20: the same, where one missed pair is not yet a tenth of the allowance."""
    assert recall_of_the_index(10_000, 2, monkeypatch) >= 0.999


def test_equal_texts_are_found_without_the_index(monkeypatch):
    """R20: even an index that finds nothing cannot hide an exact duplicate; one text may be there twice."""
    monkeypatch.setattr(overlap, "EXACT_PAIRS", 0)
    monkeypatch.setattr("datasketch.MinHashLSH.query", lambda *_: [])
    train, hidden = ["a b c d e", "other text", "ABCDE"], ["abcde", "nothing like it", "Abcde!"]
    assert find_overlap(train, hidden) == [
        Overlap(0, 0, 1.0), Overlap(2, 0, 1.0), Overlap(0, 2, 1.0), Overlap(2, 2, 1.0)
    ]  # fmt: skip


def test_bands_by_hand():
    """R20: at 0.9, 16 bands of 8 hashes miss (1 − 0.9⁸)¹⁶ = 1.2e-4; 14 bands of 9 miss 1.0e-3, too many."""
    missed = [(1 - 0.9**8) ** 16, (1 - 0.9**9) ** 14]
    assert missed == pytest.approx([1.2e-4, 1.05e-3], rel=0.05)
    assert [band_rows(t) for t in (0.9, 0.8, 0.5, 1.0)] == [8, 5, 2, 64]


def test_what_is_compared_of_a_conversation():
    """R20: the user's turns; a system prompt that all rows share must not make them alike."""
    system = {"role": "system", "content": "You are helpful. " * 20}
    turns = [system, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert text_of([*turns, {"role": "user", "content": "c"}]) == "a\nc"
