"""Issue 4: the mathematics reward on pairs written to break it, and on 10,000 generated cases."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.rewards.math_corpus import box, pairs
from tests.unit.rewards.math_corpus_hostile import hostile_pairs

from trimtab.rewards.math_answer import MathReward, final_answer, math_reward
from trimtab.rewards.math_check import is_equal, read_quantity
from trimtab.rewards.math_text import chinese_number, is_same_word, tidy, visible
from trimtab.rewards.math_tree import read_tree
from trimtab.types import Prompt, Sample

HOSTILE = hostile_pairs()
EACH = 2000  # generated cases of each of the five properties in the slow run
SLOW = settings(max_examples=EACH, deadline=None, suppress_health_check=list(HealthCheck))
SCRIPTS = "0123456789+-*/^_=<>()[]{}|\\,.;:!?%$&~ \n\u200b\uff11零一十万亿年元度x\u0445πe"


@pytest.fixture(scope="module")
def reward() -> Iterator[MathReward]:
    """The reward with a long deadline: machines under load are no wrong answers."""
    made = math_reward(seconds=20.0)
    yield made
    made.close()


@pytest.mark.slow
def test_hostile_pairs(reward: MathReward) -> None:
    """R19, R20: at least 60 more pairs: none paid that is wrong, at most 3 % unpaid that are right."""
    known = {pair[:2] for pair in pairs()}
    assert len(HOSTILE) >= 60 and sum(pair[:2] not in known for pair in HOSTILE) >= 60
    rows = [
        Sample(Prompt("0", ({"role": "user", "content": "?"},), {"answer": gold}), text)
        for gold, text, *_ in HOSTILE
    ]
    results = reward.score(rows)
    assert all(result.error is None for result in results)
    paid = [result.value == 1.0 for result in results]
    wrong = [pair[2:] for pair, is_paid in zip(HOSTILE, paid, strict=True) if is_paid and not pair[2]]
    missed = [pair[3] for pair, is_paid in zip(HOSTILE, paid, strict=True) if pair[2] and not is_paid]
    assert not wrong
    assert len(missed) <= 0.03 * sum(pair[2] for pair in HOSTILE), missed


def test_spellings_by_hand() -> None:
    """Chinese numerals, hidden characters, words and matrices, each by hand."""
    said = {
        "二十三": 23,
        "一百零五": 105,
        "十": 10,
        "三万二千": 32000,
        "一亿零一万": 100010000,
        "二〇二四": 2024,
        "人": None,
    }
    assert {text: chinese_number(text) for text in said} == said
    assert visible("４\u200b２\u00ad²") == "42²"
    assert tidy("百分之六十") == "60/100" and tidy("三点一四") == "3.14" and tidy("一半") == "一半"
    assert read_quantity("3.5万元") == (Fraction(35000), "元") and read_quantity("1 1/2") == (
        Fraction(3, 2),
        None,
    )
    assert is_same_word("yes", "\\text{Yes}.") and not is_same_word("AB", "ab") and not is_same_word("x", "X")
    rows = read_tree("\\begin{bmatrix}1&0\\\\0&x\\end{bmatrix}").parts
    assert [[cell.text for cell in row.parts] for row in rows] == [["1", "0"], ["0", "x"]]
    # A determinant is a number and no matrix.
    assert not is_equal("\\begin{vmatrix}1\\end{vmatrix}", "\\begin{pmatrix}1\\end{pmatrix}")


def test_what_stands_around_the_box_decides() -> None:
    """Threats: doubt, denial and a change of mind in any width or script make it no answer."""
    assert final_answer("We guess 41. That fails. Hence \\boxed{42}.") == "42"
    assert final_answer("It may be shown that the sum is \\boxed{42}.") == "42"
    for text in ("It might be \\boxed{42}", "\\boxed{42}. Edit: the answer is 43.", "n\u043et \\boxed{42}",
                 "Maybe. \\boxed{42}", "\uff4e\uff4f\uff54 \\boxed{42}", "\\boxed{42} 有误"):  # fmt: skip
        assert final_answer(text) is None, ascii(text)


# Five properties, 10,000 cases together. Failing ones are shrunk to the smallest.


@pytest.mark.slow
@SLOW
@given(st.integers(-(10**12), 10**12), st.integers(1, 10**9), st.integers(1, 99))
def test_generated_fractions(top: int, bottom: int, factor: int) -> None:
    """A fraction is itself expanded and nothing a little off; with exact decimals where it has them."""
    gold, value = f"\\frac{{{top}}}{{{bottom}}}", Fraction(top, bottom)
    assert read_quantity(gold) == (value, None)
    assert is_equal(gold, f"{top * factor}/{bottom * factor}")
    assert is_equal(gold, f"\\dfrac{{{top * factor}}}{{{bottom * factor}}}")
    assert not is_equal(gold, f"\\frac{{{top * factor + 1}}}{{{bottom * factor}}}")
    if value.denominator > 1:
        assert not is_equal(gold, str(top // bottom))


@pytest.mark.slow
@SLOW
@given(st.decimals(-(10**9), 10**9, places=4), st.integers(-12, 12))
def test_generated_decimals(number: object, power: int) -> None:
    """Grouping, percent, scientific notation, full-width digits and hidden characters change no number."""
    value = Fraction(str(number))
    plain = f"{number:f}"
    assert is_equal(plain, f"{number:,f}") and is_equal(f"{number:+,f}", plain)
    assert is_equal(plain, "\u200b".join(plain)) and is_equal(
        plain, "".join(chr(ord(c) + 0xFEE0) for c in plain)
    )
    assert read_quantity(f"{plain}%") == (value / 100, None)
    scientific = read_quantity(f"{plain} \\times 10^{{{power}}}")
    assert scientific == (value * Fraction(10) ** power, None)
    assert is_equal(plain, f"{plain}e0") and not is_equal(plain, f"{plain}1e1")


@pytest.mark.slow
@SLOW
@given(st.integers(0, 10**12 - 1), st.sampled_from(["", "元", "万", "亿", "万元", "kg", "cm^2", "%", "°"]))
def test_generated_units(number: int, unit: str) -> None:
    """A number with its unit is itself, its Chinese numeral, and not its neighbour or ten times it."""
    gold = f"{number}{unit}"
    assert is_equal(gold, f"{number:,} {unit}") and is_equal(gold, f" {number}.0{unit} ")
    assert not is_equal(gold, f"{number + 1}{unit}")
    assert not number or not is_equal(gold, f"{number}0{unit}")
    assert chinese_number(numeral(number)) == number
    if unit not in ("°", "%"):
        assert is_equal(gold, f"{numeral(number)}{unit}") or unit in ("万", "亿", "万元")


@pytest.mark.slow
@SLOW
@given(
    st.integers(-999, 999),
    st.integers(-999, 999),
    st.sampled_from(["or", "maybe", "或", "可能", "not", "不是", "wait,"]),
)
def test_generated_hedges(one: int, other: int, word: str) -> None:
    """An answer alone is read as it is; beside another one, or doubted, it is none."""
    assert final_answer(box(str(one))) == str(one)
    assert final_answer(f"{word} \\boxed{{{one}}}") is None or word in ("or", "或", "wait,")
    assert final_answer(f"\\boxed{{{one}}} {word} {other}") is None or word in ("not", "不是")
    assert (final_answer(f"\\boxed{{{one}}} \\boxed{{{other}}}") is None) == (one != other)
    assert final_answer(f"\\boxed{{{one}") is None and final_answer(f"\\boxed{{{one}}}\\boxed{{}}") is None


@pytest.mark.slow
@SLOW
@given(
    st.text(alphabet=SCRIPTS, max_size=40),
    st.sampled_from(["7", "\\frac{1}{2}", "3 cm", "x=3", "[0,1)", "12万", "yes"]),
)
def test_generated_texts(text: str, gold: str) -> None:
    """Whatever is written: extraction and tidying end, reading gives a number or nothing, and never raise."""
    for completion in (text, box(text), f"The answer is {text}", f"答：{text}"):
        found = final_answer(completion)
        assert found is None or found.strip() == found != ""
    assert tidy(tidy(text)) == tidy(text) or "$" in text or "\\" in text
    read = read_quantity(tidy(text))
    assert read is None or isinstance(read[0], Fraction)
    if read is not None and (wanted := read_quantity(tidy(gold))) is not None:
        assert is_equal(gold, text) in (True, False)
        assert not is_equal(gold, text) or wanted[0] == read[0] or wanted[1] is not None


def numeral(number: int) -> str:
    """The Chinese numeral of 0 to 10^12 - 1, written from the left."""
    if number >= 10**8:
        high, low = divmod(number, 10**8)
        return numeral(high) + "亿" + (("零" if low < 10**7 else "") + numeral(low) if low else "")
    if number >= 10**4:
        high, low = divmod(number, 10**4)
        return numeral(high) + "万" + (("零" if low < 1000 else "") + numeral(low) if low else "")
    text, gap = "", False
    for unit, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = number // unit % 10
        gap = gap or (digit == 0 and text != "")
        if digit:
            text += ("零" if gap else "") + "零一二三四五六七八九"[digit] + name
            gap = False
    return text or "零"
