"""Rows in the forms that data sets have, each with a right and a wrong solution; all written here."""

from __future__ import annotations

import json
from typing import Any

ADD, SUBTRACT = "def add(a, b):\n    return a + b\n", "def add(a, b):\n    return a - b\n"
PROGRAM = "a, b = map(int, input().split())\nprint(a + b)\n"
PROGRAMS = (PROGRAM, PROGRAM.replace("a + b", "a - b"))
CALLS = (ADD, SUBTRACT)
METHOD = "class Solution:\n    def add(self, a, b):\n        return a + b\n"
METHODS = (METHOD, METHOD.replace("+", "-"))
STACK = (
    "class Stack:\n    def __init__(self): self.held = []\n    def push(self, one): self.held.append(one)\n"
    "    def pop(self): return self.held.pop()\n    def __len__(self): return len(self.held)\n"
)
TREE = (
    "class Node:\n    def __init__(self, value):\n        self.value = value\n"
    "        self.left = self.right = None\n"
    "def depth(node):\n    return 0 if node is None else 1 + max(depth(node.left), depth(node.right))\n"
)
PYTEST = """import pytest
from solution import add
def test_near():
    assert add(1, 2) == pytest.approx(3)
@pytest.mark.parametrize("a,b,c", [(1, 2, 3), (4, 5, 9)])
def test_rows(a, b, c):
    assert add(a, b) == c
def test_error():
    with pytest.raises(TypeError):
        add(1, None)
"""
UNITTEST = """import unittest
class TestAdd(unittest.TestCase):
    def setUp(self):
        self.one = 1
    def test_sum(self):
        self.assertEqual(add(self.one, 2), 3)
    def test_error(self):
        self.assertRaises(TypeError, add, 1, None)
if __name__ == "__main__":
    unittest.main()
"""
TWO_SUM = """class Solution:
    def two_sum(self, nums: List[int], target: int) -> List[int]:
        seen = defaultdict(int)
        for place, number in enumerate(nums):
            if target - number in seen:
                return [seen[target - number], place]
            seen[number] = place
        return [int(math.inf)]
"""
TWO_SUMS = (TWO_SUM, TWO_SUM.replace(", place]", ", 7]"))
NUMPY = """import numpy as np
def assertion(found, expected, atol):
    if isinstance(found, np.ndarray):
        found = found.tolist()
    if not found == expected:
        np.testing.assert_allclose(found, expected, atol=atol)
def check(candidate):
    inputs, results = [[1, 2], [0.1, 0.2]], [3, 0.3]
    for given, expected in zip(inputs, results):
        assertion(candidate(*given), expected, 1e-6)
    assert True
"""
BIG = """def f(n):
    found = 1
    for i in range(2, n + 1):
        found *= i
    return found
"""
CHECK = "def check(candidate):\n    for a in range(4):\n        assert candidate(a, 1) == a + 1\n"
PAIRS = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}
CALLED = {"fn_name": "add", "inputs": [[1, 2], [3, 4]], "outputs": [[3], [7]]}


def call(function: str, args: Any, expected: Any, **more: Any) -> dict[str, Any]:
    """A row with one call."""
    return {"tests": [{"fn": function, "args": args, "expected": expected, **more}]}


def info(**case: Any) -> dict[str, Any]:
    """A row with one case as ``verification_info`` has it."""
    return {"verification_info": {"language": "python", "test_cases": [case]}}


