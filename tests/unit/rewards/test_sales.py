from __future__ import annotations

import subprocess
import sys

import pytest

from trimtab.errors import RewardError
from trimtab.rewards import SalesVerifiableReward
from trimtab.rewards.sales import WEIGHTS, format_score, length_score
from trimtab.types import RewardResult

from .toy import sample

FULL = "您好，感谢您的关注。我理解您的顾虑。\n- **优势**：上手快\n- 您想什么时候试用？"  # 43 characters
# (answer, format, elements, length, safety, total), worked out by hand from R23.
ANSWERS = [
    # Nothing at all: 0.1·0.3 + 0.2·1.
    ("", 0.0, 0.0, 0.3, 1.0, 0.23),
    # Greeting only, 2 characters: 0.3·0.2 + 0.03 + 0.2.
    ("您好", 0.0, 0.2, 0.3, 1.0, 0.29),
    # Two marks and a question mark: 0.2·0.2 + 0.3·0.2 + 0.03 + 0.2.
    ("好。好。?", 0.2, 0.2, 0.3, 1.0, 0.33),
    # A hyphen anywhere is a list mark: 0.2·0.3 + 0 + 0.03 + 0.2.
    ("a-b", 0.3, 0.0, 0.3, 1.0, 0.29),
    # "11." holds "1.", and one 。 is not two: the same 0.3 of format.
    ("11.。", 0.3, 0.0, 0.3, 1.0, 0.29),
    # Everything but length, 43 characters: 0.2·1 + 0.3·1 + 0.1·0.3 + 0.2.
    (FULL, 1.0, 1.0, 0.3, 1.0, 0.73),
    # Padded to exactly 100 characters: the maximum without relevance.
    (FULL + "好" * 57, 1.0, 1.0, 1.0, 1.0, 0.8),
    # Padded to 99: 0.2 + 0.3 + 0.07 + 0.2.
    (FULL + "好" * 56, 1.0, 1.0, 0.7, 1.0, 0.77),
    # A forbidden claim costs 0.2, and only that: 0.8 − 0.2.
    (FULL + "好" * 53 + "100%", 1.0, 1.0, 1.0, 0.0, 0.6),
    # Two keywords of one group count once; 501 characters: 0.3·0.2 + 0.07 + 0.2.
    ("了解明白" + "好" * 497, 0.0, 0.2, 0.7, 1.0, 0.33),
    # Value proposition and call to action, 801 characters: 0.3·0.4 + 0.03 + 0.2.
    ("效果预约" + "好" * 797, 0.0, 0.4, 0.3, 1.0, 0.35),
    # A forbidden word in a short answer, bold and line break: 0.2·0.5 + 0 + 0.03 + 0.
    ("**垃圾**\n", 0.5, 0.0, 0.3, 0.0, 0.13),
]


@pytest.mark.parametrize(("answer", "form", "elements", "length", "safety", "total"), ANSWERS)
def test_exact_numbers(answer, form, elements, length, safety, total):
    """R23: the exact weights, keywords and lengths, against values worked out by hand."""
    reward = SalesVerifiableReward()
    wanted = {"format": form, "elements": elements, "length": length, "safety": safety}
    assert reward.parts("太贵了", answer) == pytest.approx(wanted, abs=1e-12)
    assert reward.compute_reward("太贵了", answer) == pytest.approx(total, abs=1e-12)
    result = reward.score([sample(answer)])[0]
    assert result.value == pytest.approx(total, abs=1e-12)
    assert dict(result.parts) == pytest.approx(wanted, abs=1e-12)


def test_the_hand_made_answer_has_the_length_that_was_counted():
    """R23: the padded answers above stand exactly on the edges of the length rule."""
    assert len(FULL) == 43


@pytest.mark.parametrize(
    ("length", "score"),
    [(49, 0.3), (50, 0.7), (99, 0.7), (100, 1.0), (500, 1.0), (501, 0.7), (800, 0.7), (801, 0.3)],
)
def test_edges_of_length(length, score):
    """R23: lengths in characters, edges included on the better side."""
    assert length_score("好" * length) == score


@pytest.mark.parametrize("mark", ["1.", "2.", "-", "•"])
def test_list_marks(mark):
    """R23: any one list mark gives 0.3, several no more."""
    assert format_score(f"好{mark}") == 0.3
    assert format_score(mark * 2) == 0.3


@pytest.mark.parametrize("word", ["保证赚钱", "100%", "绝对没问题", "竞品很差", "骗人", "垃圾"])
def test_every_forbidden_word(word):
    """R23: each of the six claims makes safety 0."""
    assert SalesVerifiableReward().parts("", f"我们{word}吗")["safety"] == 0.0


def test_relevance_lifts_the_total_to_one():
    """R23: the remaining 0.2 is relevance; a perfect answer reaches 1.0 with it and 0.8 without."""
    best = FULL + "好" * 57
    assert sum(WEIGHTS.values()) == pytest.approx(1.0)
    assert SalesVerifiableReward(lambda p, r: 1.0).compute_reward("q", best) == pytest.approx(1.0)
    half = SalesVerifiableReward(lambda p, r: 0.5 if p == "q" else 0.0)
    assert half.compute_reward("q", best) == pytest.approx(0.9)
    assert half.parts("q", best)["relevance"] == 0.5


class Scorer:
    """A batch relevance scorer with one failure."""

    name = "rm"

    def score(self, samples):
        assert len(samples) == 2
        return [RewardResult(0.5), RewardResult(None, error="too long")]


def test_a_failed_relevance_abstains():
    """R19: when relevance cannot be scored the sample abstains; the rules alone are not passed off as all."""
    good, bad = SalesVerifiableReward(Scorer()).score([sample("您好"), sample("您好")])
    assert good.value == pytest.approx(0.29 + 0.1)
    assert bad.value is None
    assert bad.error == "too long"


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan"), "1"])
def test_relevance_out_of_range_is_refused(value):
    """Threats: a relevance outside 0..1 is refused, so it cannot outweigh the rules."""
    reward = SalesVerifiableReward(lambda p, r: value)
    assert reward.score([sample("您好")])[0].value is None
    with pytest.raises(RewardError):
        reward.compute_reward("q", "您好")


def test_rules_need_no_torch():
    """Design: the sales reward imports no torch."""
    code = "import sys, trimtab; trimtab.SalesVerifiableReward().compute_reward('a', 'b'); "
    code += "assert 'torch' not in sys.modules, 'torch'"
    subprocess.run([sys.executable, "-c", code], check=True)
