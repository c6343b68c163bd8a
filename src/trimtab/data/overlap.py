"""Leakage between data sets (R20): exact after normalisation, and near-duplicates by character n-grams."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.errors import DataError

NGRAM = 3


@dataclass(frozen=True, slots=True)
class Overlap:
    """A training text and a hidden text that are the same, or nearly: indices and Jaccard similarity."""

    train_index: int
    hidden_index: int
    similarity: float


def normalise(text: str) -> str:
    """Return the text without case, width, punctuation and white space: what cannot tell two tasks apart.

    Digits and signs of arithmetic are kept: `2+3` and `2-3` are different tasks.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(char for char in folded if char.isalnum() or char in "+-*/^<>=%$")


def find_overlap(train: Sequence[str], hidden: Sequence[str], threshold: float = 0.9) -> list[Overlap]:
    """Return the pairs of a training and a hidden text that are equal or at least ``threshold`` similar.

    Similarity is the Jaccard index of the sets of character 3-grams of the normalised texts. Blocking is
    exact, by prefix filtering (Chaudhuri et al. 2006): two sets of similarity ≥ t share one of their
    ``n − ceil(t·n) + 1`` rarest grams, so only texts that share a rare gram are compared.

    Example:
        >>> find_overlap(["What is 2+2?"], ["what is 2+2"])
        [Overlap(train_index=0, hidden_index=0, similarity=1.0)]
    """
    train_grams = [_grams(normalise(text)) for text in train]
    hidden_grams = [_grams(normalise(text)) for text in hidden]
    counts: Counter[str] = Counter(gram for grams in (*train_grams, *hidden_grams) for gram in grams)
    index: dict[str, list[int]] = defaultdict(list)
    for position, grams in enumerate(train_grams):
        for gram in _rarest(grams, counts, threshold):
            index[gram].append(position)
    found = []
    for position, grams in enumerate(hidden_grams):
        candidates = {c for gram in _rarest(grams, counts, threshold) for c in index.get(gram, ())}
        for candidate in sorted(candidates):
            similarity = _jaccard(train_grams[candidate], grams)
            if similarity >= threshold:
                found.append(Overlap(candidate, position, similarity))
    return found


def refuse_overlap(
    train: Sequence[str],
    hidden: Sequence[str],
    threshold: float = 0.9,
    *,
    names: tuple[str, str] = ("the training data", "the hidden data"),
) -> None:
    """Raise when a hidden text is in the training data.

    Raises:
        DataError: with the number of hidden texts concerned and up to three examples.
    """
    found = find_overlap(train, hidden, threshold)
    if not found:
        return
    count = len({overlap.hidden_index for overlap in found})
    examples = ", ".join(
        f"row {overlap.hidden_index} '{_short(hidden[overlap.hidden_index])}' is row {overlap.train_index}"
        f" ({overlap.similarity:.0%} alike)"
        for overlap in found[:3]
    )
    raise DataError(
        f"{count} of {len(hidden)} texts of {names[1]} are also in {names[0]} ({examples}): "
        "remove them from one of the two."
    )


def _grams(text: str) -> frozenset[str]:
    if len(text) <= NGRAM:
        return frozenset((text,))
    return frozenset(text[i : i + NGRAM] for i in range(len(text) - NGRAM + 1))


def _rarest(grams: frozenset[str], counts: Counter[str], threshold: float) -> list[str]:
    # The slack keeps a similarity that equals the threshold when t·n is off by rounding.
    keep = len(grams) - math.ceil(threshold * len(grams) - 1e-9) + 1
    return sorted(grams, key=lambda gram: (counts[gram], gram))[:keep]


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 40 else f"{line[:39]}…"
