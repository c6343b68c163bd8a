"""Issue 4: what counts as code, as a test and as the same value; and when the code reward abstains."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.rewards.test_code_attacks import sample

from trimtab.errors import RewardError
from trimtab.rewards import code_tests
from trimtab.rewards.code_blocks import extract_code
from trimtab.rewards.code_formats import read_tests
from trimtab.rewards.code_tests import CodeReward, passes
from trimtab.rewards.code_values import decode_value, is_same
from trimtab.rewards.sandbox import Limits, RunResult, choose_level
from trimtab.rewards.sandbox.seccomp import seccomp_filter

CASES = [{"fn": "f", "args": [1], "expected": 2}, {"input": "1", "output": "2"}]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("print(1)", "print(1)"),
        ("```python\nprint(1)\n```", "print(1)\n"),
        ("a\n```py\nx = 1\n```\nb\n```\ny = 2\n```\nc", "y = 2\n"),
        ("```json\n{}\n```\n", None),
        ("```python\nprint(1)", None),
        ("```python\nx = 1\n```\n```python\ny = 2", None),
        ("````python\ns = '''\n```\n'''\n````", "s = '''\n```\n'''\n"),
        ("", None),
        ("print(1)\0", None),
    ],
)
def test_code_is_the_last_closed_block(text: str, code: str | None) -> None:
    """A fence that is not closed, or holds something else, is no answer."""
    assert extract_code(text) == code


@pytest.mark.parametrize(
    ("expected", "found", "same"),
    [
        (2, 2, True),
        (2, 2.0, True),
        (1, True, False),
        (True, 1, False),
        (0.3, 0.1 + 0.2, True),
        (0.3, 0.3001, False),
        ("2", 2, False),
        (None, None, True),
        (None, False, False),
        ([1, [2]], [1, [2]], True),
        ([1, 2], [2, 1], False),
        ([1, 2], [1, 2, 3], False),
        ({"a": [1]}, {"dict": [["a", [1]]]}, True),
        ({"1": 2}, {"dict": [[1, 2]]}, True),
        ({"a": 1}, {"dict": [["b", 1]]}, False),
        ([3, 1, 2], {"set": [1, 2, 3]}, True),
        ([3, 1, 1], {"set": [1, 2, 3]}, False),
        (float("nan"), float("nan"), False),
        (10**400, 1e308, False),
        pytest.param(10**5000, {"long": hex(10**5000)}, True, id="long"),
        pytest.param(10**5000, {"long": hex(10**5000 + 1)}, False, id="long and another"),
        (2, {"long": "nonsense"}, False),
        (1 + 2j, {"complex": [1.0, 2.0]}, True),
        ([1, 2], {"complex": [1.0, 2.0]}, True),
        (2, {"complex": [2.0, 0.0]}, False),
        (1 + 2j, "x", False),
        (b"ab", {"bytes": "ab"}, True),
        ("ab", {"bytes": "ab"}, False),
        ([1, 2], {"tuple": [1, 2]}, True),
        ([1, 2], {"deque": [1, 2]}, True),
        ({1, 2}, {"set": [2, 1]}, True),
        ({1, 2}, [1, 2], False),
        ({"a": 2}, {"counter": [["a", 2]]}, True),
        ({"a": 2}, {"ordered": [["a", 3]]}, False),
        ({"1": 2}, {"dict": [[1, 2], ["1", 2]]}, False),
        ({"(1, 'a')": 2}, {"dict": [[{"tuple": [1, "a"]}, 2]]}, True),
        ({"true": 2}, {"dict": [[True, 2]]}, True),
        (0.75, {"number": ["fractions.Fraction", "3/4"]}, True),
        (0.75, {"number": ["fractions.Fraction", "3/0"]}, False),
        (1, {"object": 0}, False),
        ({"dict": []}, {"dict": [["dict", []]]}, True),
    ],
)
def test_values_are_compared_by_plain_types(expected: Any, found: Any, same: bool) -> None:
    """What the sandbox returned, decoded, against what a row expects."""
    assert is_same(expected, decode_value(found)) is same


def test_output_is_compared_by_lines() -> None:
    """White space at the ends of lines does not matter; inside it does; an error is never a pass."""
    case = {"input": "", "output": "a b\nc\n"}
    assert passes(case, {"output": "a b  \nc\r\n\n"})
    assert not passes(case, {"output": "a  b\nc\n"})
    assert not passes(case, {"output": "a b\nc\n", "error": "timeout"})
    assert (
        not passes(case, None) and not passes(case, {"value": "a b\nc\n"}) and not passes(case, {"output": 5})
    )


@pytest.mark.parametrize(
    "given", [None, [], "no json", [{}], [{"input": "x"}], [{"fn": "f", "args": 1, "expected": 1}]]
)
def test_rows_without_usable_tests_are_told(given: Any) -> None:
    """One sentence with the row; a JSON text is read."""
    with pytest.raises(RewardError, match="row 7"):
        read_tests({"tests": given}, "tests", "7")
    visible, hidden = read_tests({"tests": '[{"input": "1", "output": "2"}]'}, "tests", "7")
    assert visible.cases == ({"input": "1", "output": "2"},) and hidden.cases == ()


class Scripted:
    """A pool that says what it is told to, and keeps what it was asked."""

    def __init__(self, *results: RunResult) -> None:
        self.results, self.asked = list(results), list[Any]()

    def run_all(self, jobs: list[Any]) -> list[RunResult]:
        self.asked += jobs
        return [self.results.pop(0) for _ in jobs]


def test_what_is_expected_never_enters_the_sandbox() -> None:
    """Cases are asked without outputs; a share is paid with ``partial`` only; equal programs run once."""
    half = RunResult({0: {"value": 2}, 1: {"output": "3"}})
    whole = RunResult({0: {"value": 2}, 1: {"output": "2\n"}})
    pool = Scripted(half, whole)
    strict = CodeReward(pool)  # type: ignore[arg-type]
    results = strict.score([sample(text, CASES) for text in ("x", "y", "```python\n", "x")])
    assert [result.value for result in results] == [0.0, 1.0, 0.0, 0.0]
    assert len(pool.asked) == 2
    assert pool.asked[0]["cases"] == [{"fn": "f", "args": [1]}, {"input": "1"}]
    partial = CodeReward(Scripted(half), partial=True)  # type: ignore[arg-type]
    assert partial.score([sample("x", CASES)])[0].value == 0.5


def test_the_machines_faults_abstain() -> None:
    """A sandbox that does not start, or a row without tests, is not a wrong answer."""
    reward = CodeReward(Scripted(RunResult(fault="no bwrap")))  # type: ignore[arg-type]
    results = reward.score([sample("x", CASES), sample("x", None)])
    assert [result.value for result in results] == [None, None]
    assert "no bwrap" in str(results[0].error) and "row 0" in str(results[1].error)


def test_without_isolation_code_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rlimits alone are used only when they are asked for by name."""
    from trimtab.rewards.sandbox import levels

    monkeypatch.setattr(levels, "bubblewrap_fault", lambda: "bubblewrap is not installed")
    monkeypatch.setattr(levels, "landlock_fault", lambda: "this kernel has no Landlock")
    with pytest.raises(RewardError, match="cannot be run safely here"):
        choose_level("auto")
    with pytest.raises(RewardError, match="did you mean 'bubblewrap'"):
        choose_level("bublewrap")
    assert choose_level("subprocess") == "subprocess"
    with pytest.raises(RewardError, match="memory_mib = 1"):
        code_tests.code_reward(memory_mib=1)


def test_limits_and_filter() -> None:
    """Processes are bounded in the rlimits too; the filter ends with a way through for all else."""
    assert Limits().resources(has_cgroup=False)["RLIMIT_NPROC"] == 128
    for machine in ("x86_64", "aarch64"):
        program = seccomp_filter(machine)
        assert len(program) % 8 == 0 and program[-4:] == (0x7FFF0000).to_bytes(4, "little")
