"""Issue 14, A.4: what is compared holds the whole of both texts; what a completion claims is read near it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from benchmarks.changed_golds import cases, measure
from tests.unit.rewards.math_corpus_read import OTHER, SAME, claims

from trimtab.rewards.math_answer import MathReward, math_reward
from trimtab.rewards.math_check import is_equal, is_readable
from trimtab.rewards.math_claim import boxes_of, final_answer
from trimtab.rewards.math_text import folded, tidy
from trimtab.rewards.math_units import read_unit
from trimtab.types import Prompt, Sample

pytest.importorskip("sympy")

# As handed over: gold, completion, value.
FIELD = [
    ("2**(1/4)", "\\boxed{2}", 0.0),
    ("4-\\mathrm{i}", "\\boxed{4}", 0.0),
    ("1-\\frac{1}{\\mathrm{e}}", "\\boxed{1+\\frac{1}{\\mathrm{e}}}", 0.0),
    ("\\frac{\\mathrm{d}y}{\\mathrm{d}x}=3x", "\\boxed{\\frac{\\mathrm{d}y}{\\mathrm{d}x}=2x}", 0.0),
    ("\\{x|-2\\leq x < 1\\}", "\\boxed{1}", 0.0),
    ("\\{x|-2\\leq x < 1\\}", "\\boxed{\\{x|-3\\leq x < 1\\}}", 0.0),
    ("x^2+121=0", "\\boxed{x^2+122=0}", 0.0),
    ("\\frac{1}{2^{98}}", "\\boxed{\\frac{1}{2^{99}}}", 0.0),
    ("a\\equiv 3\\pmod{7}", "\\boxed{a\\equiv 3\\pmod{5}}", 0.0),
    ("3\\mid n", "\\boxed{3}", 0.0),
    ("101_2", "\\boxed{101_3}", 0.0),
    ("5\\text{ m}^3", "\\boxed{5\\text{ cm}^3}", 0.0),
    ("2, 3, \\ldots, 10", "\\boxed{10}", 0.0),
    ("P(X=2)=0.5", "\\boxed{P(X=1)=0.5}", 0.0),
    ("(1,2)", "\\boxed{\\{1,2\\}}", 0.0),
    ("\\sin 50 t", "\\boxed{\\sin 50}", 0.0),
    ("E", "\\boxed{e}", 0.0),
    ("33.5\\%", "\\boxed{33.5 percent}", 1.0),
    ("16386.20", "\\boxed{\\$16,\\!386.20}", 1.0),
    ("[-2,7]", "\\boxed{x \\in [-2,7]}", 1.0),
    (
        "\\left[\\begin{array}{c}1\\\\2\\end{array}\\right]",
        "\\boxed{\\begin{pmatrix}1\\\\2\\end{pmatrix}}",
        1.0,
    ),
    ("2**(1/4)", "\\boxed{\\sqrt{\\sqrt{2}}}", 1.0),
    ("\\sqrt{3}-1", "\\boxed{-1 + sqrt(3)}", 1.0),
]


@pytest.fixture(scope="module")
def reward() -> Iterator[MathReward]:
    """The reward with a long deadline: machines under load are no wrong answers."""
    made = math_reward(seconds=20.0)
    yield made
    made.close()


def scored(reward: MathReward, rows: list[tuple[object, str]]) -> list[float | None]:
    """The values of completions with their gold answers."""
    asked = ({"role": "user", "content": "?"},)
    return [
        result.value
        for result in reward.score(
            [Sample(Prompt("0", asked, {"answer": gold}), text) for gold, text in rows]
        )
    ]


def test_rows_from_the_field(reward: MathReward) -> None:
    """A part of a text pays nothing; other writings of all of it do."""
    assert scored(reward, [row[:2] for row in FIELD]) == [row[2] for row in FIELD]


def test_pairs_that_say_the_same_or_not() -> None:
    """Numbers, letters, relations, moduli, bases, units and brackets count, in both directions."""
    same = [pair for pair in SAME if not (is_equal(*pair) and is_equal(*pair[::-1]))]
    other = [pair for pair in OTHER if is_equal(*pair) or is_equal(*pair[::-1])]
    assert (same, other) == ([], [])
    # One letter behind a space may be a variable: the bare number is not that gold answer.
    assert not is_equal("64 m^2", "64") and is_equal("64", "64 m^2") and is_equal("64\\text{ m}^2", "64")
    assert len(SAME) > 160 and len(OTHER) > 160


def test_claims_are_read_beside_the_answer(reward: MathReward) -> None:
    """Checks that confirm, placeholders, headings, Minerva's form, 选C; and doubt that stays doubt."""
    rows = claims()
    values = scored(reward, [(gold, text) for gold, text, _ in rows])
    wrong = [row for row, value in zip(rows, values, strict=True) if (value == 1.0) != row[2]]
    assert not wrong and len(rows) > 60


