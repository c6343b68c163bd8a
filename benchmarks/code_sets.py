"""HumanEval and MBPP as published, graded by the reward `code`: right solutions, and mutants of them.

The rows go into the reward as they are; nothing is converted here. What a mutant deserves is found without
any part of the reward: the set's own tests are run on it by plain Python in a process with a time limit. A
mutant that passes them is no mutant (equivalent under these tests) and is counted by itself. Of HumanEval's
programs the function that is asked for is changed, not the helpers that its prompt gives: the sets' own
harness would take a solution's word for those, the reward takes the prompt's.

    python benchmarks/code_sets.py --humaneval HumanEval.jsonl --mbpp mbpp.jsonl --mutants 3 --json out.json
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.rewards.code_tests import CodeReward, code_reward
from trimtab.types import Prompt, RewardResult, Sample

Row = Mapping[str, Any]
_OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.And: ast.Or, ast.Or: ast.And,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.Not: ast.UAdd, ast.USub: ast.UAdd,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class CodeSet:
    """A public set: how its right solution and the program of its own harness are made from a row."""

    name: str
    rows: tuple[Row, ...]
    solution: Callable[[Row], str]
    harness: Callable[[Row, str], str]
    function: Callable[[Row], str] = lambda row: ""  # what is changed in a mutant; "" is all of it


@dataclass(frozen=True, slots=True)
class Figures:
    """What was paid. A canonical solution or mutant is right when the set's own harness passes it."""

    canonical: int
    canonical_right: int
    canonical_paid: int  # of those that are right
    abstained: int
    wrong: int  # mutants that the harness fails
    wrong_unpaid: int
    equivalent: int  # mutants that it passes
    equivalent_paid: int
    disagreements: tuple[str, ...]


def humaneval(rows: Sequence[Row]) -> CodeSet:
    """OpenAI's HumanEval: ``prompt``, ``canonical_solution``, ``test`` with ``check(candidate)``."""
    return CodeSet(
        "HumanEval",
        tuple(rows),
        lambda row: row["prompt"] + row["canonical_solution"],
        lambda row, code: f"{code}\n{row['test']}\ncheck({row['entry_point']})\n",
        lambda row: str(row["entry_point"]),
    )


def mbpp(rows: Sequence[Row]) -> CodeSet:
    """Google's MBPP: ``code``, ``test_list`` and ``test_setup_code``."""
    return CodeSet(
        "MBPP",
        tuple(rows),
        lambda row: row["code"],
        lambda row, code: "\n".join(
            [
                code,
                row.get("test_setup_code") or "",
                *row["test_list"],
                *(row.get("challenge_test_list") or []),
            ]
        ),
    )


def mutants(code: str, count: int, rng: random.Random, function: str = "") -> list[str]:
    """Up to ``count`` different programs, each with one change in ``code``, or in a function of it."""
    tree = ast.parse(code)
    inside = [node for node in tree.body if function in ("", getattr(node, "name", None))]
    own = {id(node) for part in inside for node in ast.walk(part)}
    sites = [
        (place, way)
        for place, node in enumerate(ast.walk(tree))
        if id(node) in own
        for way in range(len(_changes(node)))
    ]
    rng.shuffle(sites)
    found: list[str] = []
    plain = ast.unparse(tree)
    for place, way in sites:
        other = copy.deepcopy(tree)
        _changes(list(ast.walk(other))[place])[way]()
        text = ast.unparse(ast.fix_missing_locations(other))
        if text not in (plain, *found):
            found.append(text)
        if len(found) >= count:
            break
    return found


def _changes(node: ast.AST) -> list[Callable[[], None]]:
    """What may be changed at a node: an operator, a comparison, a constant, a bound, a returned value."""
    return list(_changes_of(node))


def _changes_of(node: ast.AST) -> Iterator[Callable[[], None]]:
    operator = getattr(node, "op", None)
    if type(operator) in _OPERATORS:
        yield lambda: setattr(node, "op", _OPERATORS[type(operator)]())
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _OPERATORS:
        yield lambda: node.ops.__setitem__(0, _OPERATORS[type(node.ops[0])]())
    if isinstance(node, ast.Constant) and not isinstance(node.value, (bytes, type(...))):
        yield lambda: setattr(node, "value", _other_constant(node.value))
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "range" and node.args:
        last = node.args[-1] if len(node.args) < 3 else node.args[1]
        place = node.args.index(last)
        for change in (ast.Add(), ast.Sub()):
            yield lambda change=change: node.args.__setitem__(  # type: ignore[misc]
                place, ast.BinOp(last, change, ast.Constant(1))
            )
    if isinstance(node, ast.Return) and node.value is not None:
        value = node.value
        yield lambda: setattr(node, "value", ast.Constant(None))
        yield lambda: setattr(node, "value", ast.UnaryOp(ast.Not(), value))
        yield lambda: setattr(node, "value", ast.List([value], ast.Load()))
        yield lambda: setattr(node, "value", ast.BinOp(value, ast.Add(), ast.Constant(1)))


