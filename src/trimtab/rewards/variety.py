"""Variety as a reward: an answer that does not repeat itself, and one that is not like its group's others.

Both look at the text and not at tokens, folded so that what nobody sees (width, case, white space, characters
without a glyph) makes no two passages different. They say nothing about sense: noise is varied, so give them
a small weight beside a reward that judges the answer.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from trimtab.errors import RewardError
from trimtab.functional.text_stats import distinct_n, repeated_share, shared_shares
from trimtab.rewards.rules import RuleReward
from trimtab.types import RewardResult, Sample

# A run of letters and digits of an alphabet is one unit; every other character (CJK) is one by itself.
_UNITS = re.compile(r"[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+|\S")


def units(text: str) -> list[str]:
    """Words of alphabetic scripts, single characters of the others; folded, in order."""
    plain = unicodedata.normalize("NFKC", text)
    seen = "".join(
        char for char in plain if unicodedata.category(char) not in ("Cf", "Mn", "Cc") or char == "\n"
    )
    return _UNITS.findall(seen.casefold())


def repetition(n: int = 4) -> RuleReward:
    """1 less the share of n-grams that the completion has said before: 1 where nothing is repeated.

    A completion with fewer than ``n`` units repeats nothing.

    Raises:
        RewardError: ``n`` is below 1.
    """
    _check_n("repetition", n)
    return RuleReward("repetition", lambda sample: 1.0 - repeated_share(units(sample.completion), n))


class DiversityReward:
    """1 less the mean share of a completion's n-grams that the others of its group have, in 0..1.

    A group is the completions of one prompt (``prompt.id``) that are scored together; one alone does not
    apply. An empty completion scores 0. The part ``distinct`` is distinct-n of the whole group: it is the
    same for all of them, so no group baseline can learn from it, and it is recorded but not added.
    """

    name = "diversity"

    def __init__(self, n: int = 4) -> None:
        _check_n("diversity", n)
        self.n = n

    def score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Return one result per sample, in order."""
        groups: dict[str, list[int]] = {}
        for row, sample in enumerate(samples):
            groups.setdefault(sample.prompt.id, []).append(row)
        results = [RewardResult(None)] * len(samples)
        for rows in groups.values():
            if len(rows) < 2:
                continue
            texts = [units(samples[row].completion) for row in rows]
            parts = {"distinct": distinct_n(texts, self.n)}
            for row, shared in zip(rows, shared_shares(texts, self.n), strict=True):
                results[row] = RewardResult(1.0 - shared, parts)
        return results


def diversity(n: int = 4) -> DiversityReward:
    """1 less the mean share of a completion's n-grams that the others of its group have, in 0..1.

    Raises:
        RewardError: ``n`` is below 1.
    """
    return DiversityReward(n)


def _check_n(name: str, n: int) -> None:
    if n < 1:
        raise RewardError(f"Reward {name}: n = {n} must be at least 1.")