# Options with what they say, a box without braces, "or" in a list: gold, completion, value.
WRITTEN = [
    ("C", "\\boxed{\\textbf{(C)}\\ 12}", 1.0),
    ("(C)", "\\boxed{\\text{(C) }\\frac{1}{2}}", 1.0),
    ("\\text{C}", "\\boxed{C. 12}", 1.0),
    ("B", "\\boxed{\\textbf{(B)}\\ -3}", 1.0),
    ("B", "Answer: B) 12", 1.0),
    ("A", "【答案】A", 1.0),
    ("7", "So it is $\\boxed 7$.", 1.0),
    ("12", "$\\boxed 12$", 1.0),
    ("1, 2", "\\boxed{x=1\\text{ or }x=2}", 1.0),
    ("\\pm 1", "\\boxed{x=1\\text{ or }x=-1}", 1.0),
    ("D", "\\boxed{\\textbf{(C)}\\ 12}", 0.0),
    ("C", "\\boxed{(C), (D)}", 0.0),
    ("C", "\\boxed{\\textbf{(C)} and \\textbf{(D)}}", 0.0),
    ("C", "\\boxed{(C)x}", 0.0),
    ("C", "\\boxed{(C) + 1}", 0.0),
    ("C", "\\boxed{(C) - 1}", 0.0),
    ("A", "【答案】B", 0.0),
    ("A", "【答案】A或B", 0.0),
    ("1", "$\\boxed 1 2$", 0.0),
    ("7", "$\\boxed 7$ and $\\boxed 8$", 0.0),
    ("1, 2", "\\boxed{1 or 3}", 0.0),
    ("1, 2", "\\boxed{1, 2} or 3", 0.0),
    ("1 or 2", "\\boxed{1 or 2} Wait, actually 3.", 0.0),
    ("1000", "\\boxed{1000 or 2000}", 0.0),
    ("1,000", "\\boxed{1000 or 2000}", 0.0),
]


def test_answers_as_they_are_written(reward: MathReward) -> None:
    """R19: an option counts with what it says and no other one; "or" may join what the gold answer lists."""
    values = scored(reward, [(gold, text) for gold, text, _ in WRITTEN])
    assert values == [value for _, _, value in WRITTEN]


def test_what_cannot_be_read_is_the_same_only_in_the_same_writing() -> None:
    """Integrals and dots are no trees: layout and spacing may differ, nothing else."""
    gold = "\\int_0^1 x\\,dx"
    assert not is_readable(gold) and is_readable("x^2+1") and is_readable("\\text{east}")
    assert is_equal(gold, "\\int_0^1 x dx")
    assert not is_equal(gold, "\\int_0^2 x dx") and not is_equal(gold, "\\frac12")


def test_spellings_and_units_by_hand() -> None:
    """Dashes, dollars, superscripts, look-alikes; dimensions of units."""
    said = {"–5": "-5", "3–5": "3–5", "(3, –2)": "(3,-2)", "$x$": "x", "$5$; $10$": "5 ; 10", "x²": "x^{2}"}
    assert {text: tidy(text) for text in said} == said
    assert folded("nоt") == "not" and folded("Δx")[1] == "x"
    speed, other = read_unit("km/h"), read_unit("miles per hour")
    assert speed is not None and other is not None and speed.dimension == other.dimension
    assert speed.dimension == (("length", 1), ("time", -1)) and read_unit("frogs per") is None
    assert boxes_of("\\boxed{1} \\boxed{2") is None and final_answer("\\boxed{}") is None


def test_some_changed_answers() -> None:
    """One round of every kind: what is changed by construction is not paid, what is not changed is."""
    found = measure(list(cases(140, seed=7)))
    assert (found["paid"], found["missed"]) == ([], []) and found["changed"] >= 140


@pytest.mark.slow
def test_five_thousand_changed_answers() -> None:
    """28 kinds, 5,000 changed numbers, signs, relations, brackets, units, bases and moduli: paid 0."""
    made = list(cases(5000))
    found = measure(made)
    assert len({case.kind for case in made}) >= 10 and found["changed"] >= 5000
    assert (found["paid"], found["missed"]) == ([], [])
