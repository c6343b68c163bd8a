from __future__ import annotations

import pytest

from trimtab.config import RewardSpec
from trimtab.errors import RewardError
from trimtab.rewards.equalities import equalities, numbers
from trimtab.rewards.process_checks import consistent_reasoning, copied_share, has_reasoning, no_copied_prompt
from trimtab.rewards.registry import build_reward

from .toy import sample

ASKED = "小明有12元，每天花3元，4天后还剩多少？"


def value(reward, completion: str, prompt: str = ASKED) -> float | None:
    """The reward's value of one completion."""
    result = reward.score([sample(completion, prompt)])[0]
    assert result.error is None
    return result.value


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("12*3=36", [(36, True)]),
        ("12*3=35", [(35, False)]),
        ("12×3＝35，", [(35, False)]),
        ("所以3加5等于9。", [(9, False)]),
        ("3 + 4 is 8", [(8, False)]),
        ("12 divided, 3 plus 4 equals 7", [(7, True)]),
        ("5元×3个=16元", [(16, False)]),
        ("(1+2)*(3-4)/2 = -1.5", [(-1.5, True)]),
        ("10-2*3=4=5", [(4, True), (5, False)]),
        ("1,000+1=1,001", [(1001, True)]),
        (r"\frac{1}{2}+\frac{1}{2}=2", [(2, False)]),
        (r"3 \times 4 = 13", [(13, False)]),
        ("3 x 4 = 13", [(13, False)]),
        ("0.1+0.2=0.3", [(0.3, True)]),
        ("1. 3+4=8", [(8, False)]),
        ("**3+4=8**", [(8, False)]),
        ("Total = 3 + 4 = 8 apples", [(8, False)]),
        ("3+\u200b4=8", [(8, False)]),
    ],
)
def test_equalities_are_checked_exactly(text: str, found: list[tuple[float, bool]]) -> None:
    """R20: what is an equality of numbers is found in many spellings, and checked with fractions."""
    assert [(float(e.value), e.holds) for e in equalities(text)] == [(float(v), h) for v, h in found]


@pytest.mark.parametrize(
    "text",
    [
        "x+3=10", "2x=10", "f(3)=9", "x - 3 = 10", "100cm+50cm=1.5m", "60分钟=1小时", "3:4=6:8", "12:30=1",
        "3!=6", "2+3<=5", "2+3>=4", "3+4≈8", "3+4≠8", "2^3=8", "2**3=8", "√9+1=4", "12 = 13", "1/0=5",
        "3²+1=4", "3 + 4 apples = 7", "(3+4=8", "17 mod 5 = 3", "1+" + "1+" * 100 + "1=5", "1" * 19 + "+1=3",
        "3++=4", "=5", "a=3, b=4", "2024-01-02",
    ],
)  # fmt: skip
def test_what_is_not_certainly_an_equality_is_left_alone(text: str) -> None:
    """R20: an honest answer is not refused because of unknowns, units, ratios, powers or rounding."""
    assert all(equality.holds for equality in equalities(text))


def test_rounding() -> None:
    """R20: a quotient without a decimal form may be rounded or cut; nothing else may."""
    holds = {text: equalities(text)[0].holds for text in (
        "10/3=3.33", "2/3=0.67", "2/3=0.66", "2/3=0.68", "10/3=3", "1/4=0.3", "0.1*3=0.31", "10/3=3.34",
    )}  # fmt: skip
    assert [text for text, held in holds.items() if held] == ["10/3=3.33", "2/3=0.67", "2/3=0.66"]
    assert [float(n) for n in numbers("−3, 1/2 or 25%")] == [-3, 1, 2, 0.5, 0.25, 25]


