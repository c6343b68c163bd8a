"""Labelled pairs for the mathematics reward: (gold, completion, is it right, why)."""

from __future__ import annotations

Pair = tuple[str, str, bool, str]


def box(answer: str) -> str:
    """A completion that boxes its answer."""
    return f"We compute step by step.\nTherefore the answer is $\\boxed{{{answer}}}$."


# Gold, answers that are the same, answers that are not.
_ANSWERS: list[tuple[str, list[str], list[str]]] = [
    (
        "42",
        ["42", "42.0", "+42", " 42 ", "42.", "\\text{42}", "84/2", "\\frac{84}{2}"],
        ["-42", "24", "4.2", "420", "42!"],
    ),
    ("-7", ["-7", "-7.00", "−7", "-\\frac{14}{2}"], ["7", "-0.7", "--7"]),
    ("1250", ["1,250", "1250", "1250.0", "1.25e3", "1.25 \\times 10^3"], ["1.250", "12,50", "125", "1250%"]),
    (
        "0.5",
        ["0.5", ".5", "\\frac{1}{2}", "1/2", "50\\%", "50%", "\\frac12", "0.50"],
        ["5", "0.05", "50", "0.5%", "2"],
    ),
    (
        "\\frac{3}{4}",
        ["\\frac{3}{4}", "\\dfrac{3}{4}", "3/4", "0.75", "\\frac{6}{8}", "75\\%"],
        ["\\frac{4}{3}", "34", "0.34", "3.4"],
    ),
    ("\\frac{1}{3}", ["\\frac{1}{3}", "1/3", "\\frac{2}{6}"], ["0.33", "0.333", "0.3", "3", "0.3334"]),
    ("1\\frac{1}{2}", ["1\\frac{1}{2}", "\\frac{3}{2}", "1.5", "3/2"], ["11/2", "\\frac{1}{2}", "1.2"]),
    ("10^6", ["10^6", "1000000", "1,000,000", "10^{6}"], ["106", "60", "10^5", "100000"]),
    ("2^{10}", ["1024", "2^{10}", "2^10", "4^5"], ["20", "210", "1000"]),
    ("\\sqrt{8}", ["2\\sqrt{2}", "\\sqrt{8}", "\\sqrt 8", "8^{1/2}"], ["\\sqrt{2}", "8", "4", "\\sqrt{4}"]),
    ("\\pi", ["\\pi", "\\frac{2\\pi}{2}"], ["3.14", "3", "2\\pi", "\\pi^2", "22/7"]),
    (
        "2\\pi r",
        ["2\\pi r", "2 \\pi \\cdot r", "r \\cdot 2\\pi"],
        ["\\pi r^2", "2\\pi", "2\\pi R^2", "\\pi r"],
    ),
    ("x^2+2x+1", ["x^2+2x+1", "(x+1)^2", "1+2x+x^2", "x(x+2)+1"], ["x^2+1", "(x-1)^2", "x^2+2x", "x+1"]),
    ("\\frac{x}{2}", ["\\frac{x}{2}", "\\frac{2x}{4}", "0.5x", "\\frac12 x"], ["2x", "\\frac{2}{x}", "x"]),
    (
        "\\sin^2 x",
        ["\\sin^2 x", "\\sin^2(x)", "1-\\cos^2 x", "(\\sin x)^2"],
        ["\\cos^2 x", "\\sin x", "\\sin 2x"],
    ),
    (
        "(1,2)",
        ["(1,2)", "(1, 2)", "\\left(1,2\\right)", "(1.0, 2.0)"],
        ["(2,1)", "[1,2]", "(1,3)", "12", "(1,2]"],
    ),
    ("[0,1)", ["[0,1)", "[0, 1)", "\\left[0,1\\right)"], ["(0,1)", "[0,1]", "(0,1]", "[0,2)", "01"]),
    (
        "(-\\infty, 3]",
        ["(-\\infty, 3]", "(-\\infty,3]"],
        ["(-\\infty, 3)", "(3, \\infty)", "[3, \\infty)", "3"],
    ),
    (
        "\\{1,2,3\\}",
        ["\\{1,2,3\\}", "\\{3,2,1\\}", "\\{1, 3, 2\\}"],
        ["\\{1,2\\}", "\\{1,2,4\\}", "(1,2,4)", "123"],
    ),
    ("x=5", ["x=5", "5", "x = 5"], ["x=-5", "6", "x=6", "x>5"]),
    ("5", ["5", "x=5", "x = 5", "5.0"], ["x=6", "55", "5x", "x=5.5"]),
    ("\\log 2", ["\\log 2", "\\log(2)"], ["\\log 3", "2", "\\log 4"]),
    ("e^2", ["e^2", "e^{2}", "e \\cdot e"], ["2e", "e", "7.389", "e^3"]),
    (
        "3 \\text{ cm}",
        ["3 cm", "3\\text{ cm}", "30 mm", "0.03 m", "3", "3\\,\\mathrm{cm}"],
        ["3 m", "3 kg", "30 cm", "3 mm", "3 cm^2"],
    ),
    ("2 kg", ["2 kg", "2000 g", "2"], ["2 g", "2 km", "0.2 kg", "20"]),
    ("90 km/h", ["90 km/h", "25 m/s", "90"], ["90 m/s", "25 km/h", "9"]),
    ("1.5 h", ["90 min", "1.5 h", "5400 s", "1.5"], ["1.5 min", "90 h", "150 min"]),
    ("12 元", ["12元", "12 元", "12", "120角"], ["12 万元", "12 dollars", "1.2元", "120"]),
    ("30^\\circ", ["30^\\circ", "30°", "30", "30 degrees"], ["60^\\circ", "0.3", "30%", "3"]),
    ("100", ["100", "1e2", "10^2", "100个", "100 apples"], ["100 km/h!", "1000", "10", "1e3"]),
    ("0", ["0", "0.0", "-0", "\\frac{0}{5}"], ["1", "\\emptyset", "0.1", "o", "\\frac{5}{0}"]),
    (
        "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}",
        ["\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}"],
        ["\\begin{pmatrix} 1 & 3 \\\\ 2 & 4 \\end{pmatrix}", "1234"],
    ),
    ("3+4i", ["3+4i", "4i+3"], ["3-4i", "7", "5", "34i"]),
]

