from __future__ import annotations

import pytest

from trimtab.errors import DataError, RewardError
from trimtab.evals.judges import ScoreJudge
from trimtab.evals.win_rate import mean_interval, win_rate
from trimtab.types import Completion, Prompt, RewardResult

PROMPTS = [f"q{i}" for i in range(8)]


class First:
    """A judge that always prefers what it sees first."""

    def compare(self, prompt, first, second):
        return 1.0


def by_number(margin=0.0):
    """A judge that reads the answers as numbers."""
    return ScoreJudge(lambda prompt, response: float(response), margin)


def test_counts_and_value():
    """R27: 5 wins, 1 tie, 2 losses of 8: 0.6875; ties count half."""
    a = ["2", "2", "2", "2", "2", "1", "0", "0"]
    found = win_rate(PROMPTS, a, ["1"] * 8, by_number())
    assert (found.wins, found.ties, found.losses, found.n) == (5, 1, 2, 8)
    assert found.value == 0.6875
    assert found.low < found.value < found.high
    assert found.as_dict()["n"] == 8


def test_sides_are_swapped():
    """R27: a judge that likes the first place decides nothing; every pair is a tie."""
    found = win_rate(PROMPTS, ["a"] * 8, ["b"] * 8, First())
    assert (found.value, found.ties) == (0.5, 8)


def test_swapping_the_models_mirrors_the_result():
    """R27: win rate of A over B and of B over A add up to 1."""
    a, b = ["2", "3", "1", "5", "0", "2", "2", "7"], ["1", "4", "1", "2", "1", "2", "0", "9"]
    one, other = win_rate(PROMPTS, a, b, by_number()), win_rate(PROMPTS, b, a, by_number())
    assert one.value + other.value == 1.0
    assert (one.wins, one.ties) == (other.losses, other.ties)


def test_margin_of_scores():
    """R27: scores closer than the margin are a tie; the margin itself is a difference."""
    a, b = ["0.25", "0.5", "1"], ["0", "0", "0"]
    found = win_rate(PROMPTS[:3], a, b, by_number(0.5))
    assert (found.wins, found.ties, found.losses) == (2, 1, 0)


def test_margin_of_preferences():
    """R27: a graded judge whose mean preference is near one half gives a tie."""

    class Graded:
        def compare(self, prompt, first, second):
            return 0.7 if first == "a" else 0.4

    assert win_rate(["q"], ["a"], ["b"], Graded()).wins == 1  # (0.7 + 1 − 0.4) / 2 = 0.65
    assert win_rate(["q"], ["a"], ["b"], Graded(), tie_margin=0.2).ties == 1


def test_interval_is_seeded_and_covers():
    """R27: the same seed gives the same interval; it narrows with more prompts."""
    few = [1.0, 0.0, 1.0, 1.0, 0.5, 1.0, 0.0, 1.0]
    assert mean_interval(few, 3) == mean_interval(few, 3)
    low, high = mean_interval(few, 3)
    assert 0 < low < 0.6875 < high <= 1
    narrow = mean_interval(few * 16, 3)
    assert high - low > 3 * (narrow[1] - narrow[0])
    # The normal approximation is good at 128 prompts: 0.6875 ± 1.96 · 0.4285 / √128.
    half = 1.96 * 0.42847 / 128**0.5
    assert narrow == pytest.approx((0.6875 - half, 0.6875 + half), abs=0.015)


def test_the_pair_stays_together():
    """R27: the bootstrap is paired, so prompts on which both differ alike do not widen the interval."""
    easy = [str(i * 10) for i in range(8)]
    better = [str(i * 10 + 1) for i in range(8)]
    assert win_rate(PROMPTS, better, easy, by_number()).low > 0.5