# name: (columns, (right solution, wrong solution))
ROWS: dict[str, tuple[dict[str, Any], tuple[str, str]]] = {
    "call": (call("add", [1, 2], 3), CALLS),
    "call of a method": (call("Solution().add", [1, 2], 3), METHODS),
    "call with keywords": (call("add", [1], 3, kwargs={"b": 2}), CALLS),
    "call with a mapping": (call("add", {"a": 1, "b": 2}, 3), CALLS),
    "call without arguments": (call("f", [], None), ("def f(): return None", "def f(): return 0")),
    "a call among nulls": (
        {"tests": [{"input": None, "output": None, "fn": "f", "args": None, "expected": None}]},
        ("def f(): return None", "def f(): return 0"),
    ),
    "a program among nulls": (
        {"tests": [{"input": "1 2", "output": "3", "fn": None, "args": None, "expected": None}]},
        PROGRAMS,
    ),
    "pairs": ({"tests": PAIRS}, PROGRAMS),
    "pairs as JSON": ({"tests": json.dumps(PAIRS)}, PROGRAMS),
    "pairs without a function": ({"input_output": json.dumps({**PAIRS, "fn_name": None})}, PROGRAMS),
    "pairs of lines": ({"tests": {"inputs": [["1 2"]], "outputs": [["3"]]}}, PROGRAMS),
    "pairs of calls": ({"tests": CALLED}, CALLS),
    "pairs of calls as JSON": ({"input_output": json.dumps(CALLED)}, METHODS),
    "pairs of texts that call": (
        {"input_output": {"fn_name": "add", "inputs": ["1\n2"], "outputs": ["3"]}},
        CALLS,
    ),
    "ground truth": ({"reward_model": {"style": "rule", "ground_truth": json.dumps(PAIRS)}}, PROGRAMS),
    "ground truth of calls": ({"reward_model": {"ground_truth": json.dumps(CALLED)}}, CALLS),
    "public and private": (
        {
            "public_tests": {"input": ["1 2\n"], "output": ["3\n"]},
            "private_tests": {"input": ["3 4\n"], "output": ["7\n"]},
            "generated_tests": {"input": [], "output": []},
        },
        PROGRAMS,
    ),
    "public and private in one": (
        {"tests": {"public_tests": [{"input": "1 2", "output": "3"}], "private_tests": []}},
        PROGRAMS,
    ),
    "stdin_stdout": (info(fn_name=None, input="1 2\n", output="3\n", type="stdin_stdout"), PROGRAMS),
    "function_call": (info(fn_name="add", input=[1, 2], output=3, type="function_call"), CALLS),
    "function_call in texts": (info(fn_name="add", input="[1, 2]", output="3", type="function_call"), CALLS),
    "function_call in lists": (info(fn_name="add", input=[1, 2], output=[3], type="function_call"), CALLS),
    "functional": (
        {
            "public_test_cases": json.dumps([{"input": "1\n2", "output": "3", "testtype": "functional"}]),
            "metadata": json.dumps({"func_name": "add"}),
        },
        METHODS,
    ),
    "functional with starter code": (
        {
            "tests": [{"input": "1\n2", "output": "3", "testtype": "functional"}],
            "starter_code": "class Solution:\n    def add(self, a: int, b: int) -> int:\n        ",
        },
        METHODS,
    ),
    "functional without a name": (
        {"tests": [{"input": "1\n2", "output": "3", "testtype": "functional"}]},
        CALLS,
    ),
    "functional with metadata of its own": (
        {
            "tests": [
                {"input": "1\n2", "output": "3", "testtype": "functional", "metadata": {"func_name": "add"}}
            ]
        },
        METHODS,
    ),
    "official tests": ({"official_tests": [{"input": "1 2", "output": "3"}]}, PROGRAMS),
    "stdin": ({"public_test_cases": [{"input": "1 2", "output": "3", "testtype": "stdin"}]}, PROGRAMS),
    "asserts": ({"test_list": ["assert add(1, 2) == 3", "assert add(2, 2) == 4"]}, CALLS),
    "asserts with imports": (
        {"test_list": ["assert math.isclose(add(0.1, 0.2), 0.3)"], "test_imports": ["import math"]},
        CALLS,
    ),
    "asserts with a setup": (
        {"test_list": ["assert add(*PAIR) == 3"], "test_setup_code": "PAIR = (1, 2)"},
        CALLS,
    ),
    "asserts on the solution's objects": (
        {
            "test_list": ["assert depth(root) == 2"],
            "test_setup_code": "root = Node(1)\r\nroot.left = Node(2)",
        },
        (TREE, TREE.replace("1 + max", "2 + max")),
    ),
    "asserts in one text": ({"tests": "assert add(1, 2) == 3\nassert add(5, 5) == 10"}, CALLS),
    "asserts in mappings": ({"tests": [{"assert": "assert add(1, 2) == 3"}]}, CALLS),
    "comparisons": ({"tests": ["add(1, 2) == 3"]}, CALLS),
    "a bound": ({"tests": ["assert abs(add(0.1, 0.2) - 0.3) < 1e-6"]}, CALLS),
    "an expected error": (
        {"tests": ["try:\n    f(0)\n    assert False\nexcept ZeroDivisionError:\n    pass"]},
        ("def f(x): return 1 / x", "def f(x): return 1"),
    ),
    "check": ({"test": CHECK, "entry_point": "add"}, CALLS),
    "check that is called": ({"tests": CHECK + "\ncheck(add)"}, CALLS),
    "pytest": ({"tests": PYTEST}, CALLS),
    "unittest": ({"tests": UNITTEST}, CALLS),
    "a class with a state": (
        {"tests": ["s = Stack()\ns.push(3)\ns.push(4)\nassert s.pop() == 4\nassert len(s) == 1"]},
        (STACK, STACK.replace("pop()", "pop(0)")),
    ),
    "changed in place": (
        {"tests": ["x = [3, 1, 2]\nf(x)\nassert x == [1, 2, 3]"]},
        ("def f(x): x.sort()", "def f(x): x.reverse()"),
    ),
    "a function as argument": (
        {"tests": ["assert f(lambda v: v * 2, [1, 2]) == [2, 4]", "assert f(str, [1]) == ['1']"]},
        ("def f(g, x): return [g(v) for v in x]", "def f(g, x): return x"),
    ),
    "a type as argument": (
        {"tests": ["assert f([1, 'a'], int) == ['a']"]},
        ("def f(x, t): return [v for v in x if not isinstance(v, t)]", "def f(x, t): return x"),
    ),
    "a generator": (
        {"tests": ["assert list(f(3)) == [0, 1, 2]"]},
        ("def f(n):\n    yield from range(n)", "def f(n):\n    yield from range(n + 1)"),
    ),
    "tuples": (
        {"tests": ["assert f((1, 2)) == (2, 1)"]},
        ("def f(t): return t[::-1]", "def f(t): return list(t[::-1])"),
    ),
    "whole keys": (
        {"tests": ["assert f({1: 2}) == {2: 1}"]},
        ("def f(d): return {v: k for k, v in d.items()}", "def f(d): return d"),
    ),
    "whole keys in JSON": (
        call("f", [{"1": {"2": 3}}], 3),
        ("def f(d): return d[1][2]", "def f(d): return d[1]"),
    ),
    "tuples in JSON": (
        call("f", [[[1, 2], [1, 2]]], 1),
        ("def f(p): return len(set(p))", "def f(p): return len(p)"),
    ),
    "tuple keys in JSON": (
        call("f", [], {"(1, 2)": 3}),
        ("def f(): return {(1, 2): 3}", "def f(): return {(1, 3): 3}"),
    ),
    "a set": (
        {"tests": ["assert set(f([1, 2, 2])) == {1, 2}"]},
        ("def f(x): return list(set(x))", "def f(x): return x[:1]"),
    ),
    "truth": (
        {"tests": ["assert f(1) is None", "assert not f(2)"]},
        ("def f(x): return None", "def f(x): return 1"),
    ),
    "a builtin's name": (
        {"tests": ["assert sum([1, 2]) == 3"]},
        ("def sum(x): return x[0] + x[1]", "def sum(x): return 1"),
    ),
    "functions of the solution inside": (
        {"tests": ["assert dec(enc('abc')) == 'abc'", "assert enc('abc') != 'abc'"]},
        (
            "def enc(s): return s[::-1]\ndef dec(s): return s[::-1]",
            "def enc(s): return s\ndef dec(s): return s",
        ),
    ),
    "a tolerance": (call("f", [], 3.14, tolerance=0.01), ("def f(): return 3.1416", "def f(): return 3.2")),
    "a relative tolerance": (call("f", [], 100, rtol=0.1), ("def f(): return 105", "def f(): return 120")),
    "a tolerance of output": (
        {"tests": [{"input": "", "output": "3.14 ok", "tolerance": 0.01}]},
        ("print(3.1416, 'ok')", "print(3.2, 'ok')"),
    ),
    "Counter": (
        call("f", ["aab"], {"a": 2, "b": 1}),
        (
            "from collections import Counter as f",
            "from collections import Counter\ndef f(s): return Counter()",
        ),
    ),
    "defaultdict": (
        {"tests": ["assert f() == {'a': 2}"]},
        (
            "from collections import defaultdict\ndef f(): return defaultdict(int, a=2)",
            "from collections import defaultdict\ndef f(): return defaultdict(int, a=3)",
        ),
    ),
    "OrderedDict": (
        call("f", [], {"a": 0}),
        (
            "from collections import OrderedDict\ndef f(): return OrderedDict(a=0)",
            "from collections import OrderedDict\ndef f(): return OrderedDict(a=1)",
        ),
    ),
    "namedtuple": (
        call("f", [], [1, 2]),
        (
            "from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(): return P(1, 2)",
            "from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(): return P(2, 2)",
        ),
    ),
    "deque": (
        call("f", [], [1, 2]),
        (
            "from collections import deque\ndef f(): return deque([1, 2])",
            "from collections import deque\ndef f(): return deque([1, 2, 3])",
        ),
    ),
    "a method as on its site": (
        {
            "entry_point": "Solution().two_sum",
            "test": "def check(candidate):\n    assert candidate(nums=[2, 7], target=9) == [0, 1]\n",
        },
        TWO_SUMS,
    ),
    "named arguments in a text": (
        {
            "entry_point": "Solution().two_sum",
            "tests": [{"input": "nums = [2,7,11,15], target = 9", "output": "[0, 1]"}],
        },
        TWO_SUMS,
    ),
    "a call in a text": ({"tests": [{"input": "add(1, 2)", "output": "3"}]}, CALLS),
    "a call of its own": ({"tests": [{"call": "add(1, b=2)", "expected": 3}]}, CALLS),
    "what looks like a call is read": (
        {"tests": [{"input": "add(1, 2)", "output": "3"}]},
        ("print(sum(map(int, input()[4:-1].split(','))))", "print(input())"),
    ),
    "what looks like an assignment is read": (
        {"tests": [{"input": "a = 1", "output": "1"}]},
        ("print(input().split()[-1])", "print(2)"),
    ),
    "a little numpy": ({"test": NUMPY, "entry_point": "add"}, CALLS),
    "long numbers": (
        {"tests": ["import math\nassert f(3000) == math.factorial(3000)"]},
        (BIG, BIG.replace("n + 1", "n")),
    ),
    "long numbers as values": (
        call("f", [2**20000], 2**20000 + 1),
        ("def f(n): return n + 1", "def f(n): return n"),
    ),
}
