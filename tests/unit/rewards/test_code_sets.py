"""Public sets of code problems, measured on rows of our own in their formats: see benchmarks/code_sets.py."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks.code_sets import CodeSet, humaneval, mbpp, measure, mutants, passes_harness
from tests.unit.rewards.test_code_attacks import LEVELS, why_not

from trimtab.cli.main import main
from trimtab.rewards.code_tests import code_reward

HUMANEVAL = [
    {
        "task_id": "Own/0",
        "prompt": 'def middle(values: list) -> float:\n    """The median."""\n',
        "canonical_solution": "    values = sorted(values)\n    half = len(values) // 2\n"
        "    if len(values) % 2 == 1:\n        return values[half]\n"
        "    return (values[half - 1] + values[half]) / 2\n",
        "test": "METADATA = {}\n\ndef check(candidate):\n    assert candidate([3, 1, 2]) == 2\n"
        "    assert candidate([4, 1, 3, 2]) == 2.5\n    assert candidate([7]) == 7\n",
        "entry_point": "middle",
    },
    {
        "task_id": "Own/1",
        "prompt": "import math\n\ndef area(r: float):\n    return math.pi * r * r\n\n"
        'def radius(size: float) -> float:\n    """The radius of a circle of this area."""\n',
        "canonical_solution": "    return math.sqrt(size / math.pi)\n",
        "test": "import random\n\ndef check(candidate):\n"
        "    rng = random.Random(3)\n    for _ in range(20):\n"
        "        r = rng.random() * 9\n        assert abs(candidate(area(r)) - r) < 1e-6\n",
        "entry_point": "radius",
    },
]
MBPP = [
    {
        "task_id": 1,
        "text": "Write a function to swap keys and values.",
        "code": "def swapped(given):\r\n    found = {}\r\n    for key in given:\r\n"
        "        found[given[key]] = key\r\n    return found",
        "test_setup_code": "",
        "test_list": ["assert swapped({1: 2, 3: 4}) == {2: 1, 4: 3}", "assert swapped({}) == {}"],
        "challenge_test_list": ["assert swapped({(1, 2): 'a'}) == {'a': (1, 2)}"],
    },
    {
        "task_id": 2,
        "text": "Write a function to count the letters of a word.",
        "code": "from collections import Counter\ndef letters(word):\n    return Counter(word)",
        "test_setup_code": "",
        "test_list": ["assert letters('noon') == {'n': 2, 'o': 2}", "assert letters('')=={}"],
        "challenge_test_list": [],
    },
    {
        "task_id": 3,
        "text": "Write a function to add up a chain.",
        "code": "class Link:\n    def __init__(self, value, after=None):\n"
        "        self.value, self.after = value, after\n"
        "def total(link):\n    found = 0\n    while link is not None:\n        found += link.value\n"
        "        link = link.after\n    return found",
        "test_setup_code": "chain = Link(1)\r\nchain.after = Link(2, Link(4))",
        "test_list": ["assert (total(chain)) == 7"],
        "challenge_test_list": [],
    },
]
SETS = [humaneval(HUMANEVAL), mbpp(MBPP)]


@pytest.fixture
def level() -> str:
    """The strongest level that there is."""
    found = next((level for level in LEVELS if why_not(level) is None), None)
    if found is None:
        pytest.skip("no isolation here")
    return found


@pytest.mark.parametrize("code_set", SETS, ids=lambda one: one.name)
def test_the_reward_agrees_with_the_sets_own_tests(code_set: CodeSet, level: str) -> None:
    """Right solutions and equivalent mutants are paid, mutants that plain Python fails are not."""
    reward = code_reward(sandbox=level)
    found = measure(code_set, reward, num_mutants=8)
    reward.pool.close()
    assert found.canonical_right == found.canonical_paid == len(code_set.rows)
    assert found.wrong >= 8 and found.wrong_unpaid == found.wrong
    assert found.equivalent_paid == found.equivalent and found.disagreements == ()


def test_mutants_differ_and_the_harness_tells_them_apart() -> None:
    """Each has one change; the harness is plain Python and knows nothing of the reward."""
    row = HUMANEVAL[0]
    code = SETS[0].solution(row)
    made = mutants(code, 12, random.Random(0))
    assert len(set(made)) == 12 and code not in made
    verdicts = [passes_harness(SETS[0].harness(row, text)) for text in (code, *made[:4])]
    assert verdicts[0] and not all(verdicts)
    assert not passes_harness("while True: pass", seconds=0.2)


@pytest.mark.parametrize(("rows", "name"), [(HUMANEVAL, "humaneval"), (MBPP, "mbpp")])
def test_their_files_are_scored_as_they_are(
    rows: list[dict[str, Any]], name: str, tmp_path: Path, level: str
) -> None:
    """`trimtab rewards score code --gold`: every row's own solution, from the public file."""
    file, out = tmp_path / f"{name}.jsonl", tmp_path / "out.json"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["rewards", "score", "code", "--data", str(file), "--gold", "--json", str(out)]
    assert main([*words, "--option", f"sandbox='{level}'"]) == 0
    assert [row["value"] for row in json.loads(out.read_text())] == [1.0] * len(rows)


def test_gold_needs_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A reward that knows none, and a row that has none, are told."""
    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "a", "tests": ["assert f() == 1"]}\n')
    assert main(["rewards", "score", "length", "--data", str(file), "--gold"]) != 0
    assert "--gold" in capsys.readouterr().err
    assert main(["rewards", "score", "code", "--data", str(file), "--gold"]) != 0
    assert "row 0 has no answer of its own" in capsys.readouterr().err


def test_a_set_is_plain_data() -> None:
    """Rows are taken as they are."""
    assert replace(SETS[1], rows=()).rows == () and SETS[1].solution(MBPP[0]) == MBPP[0]["code"]