@pytest.mark.parametrize(
    ("completion", "wanted"),
    [
        ("3*4=12\n12-12=0\n答案：0", 1.0),
        ("每天花3元，4天花3×4=12元。他有12元，剩下12-12=0元。\n答案是0元", 1.0),
        (
            "因为每天都花掉同样多的钱，总花费等于天数和单价的积。\n从原有的钱里去掉总花费就得到剩余。\n答案：0",
            1.0,
        ),
        (
            "4 days at 3 yuan each come to 12 yuan spent. Nothing of the 12 yuan remains. The answer is 0.",
            1.0,
        ),
        ("<think>3*4=12\n12-12=0</think>0", 1.0),
        ("", 0.0),
        ("0", 0.0),
        ("答案：0", 0.0),
        (r"\boxed{0}", 0.0),
        ("让我们一步一步思考。好的，我来想想这个问题。\n首先，需要仔细分析题目。\n答案：0", 0.0),
        ("Let me think step by step. Okay, let's think about this problem carefully.\nAnswer: 0", 0.0),
        ("3*4=12\n3*4=12\n3*4=12\n答案：0", 0.25),
        ("5*5=25\n25+1=26\n答案：0", 0.25),  # numbers that are not the prompt's; the second follows
        ("so so so so so so so so.\nvery very very very many many many many.\nAnswer: 0", 0.0),
        (ASKED + ASKED + "\n答案：0", 0.0),
        ("答案：0\n因为3*4=12，\n12-12=0", 0.0),  # reasons after the answer
        ("3*4=12\n答案：0", 0.25),
    ],
)
def test_has_reasoning(completion: str, wanted: float) -> None:
    """R20: an answer needs reasons before it; filler, repetition, copies and foreign sums are none."""
    assert value(has_reasoning(), completion) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("completion", "wanted"),
    [
        ("3*4=12\n12-12=0\n答案：0", 1.0),
        ("3*4=12\n12-12=0\n答案：5", 0.0),
        ("3*4=12\n12-12=1\n答案：1", 0.0),
        ("12*3=36. Answer: 36", 1.0),
        ("12*3=36. Answer: 35", 0.0),
        ("12*3=36. So it is 35.", 0.0),
        ("12*3=36. So it is 36.", 1.0),
        (r"12*3=36, so \boxed{35}", 0.0),
        (r"12*3=36, so \boxed{36}", 1.0),
        ("12*3=36\n答案是36个", 1.0),
        ("12*3=36. Check: 36/3=12. Answer: 36", 1.0),  # a check is no last step
        ("12*3=36. Check: 36/3=13. Answer: 36", 0.0),  # but must be right
        ("10/3=3.333. The answer is 3.33", 1.0),
        ("1/4+1/4=1/2. The answer is 50%", 1.0),
        ("1/4+1/4=1/2. The answer is 0.5", 1.0),
        ("12*3=36. Answer: 35. 35*1=35", 0.0),  # what comes after the answer does not save it
        ("12*3=36. Answer: 35.\nAnswer: 36", 1.0),  # the last one counts, as for graders
        ("答案：36", 1.0),
        ("", 1.0),
        ("So B. 12*3=36. The answer is B", 1.0),
    ],
)
def test_consistent_reasoning(completion: str, wanted: float) -> None:
    """R20: a wrong equality, or an answer that is not what was computed last, is a contradiction."""
    assert value(consistent_reasoning(), completion) == wanted


def test_no_copied_prompt() -> None:
    """R20: n-grams by hand; case, punctuation and invisible characters do not hide a copy."""
    prompt = "one two three four five six"
    assert copied_share("one two three four five seven", prompt, 5) == 0.5
    assert copied_share("ONE, two; thr\u200bee - four five!", prompt, 5) == 1.0
    assert copied_share("six five four three two one", prompt, 5) == 0.0
    assert copied_share("four", prompt, 5) == 0.0  # too short to be called a copy
    assert copied_share("4?", "4!", 5) == 1.0  # but not where it is the whole prompt
    assert copied_share("", "", 5) == 0.0
    reward = no_copied_prompt()
    assert value(reward, "one two three four five seven", prompt) == 1.0
    assert value(reward, prompt, prompt) == 0.0
    assert value(reward, prompt + " seven", prompt) == pytest.approx(0.5 * (1 / 3) / 0.5)
    assert value(reward, ASKED) == 0.0
    assert value(reward, "每天花三元的话四天一共十二元，正好花完。") == 1.0
    strict = no_copied_prompt(threshold=0.0)
    assert value(strict, "one two three four five seven", prompt) == 0.25


@pytest.mark.parametrize("build", [has_reasoning, consistent_reasoning, no_copied_prompt])
@pytest.mark.parametrize(
    "piece",
    ["1+1=2\n", "a. ", "答案是", "\\boxed{", "好的", "1", ".", "-", " ", "1.1", "x1y", "</think>a", "%/",
     "1,111", "(", "1=1=", "check ", "1 /", "加", "\n", "0-", "\\frac{1"],
)  # fmt: skip
def test_a_megabyte_is_scored(build, piece: str) -> None:
    """Threats: 1 MB of the same piece is scored, and is never an error (a slow pattern would hang here)."""
    text = piece * (1_000_000 // len(piece))
    reward = build()
    result = reward.score([sample(text, text)])[0]
    assert result.error is None
    assert result.value is not None and 0 <= result.value <= 1


def test_they_are_gates_by_name() -> None:
    """R20, R24: each can be a gate of a recipe; what fails one earns nothing."""
    names = ["has_reasoning", "consistent_reasoning", "no_copied_prompt"]
    specs = [RewardSpec(name=name, gate=True) for name in names]
    reward = build_reward([RewardSpec(name="length"), *specs])
    good, bare, wrong, copied = reward.score(
        [sample(t, ASKED) for t in ("3*4=12\n12-12=0\n答案：0", "答案：0", "3*4=12\n12-12=1\n答案：1", ASKED)]
    )
    assert good.value == 1.0
    assert (bare.value, wrong.value, copied.value) == (0.0, 0.0, 0.0)
    assert wrong.parts["consistent_reasoning"] == 0.0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("has_reasoning", {"sentences": 0}),
        ("no_copied_prompt", {"threshold": 1.0}),
        ("no_copied_prompt", {"ngram": 0}),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict) -> None:
    """R20: an option that makes no sense is one sentence."""
    with pytest.raises(RewardError, match=name):
        build_reward([RewardSpec(name=name, options=options)])
