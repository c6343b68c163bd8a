"""Machine-changed gold answers: what the reward `math` pays for an answer that is wrong by construction.

    python benchmarks/changed_golds.py --count 5000
    python benchmarks/changed_golds.py --gsm8k gsm8k_test.jsonl

Every answer is made of parameters that the generator knows. So it also knows which writings are the same and
which mean something else: another number, sign, relation, bracket, unit, base, modulus or letter. Nothing of
the reward takes part in that. Exit code 1 when a changed answer is paid or an unchanged one is not.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from trimtab.rewards.math_answer import math_reward
from trimtab.types import Prompt, Sample


@dataclass(frozen=True, slots=True)
class Case:
    """A gold answer, writings that are the same, and answers that are not."""

    kind: str
    gold: str
    same: tuple[str, ...]
    changed: tuple[str, ...]


Draw = random.Random


def _other(rng: Draw, value: int, low: int, high: int) -> int:
    """A number of the range that is not ``value``."""
    found = rng.randint(low, high - 1)
    return found + (found >= value)


def _integer(rng: Draw) -> Case:
    n = rng.randint(1000, 10**18)
    wrong = (str(n + 1), str(-n), f"{n}0", f"{n}\\%", f"{n}!", f"\\frac{{{n}}}{{7}}")
    return Case(
        "integer", str(n), (f"{n:,}", f"{n}.0", f"+{n}", f"x={n}", f"{n:,}".replace(",", "{,}")), wrong
    )


def _decimal(rng: Draw) -> Case:
    whole, part = rng.randint(0, 999), rng.randint(1, 9998)
    text = f"{whole}.{part:04d}"
    wrong = (f"{whole}.{_other(rng, part, 1, 9998):04d}", f"-{text}", f"{whole + 1}.{part:04d}", f"{text}1")
    return Case("decimal", text, (f"{text}0", f"+{text}", f"{text}e0", f"{whole}{part:04d}/10000"), wrong)


def _fraction(rng: Draw) -> Case:
    top, bottom, k = rng.randint(1, 999), rng.randint(2, 99), rng.randint(2, 9)
    value = Fraction(top, bottom)
    wrong = (Fraction(top + 1, bottom), Fraction(top, bottom + 1), -value, value + 1)
    return Case(
        "fraction",
        f"\\frac{{{top}}}{{{bottom}}}",
        (f"{top}/{bottom}", f"\\dfrac{{{top * k}}}{{{bottom * k}}}", f"{value}"),
        tuple(f"\\frac{{{one.numerator}}}{{{one.denominator}}}" for one in wrong),
    )


def _unit(rng: Draw) -> Case:
    n = rng.randint(2, 9999)
    unit, others = rng.choice(
        [
            ("cm", ("m", "mm", "kg")),
            ("kg", ("g", "km")),
            ("hours", ("minutes", "days")),
            ("m/s", ("km/h", "m")),
        ]
    )
    same = (f"{n} {unit}", f"{n}\\,\\mathrm{{{unit}}}", f"{n}.0\\text{{ {unit}}}", str(n))
    wrong = [f"{n}\\text{{ {other}}}" for other in others] + [
        f"{n + 1}\\text{{ {unit}}}",
        f"-{n}\\text{{ {unit}}}",
    ]
    return Case("unit", f"{n}\\text{{ {unit}}}", same, tuple(wrong))


def _power_of_unit(rng: Draw) -> Case:
    n = rng.randint(2, 999)
    wrong = (f"{n}\\text{{ m}}^3", f"{n}\\text{{ cm}}^2", f"{n + 1}\\text{{ cm}}^3", f"{n}\\text{{ cm}}")
    return Case("power of a unit", f"{n}\\text{{ cm}}^3", (f"{n} cm^3", f"{n}\\mathrm{{cm}}^{{3}}"), wrong)


def _money(rng: Draw) -> Case:
    n, cents = rng.randint(1000, 99999), rng.randint(10, 99)
    same = (f"{n}.{cents}", f"\\${n:,}.{cents}", f"{n:,}.{cents} dollars".replace(",", ",\\!"))
    wrong = (
        f"\\${n}.{_other(rng, cents, 10, 99)}",
        f"\\${n + 1}.{cents}",
        f"-\\${n}.{cents}",
        f"{n}.{cents}\\%",
        f"€{n}.{cents}",
    )
    return Case("money", f"\\${n}.{cents}", same, wrong)


def _root(rng: Draw) -> Case:
    a, b, c = rng.randint(1, 99), rng.randint(2, 30), rng.choice([2, 3, 5, 7, 11, 13])
    gold = f"{a}+{b}\\sqrt{{{c}}}"
    same = (f"{b}\\sqrt{{{c}}}+{a}", f"{a} + sqrt({b * b * c})", f"{a}+{b} \\cdot {c}^{{1/2}}")
    wrong = (
        f"{a}-{b}\\sqrt{{{c}}}",
        f"{a}+{b}\\sqrt{{{c + 4}}}",
        f"{a + 1}+{b}\\sqrt{{{c}}}",
        f"{a}+{b}\\sqrt[3]{{{c}}}",
        f"{a}",
    )
    return Case("root", gold, same, wrong)


def _polynomial(rng: Draw) -> Case:
    a, b, c = rng.randint(2, 9), rng.randint(1, 20), rng.randint(1, 30)
    gold = f"{a}x^2-{b}x+{c}"
    same = (f"{c}-{b}x+{a}x^{{2}}", f"x({a}x-{b})+{c}", f"{a} \\cdot x^2 - {b} \\cdot x + {c}")
    wrong = (
        f"{a}x^2+{b}x+{c}",
        f"{a}x^3-{b}x+{c}",
        f"{a}y^2-{b}y+{c}",
        f"{a + 1}x^2-{b}x+{c}",
        f"{a}x^2-{b}x",
        f"{a}x^2-{b}+{c}",
    )
    return Case("polynomial", gold, same, wrong)


def _equation(rng: Draw) -> Case:
    m, b = rng.randint(2, 30), rng.randint(1, 50)
    gold = f"y={m}x+{b}"
    wrong = (
        f"y={m}x-{b}",
        f"y={m + 1}x+{b}",
        f"y={m}x+{b + 1}",
        f"x={m}y+{b}",
        f"y<{m}x+{b}",
        f"y \\neq {m}x+{b}",
    )
    return Case("equation", gold, (f"y = {b} + {m}x", f"{m}x+{b}=y", f"{m}x-y+{b}=0"), wrong)


def _inequality(rng: Draw) -> Case:
    low, width = rng.randint(-50, 50), rng.randint(1, 40)
    high = low + width
    same = (f"x \\in [{low},{high})", f"[{low}, {high})", f"{high}>x\\ge {low}")
    wrong = (
        f"{low}<x<{high}", f"{low}\\leq x\\leq {high}", f"{low}\\leq y<{high}", f"{low - 1}\\leq x<{high}",
        f"{low}\\leq x<{high + 1}", str(low), str(high), f"x<{high}",
    )  # fmt: skip
    return Case("inequality", f"{low}\\leq x<{high}", same, wrong)


def _set_builder(rng: Draw) -> Case:
    low, high = rng.randint(-20, 0), rng.randint(1, 20)
    gold = f"\\{{x|{low}\\leq x<{high}\\}}"
    wrong = tuple(
        f"\\{{x|{text}\\}}"
        for text in (f"{low - 1}\\leq x<{high}", f"{low}<x<{high}", f"{low}\\leq x<{high + 1}")
    )
    return Case(
        "set by a condition",
        gold,
        (f"\\{{x \\mid {low} \\le x < {high}\\}}", f"[{low},{high})"),
        (*wrong, str(high)),
    )


def _interval(rng: Draw) -> Case:
    low, width = rng.randint(-99, 99), rng.randint(1, 50)
    high = low + width
    wrong = (
        f"[{low},{high}]",
        f"({low},{high})",
        f"[{low},{high})",
        f"({low},{high + 1}]",
        f"({low - 1},{high}]",
        f"({high},{low}]",
        f"({low},\\infty)",
    )
    return Case(
        "interval", f"({low},{high}]", (f"\\left({low}, {high}\\right]", f"{low}<x\\le {high}"), wrong
    )


def _tuple(rng: Draw) -> Case:
    a, b = rng.sample(range(-99, 99), 2)
    wrong = (
        f"({b},{a})",
        f"[{a},{b}]",
        f"\\{{{a},{b}\\}}",
        f"({a},{b},{a})",
        f"({a + 1},{b})",
        f"({a},{-b if b else 1})",
        f"{a},{b}",
    )
    return Case("pair", f"({a},{b})", (f"\\left( {a}, {b} \\right)", f"({a}.0,{b})"), wrong)


def _set(rng: Draw) -> Case:
    a, b, c = rng.sample(range(-50, 50), 3)
    wrong = (
        f"({a},{b},{c})",
        f"\\{{{a},{b}\\}}",
        f"\\{{{a},{b},{c + 100}\\}}",
        f"\\{{{a},{b},{c},{c + 100}\\}}",
        str(c),
    )
    return Case(
        "set", f"\\{{{a},{b},{c}\\}}", (f"\\{{{c}, {a}, {b}\\}}", f"\\left\\{{{b},{a},{c}\\right\\}}"), wrong
    )


def _congruence(rng: Draw) -> Case:
    m = rng.randint(3, 40)
    r = rng.randrange(1, m)
    wrong = (
        f"n\\equiv {r}\\pmod{{{m + 1}}}",
        f"n\\equiv {_other(rng, r, 0, m - 1)}\\pmod{{{m}}}",
        f"k\\equiv {r}\\pmod{{{m}}}",
        f"n\\equiv {r}",
        f"n={r}",
        f"{r}\\pmod{{{m}}}",
        str(r),
    )
    return Case(
        "congruence",
        f"n\\equiv {r}\\pmod{{{m}}}",
        (f"n \\equiv {r} (mod {m})", f"n\\equiv{r + m} \\pmod {m}"),
        wrong,
    )


def _base(rng: Draw) -> Case:
    base = rng.randint(2, 9)
    digits = "1" + "".join(str(rng.randrange(base)) for _ in range(5))
    last = (int(digits[-1]) + 1) % base
    wrong = (
        f"{digits}_{{{base + 1}}}",
        f"{digits[:-1]}{last}_{{{base}}}",
        digits,
        str(int(digits, base)),
        f"{digits}0_{{{base}}}",
    )
    return Case("base", f"{digits}_{{{base}}}", (f"{digits}_{base}", f"0{digits}_{{{base}}}"), wrong)


def _complex(rng: Draw) -> Case:
    a, b = rng.randint(1, 60), rng.randint(2, 60)
    wrong = (f"{a}+{b}i", f"-{a}-{b}i", f"{a + 1}-{b}i", f"{a}-{b + 1}i", f"{a}-{b}", f"{a}", f"{a}-{b}j")
    return Case(
        "complex number",
        f"{a}-{b}\\mathrm{{i}}",
        (f"-{b}i+{a}", f"{a}-{b}i", f"{a} - i{b}".replace(f"i{b}", f"i \\cdot {b}")),
        wrong,
    )


def _exponential(rng: Draw) -> Case:
    a, n = rng.randint(2, 30), rng.randint(2, 99)
    wrong = (
        f"{a}-\\frac{{1}}{{\\mathrm{{e}}^{{{n + 1}}}}}",
        f"{a}+\\frac{{1}}{{\\mathrm{{e}}^{{{n}}}}}",
        f"{a}",
        f"{a}-\\frac{{1}}{{\\pi^{{{n}}}}}",
        f"{a}-\\frac{{1}}{{E^{{{n}}}}}",
    )
    return Case(
        "power of e",
        f"{a}-\\frac{{1}}{{\\mathrm{{e}}^{{{n}}}}}",
        (f"{a}-e^{{-{n}}}", f"{a} - 1/e^{n}"),
        wrong,
    )


def _big_power(rng: Draw) -> Case:
    base, n = rng.randint(2, 9), rng.randint(40, 300)
    wrong = (
        f"\\frac{{1}}{{{base}^{{{n + 1}}}}}",
        f"\\frac{{2}}{{{base}^{{{n}}}}}",
        f"-\\frac{{1}}{{{base}^{{{n}}}}}",
        "0",
        f"\\frac{{1}}{{{base}^{{{n}}}+1}}",
    )
    return Case("large power", f"\\frac{{1}}{{{base}^{{{n}}}}}", (f"{base}^{{-{n}}}", f"1/{base}^{n}"), wrong)


def _function(rng: Draw) -> Case:
    n = rng.randint(2, 60)
    name, other = rng.sample(["sin", "cos", "tan"], 2)
    wrong = (
        f"\\{other} {n}t",
        f"\\{name} {n}",
        f"\\{name} {n + 1}t",
        f"\\{name} {n}x",
        f"{n}\\{name} t",
        f"-\\{name} {n}t",
    )
    return Case("function", f"\\{name} {n} t", (f"\\{name}({n}t)", f"\\{name}\\left({n} t\\right)"), wrong)


def _logarithm(rng: Draw) -> Case:
    base, n = rng.choice([2, 3, 5, 7]), rng.choice([11, 13, 17, 19, 23])
    wrong = (
        f"\\log_{{{base + 1}}} {n}",
        f"\\log_{base} {n + 2}",
        f"\\log {n}",
        f"\\ln {n}",
        str(n),
        f"-\\log_{base} {n}",
        f"\\log_{n} {base}",
    )
    return Case(
        "logarithm",
        f"\\log_{base} {n}",
        (f"\\log_{{{base}}}({n})", f"\\frac{{\\ln {n}}}{{\\ln {base}}}"),
        wrong,
    )


def _matrix(rng: Draw) -> Case:
    a, b, c, d = rng.sample(range(-30, 30), 4)

    def written(*entries: int, kind: str = "pmatrix") -> str:
        return f"\\begin{{{kind}}}{entries[0]}&{entries[1]}\\\\{entries[2]}&{entries[3]}\\end{{{kind}}}"

    same = (
        written(a, b, c, d, kind="bmatrix"),
        f"\\left[\\begin{{array}}{{cc}}{a}&{b}\\\\{c}&{d}\\end{{array}}\\right]",
    )
    wrong = (
        written(a, c, b, d),
        written(a + 100, b, c, d),
        written(a, b, c, d + 100),
        written(a, b, c, d, kind="vmatrix"),
        f"{a},{b},{c},{d}",
    )
    return Case("matrix", written(a, b, c, d), same, wrong)


def _ratio(rng: Draw) -> Case:
    a, b = rng.sample(range(1, 60), 2)
    return Case(
        "ratio or time",
        f"{a}:{b:02d}",
        (f"{a} : {b:02d}", f"{a}\\!:\\!{b:02d}"),
        (f"{b}:{a:02d}", f"{a}:{b + 1:02d}", f"{a + 1}:{b:02d}", str(a), f"{a}{b:02d}"),
    )


def _divides(rng: Draw) -> Case:
    n = rng.randint(2, 99)
    return Case(
        "divides",
        f"{n}\\mid n",
        (f"{n} \\mid n", f"{n} | n"),
        (f"{n + 1}\\mid n", str(n), f"{n}\\nmid n", f"{n}\\mid m", f"n\\mid {n}", f"{n}n"),
    )


def _probability(rng: Draw) -> Case:
    n, p = rng.randint(1, 9), rng.randint(11, 98)
    wrong = (
        f"P(X={n + 1})=0.{p}",
        f"P(X={n})=0.{_other(rng, p, 11, 98)}",
        f"P(Y={n})=0.{p}",
        f"P(X<{n})=0.{p}",
        f"P(X={n})<0.{p}",
        f"0.{p}",
    )
    return Case(
        "probability", f"P(X={n})=0.{p}", (f"P(X = {n}) = 0.{p}", f"P(X={n})=\\frac{{{p}}}{{100}}"), wrong
    )


def _roots(rng: Draw) -> Case:
    a, b = rng.sample(range(-40, 40), 2)
    wrong = (
        f"x={a}",
        f"x={a} or x={b + 100}",
        f"y={a} or y={b}",
        f"x={a} or x={b} or x={b + 100}",
        f"x<{a} or x={b}",
        f"x={a} or x>{b}",
    )
    return Case(
        "solutions",
        f"x={a} or x={b}",
        (f"x={b} \\text{{ or }} x={a}", f"x={a}, x={b}", f"{a}, {b}", f"\\{{{b},{a}\\}}"),
        wrong,
    )


def _plus_minus(rng: Draw) -> Case:
    a, c = rng.randint(1, 40), rng.choice([2, 3, 5, 6, 7])
    wrong = (
        f"{a}+\\sqrt{{{c}}}",
        f"{a}-\\sqrt{{{c}}}",
        f"{a}\\pm\\sqrt{{{c + 8}}}",
        f"{a + 1}\\pm\\sqrt{{{c}}}",
        f"-{a}\\pm\\sqrt{{{c}}}",
    )
    return Case(
        "plus or minus",
        f"{a}\\pm\\sqrt{{{c}}}",
        (f"{a} \\pm \\sqrt{c}", f"{a}-\\sqrt{{{c}}}, {a}+\\sqrt{{{c}}}"),
        wrong,
    )


def _infinite(rng: Draw) -> Case:
    n = rng.randint(-40, 40)
    wrong = (
        f"({n},\\infty)",
        f"(-\\infty,{n})",
        f"(-\\infty,{n + 1}]",
        f"[{n},\\infty)",
        "-\\infty",
        str(n),
        f"x<{n}",
    )
    return Case(
        "half line", f"(-\\infty,{n}]", (f"(-∞, {n}]", f"x \\le {n}", f"x \\in (-\\infty, {n}]"), wrong
    )


KINDS: tuple[Callable[[Draw], Case], ...] = (
    _integer, _decimal, _fraction, _unit, _power_of_unit, _money, _root, _polynomial, _equation, _inequality,
    _set_builder, _interval, _tuple, _set, _congruence, _base, _complex, _exponential, _big_power, _function,
    _logarithm, _matrix, _ratio, _divides, _probability, _roots, _plus_minus, _infinite,
)  # fmt: skip


def cases(count: int, seed: int = 0) -> Iterator[Case]:
    """Cases of all kinds in turn until there are ``count`` changed answers."""
    rng, changed = random.Random(seed), 0
    while changed < count:
        for make in KINDS:
            case = make(rng)
            yield case
            changed += len(case.changed)


def gsm8k_cases(file: Path) -> Iterator[Case]:
    """GSM8K's answers: the whole solution is the gold answer, and its number the answer."""
    rng = random.Random(0)
    for line in file.read_text(encoding="utf-8").splitlines():
        solution = json.loads(line)["answer"]
        said = re.sub(r".*####\s*", "", solution, flags=re.DOTALL).strip()
        n = int(said.replace(",", ""))
        same = (said, str(n), f"{n:,}", f"{n}.00", f"\\${n}" if n >= 0 else str(n), f"{n}\\text{{ dollars}}")
        wrong = (
            str(n + 1),
            str(n + rng.randint(2, 999)),
            str(-n) if n else "1",
            f"{n}5",
            f"{n}.5",
            f"{n}\\%" if n else "2",
        )
        yield Case("gsm8k", solution, same, wrong)


