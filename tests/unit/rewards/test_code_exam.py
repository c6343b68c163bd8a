"""Tests that are programs: what attacks them earns nothing, and what they expect never reaches a solution."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from tests.unit.rewards.code_rows import ADD
from tests.unit.rewards.test_code_attacks import ATTACKS, LEVELS, left_processes, sample, why_not

from trimtab.rewards.code_exam import make_script, names_of, wanted_of
from trimtab.rewards.code_tests import CodeReward, code_reward
from trimtab.rewards.sandbox.leftovers import own_name
from trimtab.rewards.sandbox.session import Session, is_shallow

ASSERTS = ["assert double(1) == 2", "assert double(7) == 14", "x = -3\nassert double(x) == 2 * x"]
# What answers in the solution's place, or looks like what is expected.
FORGERIES = {
    "a verdict in place of an answer": """
import sys
def double(x):
    frame = sys._getframe()
    while "_answer" not in frame.f_globals:
        frame = frame.f_back
    for _ in range(3):
        frame.f_globals["_answer"]('{"verdicts": [true, true, true], "fault": null}')
""",
    "an end in place of an answer": """
import sys
def double(x):
    frame = sys._getframe()
    while "_answer" not in frame.f_globals:
        frame = frame.f_back
    frame.f_globals["_answer"]('{"ended": null}')
""",
    "an answer that is no JSON": """
import sys
def double(x):
    frame = sys._getframe()
    while "_answer" not in frame.f_globals:
        frame = frame.f_back
    frame.f_globals["_answer"]('{"value": ' + '[' * 100000)
""",
    "calls of functions that no test gave": """
import sys
def double(x):
    frame = sys._getframe()
    while "_theirs" not in frame.f_globals:
        frame = frame.f_back
    return frame.f_globals["_theirs"](0)(x)
""",
    "an object that equals everything": """
class All:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __bool__(self): return True
    def __hash__(self): return hash(2)
    def __contains__(self, other): return True
    def __len__(self): return 2
def double(x): return All()
""",
    "a list that equals everything": """
class All(list):
    def __eq__(self, other): return True
    def __len__(self): return 99
def double(x): return All([x])
""",
    "a class that says what it is": """
class Liar:
    __class__ = int
    def __index__(self): return 2
    def __int__(self): return 2
def double(x): return Liar()
""",
    "an argument that changes": "def double(x): x += x; return [x]",
    "a missing function": "def triple(x): return 3 * x",
    "an import that is not there": "def double(x):\n    import numpy\n    return 2 * x",
}


@pytest.fixture(scope="module", params=LEVELS)
def reward(request: pytest.FixtureRequest) -> Iterator[CodeReward]:
    """The reward with short limits at both levels; nothing of its sandboxes is left behind."""
    if (reason := why_not(request.param)) is not None:
        pytest.skip(reason)
    made = code_reward(seconds_per_case=1.0, memory_mib=256, sandbox=request.param)
    yield made
    made._examiner.close()
    made.pool.close()
    assert left_processes(own_name().rpartition("-")[0]) == []


def test_attacks_on_asserts_earn_nothing(reward: CodeReward) -> None:
    """Every attack and forgery gets 0, and right answers after them are paid.

    Only 2 + 0j is 2 where a test says ``==`` in Python.
    """
    attacks = {name: attack["code"] for name, attack in ATTACKS.items() if name != "complex"}
    codes = attacks | FORGERIES
    filled = [
        code.replace("@OUTSIDE@", "/proc/none").replace("@REPOSITORY@", __file__) for code in codes.values()
    ]
    results = reward.score([sample(code, ASSERTS) for code in filled])
    paid = {name: result for name, result in zip(codes, results, strict=True) if result.value != 0.0}
    assert paid == {}
    right = reward.score([sample("def double(x):\n    return 2 * x", ASSERTS)])
    assert [result.value for result in right] == [1.0]


def test_an_object_is_neither_true_nor_equal(reward: CodeReward) -> None:
    """Of what a solution returns, only plain values can be true, be a length, or be among others."""
    code = "class All:\n    def __bool__(self): return True\n    def __contains__(self, one): return True\n"
    code += "    def __eq__(self, one): return True\n    __hash__ = None\ndef double(x): return All()\n"
    tests = [
        "assert double(1)",
        "assert not not double(1)",
        "assert 2 in double(1)",
        "assert double(1) in [2]",
    ]
    results = reward.score([sample(code, [test]) for test in tests])
    assert [result.value for result in results] == [0.0] * len(tests)
    plain = reward.score([sample("def double(x): return [2]", [test]) for test in tests[:3]])
    assert [result.value for result in plain] == [1.0] * 3


def test_what_is_expected_reaches_no_solution(reward: CodeReward, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a test that expects 987654321, nothing that is sent to the solution holds the number."""
    sent: dict[int, list[Any]] = {}
    ask = Session.ask

    def spy(self: Session, message: Mapping[str, Any], end: float) -> Any:
        sent.setdefault(id(self), []).append(message)
        return ask(self, message, end)

    monkeypatch.setattr(Session, "ask", spy)
    tests = ["assert add(987654320, 1) == 987654321", "assert 987654321 in [add(987654320, 1)]"]
    assert reward.score([sample(ADD, tests)])[0].value == 1.0
    told = [str(messages) for messages in sent.values() if all("do" in m for m in messages)]
    assert len(told) == 1 and "987654320" in told[0] and "987654321" not in told[0]