def test_all_alike_is_not_certainty():
    """R27: n wins of n leave doubt: exact binomial bounds, by hand for n = 1, 2 and 10."""
    assert mean_interval([1.0]) == pytest.approx((0.025, 1.0))
    assert mean_interval([1.0, 1.0]) == pytest.approx((0.025**0.5, 1.0))
    assert mean_interval([1.0] * 10) == pytest.approx((0.6915, 1.0), abs=1e-4)
    assert mean_interval([0.0] * 10) == pytest.approx((0.0, 0.3085), abs=1e-4)
    assert mean_interval([0.5] * 10) == pytest.approx((0.5 - 0.3085 / 2, 0.5 + 0.3085 / 2), abs=1e-4)


@pytest.mark.parametrize("count", [0, 7])
def test_counts_must_fit(count):
    """R27: no prompts, or a missing answer, is one sentence."""
    with pytest.raises(DataError, match="one answer of each side"):
        win_rate(PROMPTS[:count], ["1"] * 8, ["1"] * 8, by_number())


@pytest.mark.parametrize("value", [float("nan"), 2.0, -0.5, "first", None])
def test_a_judges_nonsense_is_refused(value):
    """Threats: a preference that is no number in 0..1 stops the evaluation with a sentence."""

    class Odd:
        def compare(self, prompt, first, second):
            return value

    with pytest.raises(RewardError, match="not a preference"):
        win_rate(["q"], ["a"], ["b"], Odd())


def test_same_text_to_two_prompts_is_judged_for_each():
    """R27: scores are kept per prompt and answer, never per answer alone."""
    judge = ScoreJudge(lambda prompt, response: float(prompt == response))
    found = win_rate(["x", "y"], ["x", "x"], ["y", "y"], judge)
    assert (found.wins, found.losses) == (1, 1)


def test_answers_to_one_prompt_stay_together() -> None:
    """R27: several answers per prompt are averaged within it; ten copies add no certainty."""
    judge = ScoreJudge(lambda prompt, answer: float(len(answer)))
    prompts = [f"p{i}" for i in range(8)]
    ours = ["aa", "a", "aa", "aa", "a", "aa", "aa", "a"]
    theirs = ["a", "aa", "a", "a", "aa", "a", "aa", "aa"]
    once = win_rate(prompts, ours, theirs, judge)
    often = win_rate(prompts, [[a] * 10 for a in ours], [[b] * 10 for b in theirs], judge)
    assert (once.value, once.low, once.high, once.n) == (often.value, often.low, often.high, often.n)
    assert (often.wins, often.ties, often.losses) == (40, 10, 30)
    mixed = win_rate(["p", "q"], [["aa", "a"], ["aa", "aa"]], [["a", "aa"], ["a", "a"]], judge)
    assert mixed.value == 0.75
    with pytest.raises(DataError, match="as many answers"):
        win_rate(["p"], [["a", "b"]], [["a"]], judge)


def cut(text, reason="length"):
    """A completion that ended so."""
    return Completion((1,), text, (0.0,), reason)


def test_judges_are_told_which_answers_were_cut():
    """R27: a reward that judges sees the truncation, also of a text that another model ended by itself."""

    class Whole:
        name = "whole"

        def score(self, samples):
            return [RewardResult(float(sample.finish_reason == "stop")) for sample in samples]

    judge = ScoreJudge(Whole())
    found = win_rate(["q", "r", "s"], [cut("a", "stop")] * 3, [cut("a"), cut("a", "stop"), "a"], judge)
    assert (found.wins, found.ties, found.losses) == (1, 2, 0)
    assert judge.compare(Prompt("", ({"role": "user", "content": "q"},)), "a", "a") == 0.5


def test_a_judge_that_only_knows_texts_gets_texts():
    """R27: a user's judge with compare alone goes on as before."""
    seen = []

    class Plain:
        def compare(self, prompt, first, second):
            seen.append((prompt.text, first, second))
            return 1.0

    assert win_rate(["q"], [[cut("a")]], [[cut("b", "stop")]], Plain()).value == 0.5
    assert seen == [("q", "a", "b"), ("q", "b", "a")]
