from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.rewards.final_number import final_number, final_number_reward, numbers_in
from trimtab.types import Prompt, Sample

from .toy import sample

QUESTION = "What is 27+45?"
RESTATED = numbers_in(QUESTION)
RIGHT = [
    "72",
    "72。",
    "答案是72。",
    "The answer is 72.",
    "27+45=72",
    "27 + 45 = 72.",
    "计算：27+45=？答案：72",
    "２７＋４５＝７２",
    "**72**",
    "$72$",
    "\\boxed{72}",
    "20+40=60... \\boxed{72}",
    "72.0",
    "20+40=60, 5+7=12, so 60+12=72",
    "27和45的和是72",
    "The sum of 27 and 45 is 72.",
    "27+45=60+12=72",
    "答案是72，因为27+45=72",
    "72个",
    "Answer:72",
    "- 72",
    "没错，是72",
    "72\n72",
    "<answer>72</answer>",
]
WRONG = {
    "two answers": ["71 or 72", "71, 72", "72 or 71", "71\n72", "71. 72.", "72 72 71", "71和72", "1 2 72"],
    "negation": ["not 72", "definitely not 42, but 72", "It isn't 72", "答案不是72", "never 72"],
    "hedging": ["maybe 72", "about 72", "可能是72", "大约72", "72左右", "72?", "72？", "~72", "≈72", "72吗"],
    "ranges": ["71-72", ">=72", "<72", "more than 71, 72", "72 ± 1", "between 71 and 72"],
    "other quantities": [
        "72%",
        "7.2e1",
        "0x48",
        "7²",
        "x72",
        "72x",
        "72万",
        "minus 72",
        "负72",
        "-72",
        "72.5",
    ],
    "no number": ["", "   ", "NaN", "nan", "inf", "-inf", "seventy-two", "七十二", "27+45", "144/2", "1e400"],
    "huge": ["9" * 5000, "72" * 3000, "72." + "0" * 5000, "7" * 30 + " 72"],
    "boxes": ["\\boxed{72", "\\boxed{}", "72 \\boxed{}", "\\boxed{71} \\boxed{72}", "\\boxed{72} \\boxed{"],
    "more boxes": ["\\boxed{71 or 72}", "\\boxed{\\boxed{72}}", "\\boxed{not 72}", "\\boxed 72"],
    "wrong steps": ["27+45=71, 27+45=72", "27+45=72=71", "27=72", "1+1=3 so 72"],
    "operators": ["72+0", "72-0", "72*1", "7**2", "72**72", "72/1", "72!"],
    "other digits": ["٧٢", "⑦②", "72 ٧١", "7\u20722"],
}


@pytest.mark.parametrize("text", RIGHT)
def test_right_answers_are_read(text):
    """R19: a plain answer, a restated question, correct steps, a box and full-width digits are all read."""
    assert final_number(text, RESTATED) == 72


@pytest.mark.parametrize("text", [text for texts in WRONG.values() for text in texts], ids=lambda t: t[:24])
def test_doubtful_answers_earn_nothing(text):
    """Threats: shotguns, hedging, negation, open boxes, other quantities and wrong steps earn nothing."""
    assert final_number(text, RESTATED) != 72


def test_signs():
    """R19: a minus sign is read as one only where no operand stands before it."""
    assert final_number("27-45=-18") == -18
    assert final_number("答案是-18") == -18
    assert final_number("45-27=18") == 18
    assert final_number("−18") == -18
    assert final_number("1,234") == 1234


def test_the_restated_question_must_be_whole_and_in_order():
    """Threats: the question's numbers may be repeated before the answer, not used as a second answer."""
    assert final_number("27, 72", RESTATED) is None
    assert final_number("45 and 27 make 72", RESTATED) is None
    assert final_number("27 and 45 make 72", RESTATED) == 72
    assert final_number("27 and 45 make 71, 72", RESTATED) is None
    assert final_number("27 and 45") is None


@given(st.text(alphabet="0123456789+-=.,/*% ？?万{}\\boxed是orn\n", max_size=40))
def test_never_raises_and_never_reads_what_is_not_there(text):
    """Threats: hostile text never raises, and a number that is read stands in the text."""
    found = final_number(text)
    assert found is None or str(abs(found)).rstrip("0").rstrip(".").lstrip("0.") in text.replace(",", "")


@pytest.mark.parametrize(
    "text", ["1" * 100_000, "1+" * 50_000, "(" * 100_000, "1,111" * 20_000, "- " * 50_000]
)
def test_long_text_is_read_in_linear_time(text):
    """Threats: no text makes the grader hang."""
    assert final_number(text) is None


def test_reward_is_one_or_zero():
    """R19: 1 for the right number, 0 for a wrong or doubtful one; the gold may be a number or text."""
    reward = final_number_reward()
    for gold in ("72", 72, " 72 ", "72.0"):
        assert reward.score([sample("72", QUESTION, answer=gold)])[0].value == 1.0
        assert reward.score([sample("71", QUESTION, answer=gold)])[0].value == 0.0
        assert reward.score([sample("71 or 72", QUESTION, answer=gold)])[0].value == 0.0


@pytest.mark.parametrize("gold", [None, "", "seventy", "nan", "inf", "1j", "7 2", "__import__('os')"])
def test_a_bad_gold_answer_abstains(gold):
    """R19: a row whose gold is no number abstains; it is not 0, and nothing is evaluated."""
    result = final_number_reward().score([sample("72", QUESTION, answer=gold)])[0]
    assert result.value is None
    assert result.error


def test_a_number_cut_at_the_limit_is_not_final():
    """Trap 13: "72" of a truncated completion may have been on its way to 723."""
    prompt = Prompt("0", ({"role": "user", "content": QUESTION},), {"answer": "72"})
    cut = [Sample(prompt, text, finish_reason="length") for text in ("72", "72 ", "72。好的")]
    assert [result.value for result in final_number_reward().score(cut)] == [0.0, 0.0, 1.0]


def test_numbers_of_a_question():
    """R19: the question's numbers without signs, full-width digits included."""
    assert numbers_in("计算：２７-45=？") == [Decimal(27), Decimal(45)]
