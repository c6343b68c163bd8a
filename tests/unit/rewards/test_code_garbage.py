"""Rows and answers that are garbage: a sentence for the one, no error for the other, whatever they hold."""

from __future__ import annotations

import datetime
import random
from typing import Any

from tests.unit.rewards.test_code_tests import Scripted

from trimtab.errors import RewardError
from trimtab.rewards.code_formats import read_tests
from trimtab.rewards.code_tests import CodeReward, passes
from trimtab.rewards.sandbox import RunResult
from trimtab.types import Prompt, Sample

KEYS = [
    *("tests", "test_list", "input", "output", "inputs", "outputs", "fn", "fn_name", "args"),
    *("kwargs", "expected", "type", "testtype", "test_cases", "test", "entry_point"),
    *("metadata", "starter_code", "test_setup_code", "test_imports", "language", "tolerance"),
    *("rtol", "reward_model", "ground_truth", "verification_info", "call", "checker", "setup"),
    *("assert", "public_tests", "private_tests", "input_output", "hidden_tests"),
    *("challenge_test_list"),
]
TAGS = [
    *("dict", "tuple", "set", "long", "bytes", "complex", "number", "deque", "ordered"),
    *("counter", "object", "name", "function", "value"),
]
LEAVES = [
    *(None, 1, -2.5, True, "", "add", "1 2", "[1,2]", "stdin", "functional", "(1,", "\0", "\ud800", "0xf"),
    *("assert add(1,2)==3", '{"inputs":["1"],"outputs":["2"]}', "add(1, 2)", "a = 1, b = 2", "{'a': {1}}"),
    *("def check(candidate):\n    assert candidate(1)==1", b"x", float("nan"), float("inf"), 10**5000),
    *(datetime.date(2026, 1, 1), "fractions.Fraction", "1/0", "python", hex(10**5000)),
]


def made(rng: random.Random, keys: list[str], depth: int = 0) -> Any:
    """A value of mappings, lists and leaves."""
    kind = rng.random()
    if depth > 4 or kind < 0.4:
        return rng.choice(LEAVES)
    if kind < 0.7:
        return {rng.choice(keys): made(rng, keys, depth + 1) for _ in range(rng.randint(0, 4))}
    return [made(rng, keys, depth + 1) for _ in range(rng.randint(0, 4))]


def test_rows_of_garbage_are_told() -> None:
    """Each is read, or refused in one sentence that names the row."""
    num_read = 0
    for seed in range(4000):
        rng = random.Random(seed)
        columns = {rng.choice(KEYS): made(rng, KEYS) for _ in range(rng.randint(1, 6))}
        try:
            read_tests(columns, "tests", "7", rng.choice(["", "def add(a, b):\n", "import os\n"]))
            num_read += 1
        except RewardError as error:
            assert "row 7" in str(error) and "\n" not in str(error).strip()
    assert 20 < num_read < 3980


def test_answers_of_garbage_are_wrong() -> None:
    """Whatever a sandbox writes, it is compared without an error, and is not what was expected."""
    expected: list[Any] = [17, "seventeen", [17, 18], {"17": 18}, None, 1.7, {1, 17}]
    for seed in range(4000):
        rng = random.Random(seed)
        reply = {rng.choice(["value", "output", "error"]): made(rng, TAGS)}
        case = {"fn": "f", "args": [], "expected": rng.choice(expected)}
        is_none = case["expected"] is None and reply.get("value", 1) is None
        assert passes(case, reply) is is_none
        assert passes({"input": "", "output": "17"}, reply) is False


def test_a_long_key_costs_nothing_else() -> None:
    """A number with thousands of digits cannot be written out; as a key of an answer it is just wrong."""
    key = [{"long": hex(10**5000)}, 1]
    assert not passes({"fn": "f", "args": [], "expected": {"1": 1}}, {"value": {"dict": [key]}})
    assert passes({"fn": "f", "args": [], "expected": {10**5000: 1}}, {"value": {"dict": [key]}})


def test_a_row_that_breaks_its_reader_abstains_alone() -> None:
    """Also where nobody thought of what it holds."""

    class Odd(dict[str, Any]):
        def get(self, *_: Any) -> Any:
            raise KeyError("odd")

    talk = ({"role": "user", "content": "?"},)
    good = Prompt("1", talk, {"tests": [{"fn": "f", "args": [], "expected": 1}]})
    reward = CodeReward(Scripted(RunResult({0: {"value": 1}})))  # type: ignore[arg-type]
    results = reward.score([Sample(Prompt("0", talk, Odd()), "x = 1"), Sample(good, "def f(): return 1")])
    assert [result.value for result in results] == [None, 1.0]
    assert "row 0 cannot be read" in str(results[0].error)