def measure(made: Sequence[Case]) -> dict[str, list[tuple[str, str, str]] | int]:
    """Score every writing by the reward; what is paid wrongly and what is missed, with its gold answer."""
    reward = math_reward(workers=2, seconds=30.0)
    try:
        found: dict[str, list[tuple[str, str, str]]] = {"paid": [], "missed": []}
        rows = [(case, text, True) for case in made for text in case.same]
        rows += [(case, text, False) for case in made for text in case.changed]
        samples = [
            Sample(
                Prompt("0", ({"role": "user", "content": "?"},), {"answer": case.gold}), f"\\boxed{{{text}}}"
            )
            for case, text, _ in rows
        ]
        for (case, text, is_same), result in zip(rows, reward.score(samples), strict=True):
            if (result.value == 1.0) != is_same:
                found["missed" if is_same else "paid"].append((case.kind, case.gold, text))
        return {**found, "same": sum(row[2] for row in rows), "changed": sum(not row[2] for row in rows)}
    finally:
        reward.close()


def main() -> int:
    """Print the figures; the exit code says whether all is as constructed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=5000, help="changed answers to make")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gsm8k", type=Path, help="a file of GSM8K instead")
    options = parser.parse_args()
    made = list(gsm8k_cases(options.gsm8k) if options.gsm8k else cases(options.count, options.seed))
    found = measure(made)
    wrong = {key: value for key, value in found.items() if isinstance(value, list)}
    print(f"kinds: {len({case.kind for case in made})}, gold answers: {len(made)}")
    print(f"changed answers: {found['changed']}, paid: {len(wrong['paid'])}")
    print(f"the same in other writings: {found['same']}, not paid: {len(wrong['missed'])}")
    for name, rows in wrong.items():
        print(*(f"{name}: {dict(Counter(kind for kind, _, _ in rows))} {row}" for row in rows[:20]), sep="\n")
    return int(any(wrong.values()))


if __name__ == "__main__":
    raise SystemExit(main())