def test_one_exam_leaves_nothing_for_the_next(reward: CodeReward) -> None:
    """Tests that change the state of their process, or end it, do so for themselves."""
    poison = ["import builtins\nbuiltins.abs = lambda x: 0\nassert add(1, 1) == 2"]
    ending = ["import os\nadd(1, 1)\nos._exit(0)\nassert False"]
    asking = ["assert abs(add(1, 1) - 3) == 1"]
    results = reward.score([sample(ADD, tests) for tests in (poison, asking, ending, asking)])
    assert [result.value for result in results] == [1.0, 1.0, None, 1.0]
    assert "ended their own process" in str(results[2].error)


def test_what_hangs(reward: CodeReward) -> None:
    """A solution that hangs is wrong, and so is one whose answers keep the tests going; others abstain."""
    cases = [
        ("def add(a, b):\n    while True: pass", ["assert add(1, 1) == 2"]),
        (ADD, ["while add(1, 1):\n    pass\nassert True"]),
        (ADD, ["while True:\n    pass\nassert add(1, 1) == 2"]),
    ]
    results = reward.score([sample(code, tests) for code, tests in cases])
    assert [result.value for result in results] == [0.0, 0.0, None]
    assert "did not end in time" in str(results[2].error)


def test_names_of_a_script() -> None:
    """What the tests define, or Python has, is not the solution's."""
    script = make_script(["def ref(x):\n    return x\nfor n in range(3):\n    assert add(n) == ref(n)"])
    assert wanted_of(script) == {"add"}
    assert names_of(script) == {"add", "ref", "n", "x"}
    only = make_script(["assert sum([1]) == 1"])
    assert wanted_of(only) == {"sum"}


def test_a_text_is_cut_after_each_assertion() -> None:
    """So that each is a share of its own; a comparison alone asserts."""
    script = make_script(["x = 1\nassert f(x)\ny = 2\nf(y) == 3\ndef g():\n    assert False\nz = 4"])
    assert [chunk.count("assert") for chunk in script.chunks] == [1, 1, 1]
    assert script.chunks[1] == "y = 2\nassert f(y) == 3"


def test_nesting_is_bounded() -> None:
    """What comes out of a sandbox is looked at before it goes into another one."""
    deep: Any = []
    for _ in range(300):
        deep = [deep]
    assert not is_shallow(deep) and is_shallow([[1], {"a": [2]}])