def _other_constant(value: Any) -> Any:
    if value is None:
        return 0
    if isinstance(value, bool):
        return not value
    return value + "x" if isinstance(value, str) else value + 1


def passes_harness(program: str, seconds: float = 10.0) -> bool:
    """Whether a program ends without an error, in plain Python and a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            ended = subprocess.run(
                [sys.executable, "-I", "-"],
                input=program.encode(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
    return ended.returncode == 0


def paid(code_set: CodeSet, reward: CodeReward, answers: Sequence[tuple[Row, str]]) -> list[RewardResult]:
    """What the reward says of programs, each as a completion in a fence; the row is given as it is."""
    samples = []
    for row, code in answers:
        prompt = str(row.get("prompt") or row.get("text") or "")
        columns = {key: value for key, value in row.items() if key != "prompt"}
        talk = ({"role": "user", "content": prompt},)
        samples.append(Sample(Prompt(str(row["task_id"]), talk, columns), f"```python\n{code}\n```"))
    return reward.score(samples)


def measure(code_set: CodeSet, reward: CodeReward, num_mutants: int, seed: int = 0) -> Figures:
    """Grade canonical solutions and mutants, and compare with the set's own harness."""
    rng = random.Random(seed)
    canonical = [(row, code_set.solution(row)) for row in code_set.rows]
    changed = [
        (row, other)
        for row, code in canonical
        for other in mutants(code, num_mutants, rng, code_set.function(row))
    ]
    answers = [*canonical, *changed]
    programs = [code_set.harness(row, code) for row, code in answers]
    with ThreadPoolExecutor(2) as threads:
        truth = list(threads.map(passes_harness, programs))
    values = [result.value for result in paid(code_set, reward, answers)]
    first = len(canonical)
    told = [
        f"{row['task_id']} ({'canonical' if number < first else 'mutant'}): harness {is_right}, paid {value}"
        for number, ((row, _), is_right, value) in enumerate(zip(answers, truth, values, strict=True))
        if value is None or bool(value) != is_right
    ]
    right = [value for value, is_right in zip(values[first:], truth[first:], strict=True) if is_right]
    wrong = [value for value, is_right in zip(values[first:], truth[first:], strict=True) if not is_right]
    return Figures(
        canonical=first,
        canonical_right=sum(truth[:first]),
        canonical_paid=sum(v == 1 and t for v, t in zip(values[:first], truth[:first], strict=True)),
        abstained=sum(value is None for value in values),
        wrong=len(wrong),
        wrong_unpaid=sum(not value for value in wrong),
        equivalent=len(right),
        equivalent_paid=sum(value == 1 for value in right),
        disagreements=tuple(told),
    )


def main() -> int:
    """Measure the sets whose files are given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--humaneval", metavar="FILE", help="HumanEval.jsonl")
    parser.add_argument("--mbpp", metavar="FILE", help="mbpp.jsonl")
    parser.add_argument("--mutants", type=int, default=3, help="mutants of each solution (3)")
    parser.add_argument("--limit", type=int, default=10_000, help="rows of each set")
    parser.add_argument("--json", metavar="FILE", help="also write the figures here")
    args = parser.parse_args()
    found: dict[str, Any] = {}
    for make, path in ((humaneval, args.humaneval), (mbpp, args.mbpp)):
        if path is None:
            continue
        rows = [json.loads(line) for line in Path(path).read_text("utf-8").splitlines() if line.strip()]
        code_set, reward = make(rows[: args.limit]), code_reward()
        figures = measure(code_set, reward, args.mutants)
        reward.pool.close()
        shown = {name: getattr(figures, name) for name in Figures.__slots__}
        found[code_set.name] = shown
        print(f"{code_set.name}: {len(code_set.rows)} rows")
        print(f"  canonical right {figures.canonical_right}, of them paid {figures.canonical_paid}")
        print(f"  wrong mutants {figures.wrong}, unpaid {figures.wrong_unpaid}")
        print(f"  equivalent mutants {figures.equivalent}, paid {figures.equivalent_paid}")
        print("  " + "\n  ".join(figures.disagreements))
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
