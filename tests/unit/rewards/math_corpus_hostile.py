"""More labelled pairs, written to break the reward: (gold, completion, is it right, why)."""

from __future__ import annotations

from tests.unit.rewards.math_corpus import Pair, box

# Gold, answers that are the same, answers that are not.
_ANSWERS: list[tuple[str, list[str], list[str]]] = [
    # Intervals, sets, unions, inequalities.
    (
        "(0,1) \\cup (2,3)",
        ["(0,1)\\cup(2,3)", "(2,3) \\cup (0,1)"],
        ["(0,3)", "(0,1) \\cap (2,3)", "(0,1]\\cup(2,3)"],
    ),
    ("x > 3", ["x>3", "x \\gt 3"], ["x < 3", "x \\ge 3", "3", "x = 3"]),
    ("\\{2\\}", ["\\{2\\}"], ["\\{2,2,3\\}", "\\emptyset", "\\{-2\\}"]),
    ("\\emptyset", ["\\emptyset"], ["0", "\\{0\\}", "1"]),
    ("(-2, 5)", ["(-2,5)", "\\left(-2, 5\\right)"], ["(2,5)", "[-2,5]", "-2,5", "(-2,5]"]),
    # Units, percentages, scientific notation.
    ("15\\%", ["15%", "15\\%", "0.15", "\\frac{3}{20}", "15 \\%"], ["15", "1.5%", "0.15%", "150%"]),
    ("120%", ["1.2", "120\\%", "6/5"], ["120", "0.12", "12%"]),
    (
        "3.0 \\times 10^8",
        ["3e8", "300000000", "3 \\cdot 10^8", "3\\times10^{8}", "300,000,000"],
        ["3 \\times 10^7", "3 \\times 10^{-8}", "38", "3.08"],
    ),
    ("6.02 \\times 10^{-3}", ["0.00602", "6.02e-3", "6.02 × 10^{-3}"], ["0.0602", "6.02e3", "602"]),
    ("2 hours", ["120 minutes", "2 h", "7200 s", "2 hours"], ["2 minutes", "120 hours", "2 days"]),
    ("5 m^2", ["5 m^2", "50000 cm^2", "5\\text{ m}^2", "5 \\mathrm{m}^2"], ["5 cm^2", "500 cm^2", "5 m/s"]),
    ("$18", ["18", "\\$18", "18 dollars", "1800 cents"], ["18 cents", "180", "18 yuan"]),
    ("3 \\text{ cm}", ["3.0\\text{cm}", "3 \\operatorname{cm}"], ["3 ms", "3 c", "3\\%", "-3 cm"]),
    # Chinese numerals and units.
    ("3.5万元", ["35000元", "3.5万元", "3.5 万元", "35,000元"], ["3.5元", "3.5亿元", "350元"]),
    ("2亿元", ["2亿元", "20000万元", "200000000元"], ["2万元", "2元", "20亿元"]),
    ("12万", ["120000", "12万", "120,000"], ["12", "12亿", "1200"]),
    ("五", ["五", "5"], ["六", "15"]),
    ("8", ["八", "8个", "8人"], ["十八", "八十", "8万"]),
    ("23", ["二十三", "23"], ["二十", "三十二", "二百三"]),
    ("60%", ["百分之六十", "60%"], ["六十", "百分之十六"]),
    # Fractions, mixed numbers, decimals.
    ("3/2", ["1 1/2", "1\\frac12", "1.5", "\\frac{3}{2}", "\\tfrac32"], ["11/2", "1/2", "1 1/3", "3.2"]),
    ("-\\frac{1}{2}", ["-1/2", "\\frac{-1}{2}", "-0.5", "\\frac{1}{-2}"], ["1/2", "-2", "\\frac{2}{-1}"]),
    ("\\frac{22}{7}", ["22/7", "3\\frac{1}{7}"], ["\\pi", "3.14", "3.142857"]),
    ("0.1", ["1/10", ".1", "0.10", "10\\%"], ["0.1000001", "0.01", "0.11"]),
    ("1000000", ["1\\,000\\,000", "10^6", "1{,}000{,}000", "1 000 000"], ["1000", "10^7", "1,000,00"]),
    # LaTeX spacing, matrices, equations, degrees, plus-minus.
    (
        "\\frac{\\pi}{4}",
        ["\\dfrac{\\pi}{4}", "\\pi/4", "\\frac\\pi4", "\\frac{ \\pi }{ 4 }", "0.25\\pi"],
        ["\\frac{4}{\\pi}", "0.785", "45"],
    ),
    (
        "\\begin{bmatrix} 1 & 0 \\\\ 0 & 1 \\end{bmatrix}",
        ["\\begin{bmatrix}1&0\\\\0&1\\end{bmatrix}", "\\begin{pmatrix}1&0\\\\0&1\\end{pmatrix}"],
        ["\\begin{bmatrix}0&1\\\\1&0\\end{bmatrix}", "1", "\\begin{bmatrix}1&0\\end{bmatrix}"],
    ),
    ("x=3", ["x = 3", "3", "3=x", "$x=3$"], ["x=-3", "y=4", "x\\ne 3", "x \\neq 3", "x>3", "x\\le3"]),
    ("y = 2x + 1", ["y=2x+1", "y = 1 + 2x", "2x+1"], ["y = 2x - 1", "y=x+1", "2x"]),
    ("45^\\circ", ["45°", "45^{\\circ}", "45 degrees", "45"], ["45'", "54°", "\\pi", "45%"]),
    ("\\pm 2", ["\\pm 2", "\\pm2", "\\{-2, 2\\}", "2, -2"], ["2", "-2", "\\pm 3", "\\mp 4"]),
    ("3 \\pm \\sqrt{5}", ["3\\pm\\sqrt{5}", "3 \\pm \\sqrt5"], ["3 + \\sqrt{5}", "3", "5 \\pm \\sqrt{3}"]),
    ("yes", ["yes", "Yes", "Yes.", "\\text{Yes}"], ["no", "yes and no", "not yes", "yesterday"]),
    ("B", ["B", "\\text{B}", "(B)", "B."], ["A", "A, B", "AB", "b or c", "D"]),
]

