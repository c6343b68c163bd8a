"""Win rate of one set of answers against another: position-swapped, with ties and an honest interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from trimtab.errors import DataError, RewardError
from trimtab.evals.judges import Judge, ScoreJudge, build_judge
from trimtab.rollout.collect import sample_of
from trimtab.types import Completion, Prompt, Sample

__all__ = ["Judge", "ScoreJudge", "WinRate", "build_judge", "mean_interval", "win_rate"]

Answer = str | Completion
NUM_RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class WinRate:
    """Share of comparisons that A wins, ties counted half, with a 95 % interval over ``n`` prompts."""

    value: float
    low: float
    high: float
    n: int
    wins: int
    ties: int
    losses: int

    def as_dict(self) -> dict[str, Any]:
        """The figures as plain data."""
        return asdict(self)


def win_rate(
    prompts: Sequence[Prompt | str],
    answers_a: Sequence[Answer | Sequence[Answer]],
    answers_b: Sequence[Answer | Sequence[Answer]],
    judge: Judge,
    tie_margin: float = 0.0,
    seed: int = 0,
) -> WinRate:
    """Return how often A beats B on the same prompts.

    An answer is a text, or a completion that also says whether it was cut off at the length limit; judges
    that can be told are told. Several answers per prompt are compared one to one, in order, and averaged
    within the prompt. Every pair is judged in both orders and averaged, so a judge that likes the first place
    gives ties. A mean preference within ``tie_margin`` of 0.5 is a tie. The interval is a percentile
    bootstrap over prompts: all answers to one prompt stay together, so what makes a prompt easy for both does
    not widen it, and answers to one prompt do not count as independent. Where all outcomes are alike the
    bootstrap would claim certainty; there the interval is the exact binomial one. Wins, ties and losses count
    pairs of answers.

    Raises:
        DataError: no prompts, or not as many answers of each side for every prompt.
        RewardError: the judge returned something that is not a preference in 0..1.
    """
    if not prompts or not len(prompts) == len(answers_a) == len(answers_b):
        raise DataError(
            f"A win rate needs one answer of each side per prompt: got {len(prompts)} prompts, "
            f"{len(answers_a)} and {len(answers_b)} answers."
        )
    pairs = [_pairs(*row) for row in zip(map(_as_prompt, prompts), answers_a, answers_b, strict=True)]
    flat = [pair for row in pairs for pair in row]
    prepare = getattr(judge, "prepare_samples", None)  # judges that score in batches look at all first
    if prepare is not None:
        prepare([*(a for a, _ in flat), *(b for _, b in flat)])
    prepare_pairs = getattr(judge, "prepare_pairs", None)  # and those that compare, at all the pairs
    if prepare_pairs is not None:
        prepare_pairs(flat)
    outcomes = [[_outcome(judge, pair, tie_margin) for pair in row] for row in pairs]
    means = [sum(row) / len(row) for row in outcomes]
    low, high = mean_interval(means, seed)
    every = [outcome for row in outcomes for outcome in row]
    return WinRate(
        value=sum(means) / len(means),
        low=low,
        high=high,
        n=len(means),
        wins=every.count(1.0),
        ties=every.count(0.5),
        losses=every.count(0.0),
    )


def _pairs(
    prompt: Prompt, first: Answer | Sequence[Answer], second: Answer | Sequence[Answer]
) -> list[tuple[Sample, Sample]]:
    """The pairs of answers to one prompt."""
    ours, theirs = ([side] if isinstance(side, Answer) else list(side) for side in (first, second))
    if not ours or len(ours) != len(theirs):
        raise DataError(
            f"A win rate needs as many answers of each side: prompt {prompt.id or prompt.text!r} has "
            f"{len(ours)} and {len(theirs)}."
        )
    return [(_as_sample(prompt, a), _as_sample(prompt, b)) for a, b in zip(ours, theirs, strict=True)]


def _as_sample(prompt: Prompt, answer: Answer) -> Sample:
    return Sample(prompt, answer) if isinstance(answer, str) else sample_of(prompt, answer)


def _outcome(judge: Judge, pair: tuple[Sample, Sample], tie_margin: float) -> float:
    """1, 0.5 or 0 for the first answer, judged in both orders."""
    a, b = pair
    preference = (_preference(judge, a, b) + 1.0 - _preference(judge, b, a)) / 2
    is_tie = preference == 0.5 or abs(preference - 0.5) < tie_margin
    return 0.5 if is_tie else float(preference > 0.5)


def mean_interval(outcomes: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of outcomes in 0..1: percentile bootstrap, seeded (Efron 1979).

    When all are alike: the Clopper-Pearson bound for n of n (0.025^(1/n) to 1), its mirror image for none,
    and for nothing but ties half of each: 0.5 ± (1 − 0.025^(1/n)) / 2.
    """
    n = len(outcomes)
    if len(set(outcomes)) > 1:
        found = bootstrap(
            (np.asarray(outcomes, dtype=float),),
            np.mean,
            n_resamples=NUM_RESAMPLES,
            confidence_level=CONFIDENCE,
            method="percentile",
            random_state=np.random.default_rng(seed),
        ).confidence_interval
        return float(found.low), float(found.high)
    room = 1.0 - ((1.0 - CONFIDENCE) / 2) ** (1.0 / n)
    value = outcomes[0]
    return max(0.0, value - room * value), min(1.0, value + room * (1.0 - value))


def _as_prompt(prompt: Prompt | str) -> Prompt:
    if isinstance(prompt, Prompt):
        return prompt
    return Prompt(id="", messages=({"role": "user", "content": prompt},))


def _preference(judge: Judge, first: Sample, second: Sample) -> float:
    compare = getattr(judge, "compare_samples", None)
    if compare is not None:
        return _checked(compare(first, second))
    return _checked(judge.compare(first.prompt, first.completion, second.completion))


def _checked(preference: float) -> float:
    if not (isinstance(preference, (int, float)) and math.isfinite(preference) and 0 <= preference <= 1):
        raise RewardError(f"The judge returned {preference!r}, which is not a preference between 0 and 1.")
    return float(preference)