# Whole completions: gold, completion, right, why.
_COMPLETIONS: list[Pair] = [
    ("42", "\\boxed{42}", True, "a box alone"),
    ("42", "The answer is 42.", True, "said in a sentence"),
    ("42", "The final answer is: **42**", True, "bold"),
    ("42", "答案是42。", True, "said in Chinese"),
    ("42", "所以最终答案为：42", True, "said in Chinese"),
    ("42", "6 · 7\n#### 42", True, "GSM8K form"),
    ("42", "<answer>42</answer>", True, "an element"),
    ("42", "<think>Is it 41? No, 6·7 = 42.</think>\\boxed{42}", True, "thoughts are not the answer"),
    ("42", "42", True, "the number alone"),
    ("42", "It is not hard to see that the answer is $\\boxed{42}$.", True, "a negation of something else"),
    ("42", "This isn't obvious, but the product is \\boxed{42}.", True, "a negation of something else"),
    ("42", "We first get \\boxed{42}. Checking again, \\boxed{42}.", True, "the same twice"),
    ("x=1 or x=2", "\\boxed{x=1 \\text{ or } x=2}", True, "two solutions that are wanted"),
    ("42", "\\boxed{}", False, "an empty box"),
    ("42", "\\boxed{42", False, "an unterminated box"),
    ("42", "\\boxed{42} and then \\boxed{", False, "an unterminated last box: no fall-back"),
    ("42", "\\boxed{42} \\boxed{}", False, "an empty last box: no fall-back"),
    ("42", "\\boxed{41} or \\boxed{42}", False, "two answers"),
    ("42", "\\boxed{42} \\boxed{43}", False, "two answers"),
    ("42", "\\boxed{43} \\boxed{42}", False, "two answers, the right one last"),
    ("42", "\\boxed{41, 42, 43}", False, "a shotgun"),
    ("42", "\\boxed{42 \\text{ or } 43}", False, "either"),
    ("42", "\\boxed{42或43}", False, "either, in Chinese"),
    ("42", "It is definitely not \\boxed{42}.", False, "a negation"),
    ("42", "The answer is not \\boxed{42}", False, "a negation"),
    ("42", "The answer isn't \\boxed{42}.", False, "a negation"),
    ("42", "答案不是\\boxed{42}", False, "a negation in Chinese"),
    ("42", "The wrong answer is \\boxed{42}", False, "called wrong"),
    ("42", "\\boxed{42}, or maybe 43", False, "hedged after"),
    ("42", "Perhaps \\boxed{42}", False, "hedged before"),
    ("42", "也许是\\boxed{42}", False, "hedged in Chinese"),
    ("42", "\\boxed{42} is wrong.", False, "taken back"),
    ("42", "\\boxed{\\text{maybe } 42}", False, "hedged inside"),
    ("42", "The answer is 42 or 43.", False, "either"),
    ("42", "The answer is 42. The answer is 43.", False, "two answers in sentences"),
    ("42", "1 2 3 4 5 6 7 8 9 10 42", False, "a list of numbers"),
    ("42", "", False, "nothing"),
    ("42", "I do not know.", False, "no answer"),
    ("42", "First line\n42 somewhere\nlast line", False, "no commitment"),
    ("42", "<answer>42</answer><answer>43</answer>", False, "two elements"),
    ("42", "not <answer>42</answer>", False, "a negated element"),
    ("42", "<answer></answer>", False, "an empty element"),
    ("42", "<think>\\boxed{42}</think>", False, "only thought"),
    ("42", "\\boxed{\\boxed{43}}", False, "a box in a box"),
    ("42", "\\boxed{gold}", False, "the word for it"),
    ("42", "\\boxed{answer}", False, "the word for it"),
    ("42", "\\boxed{__import__('os').system('true') or 42}", False, "code"),
    ("42", "\\boxed{42 if True else 0}", False, "code"),
    ("42", "\\boxed{eval(42)}", False, "code"),
    ("42", "\\boxed{x}", False, "a variable"),
    ("42", "\\boxed{\\infty}", False, "infinity"),
    ("42", "\\boxed{nan}", False, "not a number"),
    ("42", "\\boxed{42 = 42 = 43}", False, "a chain that ends elsewhere"),
    ("42", "\\boxed{41 < 42 < 43}", False, "a range"),
    ("42", "\\boxed{[41, 43]}", False, "an interval around it"),
    ("42", "\\boxed{42 \\pm 1}", False, "with a tolerance"),
    ("42", "\\boxed{\\approx 42}", False, "about"),
    ("42", "\\boxed{9^{9^{9^{9}}}}", False, "a tower"),
    ("42", "\\boxed{99999999!}", False, "a factorial that hangs"),
    (
        "\\frac{1}{2}",
        "\\boxed{\\frac{1}{2}}. Hence the probability is \\boxed{0.5}.",
        False,
        "two forms: not one answer",
    ),
]


def pairs() -> list[Pair]:
    """All of them."""
    found: list[Pair] = []
    for gold, same, other in _ANSWERS:
        found += [(gold, box(answer), True, f"{answer} is {gold}") for answer in same]
        found += [(gold, box(answer), False, f"{answer} is not {gold}") for answer in other]
    return found + _COMPLETIONS