# Whole completions: gold, completion, right, why.
_COMPLETIONS: list[Pair] = [
    ("42", "\\boxed{4\u200b2}", True, "a zero-width space inside: the number is still 42"),
    ("42", "\\boxed{４２}", True, "full-width digits"),
    ("42", "\\boxed{42}\u200b", True, "a zero-width space after"),
    ("42", "\\boxed{4\u200b3}", False, "a zero-width space inside another number"),
    ("42", "\\boxed{4\u0662}", False, "an Arabic-Indic digit that looks like another"),
    ("O", "\\boxed{0}", False, "zero for the letter"),
    ("10", "\\boxed{lO}", False, "letters that look like digits"),
    ("x", "\\boxed{х}", False, "a Cyrillic letter"),
    ("42", "n\u200bot \\boxed{42}", False, "a negation with a zero-width space"),
    ("42", "The answer is ｎｏｔ \\boxed{42}", False, "a negation in full width"),
    ("42", "may\u00adbe \\boxed{42}", False, "a hedge with a soft hyphen"),
    ("42", "\\boxed{42} o\u200dr \\boxed{42} or 43", False, "or with a joiner"),
    ("42", "\\boxed{43}\\phantom{\\boxed{42}}", False, "a hidden box"),
    ("42", "\\boxed{43} % \\boxed{42}", False, "a box in a comment"),
    ("42", "\\boxed{\\color{white}{41} 42}", False, "hidden text in the box"),
    ("42", "\\boxed{42\\phantom{43}}", False, "hidden text in the box"),
    ("42", "\\boxed{42} \\fbox{43}", False, "two kinds of boxes"),
    ("42", "\\boxed{42}\n\nEdit: the answer is 43.", False, "changed its mind after the box"),
    ("42", "\\boxed{42} — actually, 43.", False, "changed its mind after the box"),
    ("42", "\\boxed{42}? Hmm, I doubt it.", False, "doubted after the box"),
    ("42", "It could be \\boxed{42}.", False, "could be"),
    ("42", "It might be \\boxed{42}.", False, "might be"),
    ("42", "One candidate is \\boxed{42}.", False, "a candidate"),
    ("42", "If I had to guess: \\boxed{42}", False, "a guess"),
    ("42", "答案绝对不会是\\boxed{42}", False, "a negation in Chinese"),
    ("176", "It is definitely not 11*16: \\boxed{176}", False, "its term is denied"),
    ("176", "The answer certainly isn't $11 \\times 16$ = $\\boxed{176}$", False, "its term is denied"),
    ("176", "It's not 2^4*11 = \\boxed{176}", False, "its term is denied"),
    ("176", "This cannot be 1,760/10: \\boxed{176}", False, "its term is denied"),
    ("176", "答案绝对不是11*16：\\boxed{176}", False, "its term is denied"),
    ("176", "It is not hard: 11*16 = \\boxed{176}", True, "a negation of something else"),
    ("5", "x is not 0: \\boxed{5}", True, "a condition"),
    ("13", "It is not 12 but \\boxed{13}", True, "another number is denied"),
    (
        "4",
        "The answer is not 3. It is 2+2 = \\boxed{4}",
        True,
        "another number is denied, in its own sentence",
    ),
    ("4", "答案不是3，而是\\boxed{4}", True, "another number is denied"),
    ("4", "This is not prime, 4 = \\boxed{4}", True, "a negation of something else"),
    ("42", "答案并不是\\boxed{42}", False, "a negation in Chinese"),
    ("42", "有可能是\\boxed{42}", False, "a hedge in Chinese"),
    ("42", "\\boxed{42}，也可能是43", False, "a hedge in Chinese after"),
    ("42", "\\boxed{42}是错误的", False, "taken back in Chinese"),
    ("42", "The answer is 41, 42, or 43.", False, "a list in a sentence"),
    ("42", "The answer is between 41 and 43.", False, "a range in words"),
    ("42", "The answer is 42 (or 43).", False, "either, in brackets"),
    ("42", "The answer is 42 / 43", False, "a slash of two answers"),
    ("42", "\\boxed{42; 43}", False, "a list with a semicolon"),
    ("42", "\\boxed{42 \\quad 43}", False, "a list with space"),
    ("42", "\\boxed{42 \\text{ and } 43}", False, "both"),
    ("42", "\\boxed{42, \\ldots}", False, "a list that goes on"),
    ("42", "\\boxed{\\{42\\} \\cup \\{43\\}}", False, "a union of answers"),
    ("42", "\\boxed{x \\in \\mathbb{R}}", False, "everything"),
    ("42", "\\boxed{(-\\infty,\\infty)}", False, "everything"),
    ("42", "\\boxed{42 \\cdot 1^{x}}", False, "an expression with a free variable"),
    ("42", "\\boxed{42 + 0 \\cdot \\infty}", False, "not a number"),
    ("42", "\\boxed{\\text{the gold answer}}", False, "the words for it"),
    ("42", "\\boxed{42 \\neq 43}", False, "an inequality that holds"),
    ("42", "\\boxed{42 \\ne 42}", False, "says that it is not"),
    ("42", "\\boxed{\\lnot 42}", False, "a negation inside"),
    ("42", "\\boxed{\\neg 42}", False, "a negation inside"),
    ("42", "\\boxed{\\text{not } 42}", False, "a negation inside"),
    ("42", "\\boxed{\\cancel{42}}", False, "struck out"),
    ("42", "\\boxed{42}" * 50, True, "the same many times"),
    ("42", "\\boxed{" + "9" * 5000 + "}", False, "too long to be an answer"),
    ("42", "\\boxed{" + "(" * 150 + "42" + ")" * 150 + "}", False, "nested without need"),
    ("42", "**Answer:** 42", True, "a bold label"),
    ("42", "**答案：** 42", True, "a bold label in Chinese"),
    ("42", "答：42。", True, "the Chinese form of a school answer"),
    ("42", "Answer: $42$", True, "dollars"),
    ("42", "So it is \\(\\boxed{42}\\).", True, "inline mathematics"),
    ("42", "\\[\\boxed{42}\\]", True, "displayed mathematics"),
    ("42", "\\boxed {42}", True, "a space before the brace"),
    ("42", "We could guess 41, but that fails. Hence \\boxed{42}.", True, "a rejected guess well before"),
    ("42", "No number below works, so \\boxed{42}.", True, "no, of something else"),
    ("1,2", "\\boxed{1, 2}", True, "two roots that are wanted"),
    ("1,2", "\\boxed{2, 1}", True, "two roots in the other order"),
    ("1,2", "\\boxed{1, 2, 3}", False, "one root too many"),
    ("1,2", "\\boxed{1}", False, "one root missing"),
]


def hostile_pairs() -> list[Pair]:
    """All of them."""
    found: list[Pair] = []
    for gold, same, other in _ANSWERS:
        found += [(gold, box(answer), True, f"{answer} is {gold}") for answer in same]
        found += [(gold, box(answer), False, f"{answer} is not {gold}") for answer in other]
    return found + _COMPLETIONS
