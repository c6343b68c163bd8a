"""Leakage between data sets (R20): exact after normalisation, and near-duplicates by character n-grams."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.errors import DataError
from trimtab.types import Message

NGRAM = 3
EXACT_PAIRS = 2_000_000  # up to here every pair is compared: about a second, and nothing can be missed
NUM_HASHES = 128
MISSED = 2e-4  # largest share of pairs right at the threshold that the index may miss
SEED = 20


@dataclass(frozen=True, slots=True)
class Overlap:
    """A training text and a hidden text that are the same, or nearly: indices and Jaccard similarity."""

    train_index: int
    hidden_index: int
    similarity: float


def text_of(messages: Iterable[Message]) -> str:
    """What is compared of a conversation: all that the user says. A system prompt is shared by every row."""
    return "\n".join(message["content"] for message in messages if message["role"] == "user")


def normalise(text: str) -> str:
    """Return the text without case, width, punctuation and white space: what cannot tell two tasks apart.

    Digits and signs of arithmetic are kept: `2+3` and `2-3` are different tasks.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(char for char in folded if char.isalnum() or char in "+-*/^<>=%$")


def find_overlap(train: Sequence[str], hidden: Sequence[str], threshold: float = 0.9) -> list[Overlap]:
    """Return the pairs of a training and a hidden text that are equal or at least ``threshold`` similar.

    Similarity is the Jaccard index of the sets of character 3-grams of the normalised texts. It is always
    computed, so no pair is reported that is not there. Up to ``EXACT_PAIRS`` pairs all are compared. Above,
    equal texts are found by their text, and candidates for the others by MinHash and banding (Broder 1997;
    Indyk and Motwani 1998), which misses at most ``MISSED`` of the pairs whose similarity is the threshold,
    and fewer of those above it.

    Example:
        >>> find_overlap(["What is 2+2?"], ["what is 2+2"])
        [Overlap(train_index=0, hidden_index=0, similarity=1.0)]
    """
    known, held_out = [normalise(text) for text in train], [normalise(text) for text in hidden]
    if len(known) * len(held_out) <= EXACT_PAIRS:
        found = _among_all(known, held_out, threshold)
    else:
        found = _among_candidates(known, held_out, threshold)
    return sorted(found, key=lambda overlap: (overlap.hidden_index, overlap.train_index))


def find_equal(train: Sequence[str], hidden: Sequence[str]) -> list[Overlap]:
    """Return the pairs that are equal after normalisation: for families of tasks, which are alike by design.

    Example:
        >>> find_equal(["What is 2+2?", "What is 2+3?"], ["what is 2+3"])
        [Overlap(train_index=1, hidden_index=0, similarity=1.0)]
    """
    known: dict[str, list[int]] = defaultdict(list)
    for index, text in enumerate(train):
        known[normalise(text)].append(index)
    return [
        Overlap(train_index, hidden_index, 1.0)
        for hidden_index, text in enumerate(hidden)
        for train_index in known.get(normalise(text), ())
    ]


def refuse_overlap(
    train: Sequence[str],
    hidden: Sequence[str],
    found: Sequence[Overlap] | None = None,
    *,
    names: tuple[str, str] = ("the training data", "the hidden data"),
) -> None:
    """Raise when a hidden text is in the training data; ``found`` are the pairs where they are known already.

    Raises:
        DataError: with the number of hidden texts concerned and up to three examples, both texts shown.
    """
    found = find_overlap(train, hidden) if found is None else found
    if found:
        fix = f"remove these rows from {names[0]}"
        raise DataError(f"{describe_overlap(found, train, hidden, names)}; {fix}.")


def describe_overlap(
    found: Sequence[Overlap], train: Sequence[str], hidden: Sequence[str], names: tuple[str, str]
) -> str:
    """Say how many hidden texts are in the training data, with up to three pairs. Rows count from 0."""
    count = len({overlap.hidden_index for overlap in found})
    examples = ", ".join(
        f"row {overlap.hidden_index} '{_short(hidden[overlap.hidden_index])}' is row {overlap.train_index} "
        f"'{_short(train[overlap.train_index])}' ({overlap.similarity:.0%} alike)"
        for overlap in found[:3]
    )
    return f"{count} of {len(hidden)} texts of {names[1]} are also in {names[0]}: {examples}"


def _among_all(known: Sequence[str], held_out: Sequence[str], threshold: float) -> Iterator[Overlap]:
    train_grams = [_grams(text) for text in known]
    for hidden_index, text in enumerate(held_out):
        grams = _grams(text)
        low, high = threshold * len(grams) - 1e-9, len(grams) / threshold + 1e-9
        for train_index, others in enumerate(train_grams):
            # Sets of too different sizes cannot be similar enough; that settles most pairs.
            if low <= len(others) <= high and (alike := _jaccard(others, grams)) >= threshold:
                yield Overlap(train_index, hidden_index, alike)


def _among_candidates(known: Sequence[str], held_out: Sequence[str], threshold: float) -> Iterator[Overlap]:
    """The hidden texts are the index, so that memory does not grow with the training data."""
    from datasketch import MinHashLSH  # type: ignore[import-untyped,unused-ignore]

    rows = band_rows(threshold)
    index = MinHashLSH(num_perm=NUM_HASHES, params=(NUM_HASHES // rows, rows))
    equal: dict[str, list[int]] = defaultdict(list)
    for number, (text, hashes) in enumerate(zip(held_out, _hashes(held_out), strict=True)):
        equal[text].append(number)
        index.insert(number, hashes)
    grams = [_grams(text) for text in held_out]
    for train_index, (text, hashes) in enumerate(zip(known, _hashes(known), strict=True)):
        same = set(equal.get(text, ()))
        yield from (Overlap(train_index, hidden_index, 1.0) for hidden_index in same)
        candidates = set(index.query(hashes)) - same
        own = _grams(text) if candidates else frozenset[str]()
        for hidden_index in candidates:
            alike = _jaccard(own, grams[hidden_index])
            if alike >= threshold:
                yield Overlap(train_index, hidden_index, alike)


def band_rows(threshold: float) -> int:
    """The longest band for which at most ``MISSED`` of the pairs at ``threshold`` share none.

    Two sets of similarity t agree in a band of r hashes with probability t^r, so they are missed by all b
    bands with (1 − t^r)^b. Longer bands give fewer candidates.
    """
    fits = [
        rows
        for rows in range(1, NUM_HASHES // 2 + 1)
        if (1 - threshold**rows) ** (NUM_HASHES // rows) <= MISSED
    ]
    return max(fits, default=1)


def _hashes(texts: Sequence[str]) -> Iterator[Any]:
    """A MinHash of each text; the seed is fixed, so the same data give the same answer everywhere."""
    from datasketch import MinHash

    sets = ([gram.encode() for gram in _grams(text)] for text in texts)
    yield from MinHash.generator(sets, num_perm=NUM_HASHES, seed=SEED)


def _grams(text: str) -> frozenset[str]:
    if len(text) <= NGRAM:
        return frozenset((text,))
    return frozenset(text[i : i + NGRAM] for i in range(len(text) - NGRAM + 1))


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 40 else f"{line[:39]}…"
