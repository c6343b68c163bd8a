"""Tests as people have them: each form is read, right solutions are paid and wrong ones are not."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.unit.rewards.code_rows import ADD, ROWS
from tests.unit.rewards.test_code_attacks import LEVELS, why_not

from trimtab.data import load_prompts
from trimtab.errors import RewardError
from trimtab.rewards.code_formats import read_tests
from trimtab.rewards.code_imports import missing_imports
from trimtab.rewards.code_tests import CodeReward, code_reward
from trimtab.types import Prompt, RewardResult, Sample


@pytest.fixture(scope="module")
def reward() -> Iterator[CodeReward]:
    """The reward at the strongest level that there is."""
    level = next((level for level in LEVELS if why_not(level) is None), None)
    if level is None:
        pytest.skip("no isolation here")
    made = code_reward(sandbox=level)
    yield made
    made.pool.close()


def of(columns: dict[str, Any], code: str, row: str = "7") -> Sample:
    """A sample with the code in a fence."""
    return Sample(Prompt(row, ({"role": "user", "content": "?"},), columns), f"```python\n{code}\n```")


@pytest.fixture(scope="module")
def graded(reward: CodeReward) -> dict[str, list[RewardResult]]:
    """The results of the right and of the wrong solution of every row, scored in one batch."""
    results = reward.score([of(columns, code) for columns, codes in ROWS.values() for code in codes])
    return {name: results[2 * at : 2 * at + 2] for at, name in enumerate(ROWS)}


@pytest.mark.parametrize("name", ROWS)
def test_a_form_is_read(name: str, graded: dict[str, list[RewardResult]]) -> None:
    """The right solution earns 1 and the wrong one 0."""
    assert [result.value for result in graded[name]] == [1.0, 0.0], graded[name]


REFUSED: dict[str, tuple[Any, str]] = {
    "a checker": ([{"input": "1", "output": "2", "checker": "x"}], "test 1 has a 'checker'"),
    "an unknown type": ([{"input": "1", "output": "2", "type": "interactive"}], "type 'interactive'"),
    "another language": (
        {"language": "cpp", "test_cases": [{"input": "1", "output": "2"}]},
        "language 'cpp'",
    ),
    "packed": ("eJxrYJmqwgABGj2" * 9, "pickles are never opened"),
    "asserts nothing": (["x = add(1, 2)"], "they assert nothing"),
    "no Python": (["assert add(1, 2 == 3"], "they are no Python"),
    "check without a name": ("def check(candidate):\n    assert candidate(1, 2) == 3", "no entry_point"),
    "other lengths": ({"inputs": ["1"], "outputs": []}, "1 inputs and 0 outputs"),
    "no tolerance": ([{"fn": "f", "args": [], "expected": 1, "tolerance": "x"}], "tolerance = 'x'"),
    "a number": ([3], "test 1 is a int"),
    "bytes": (b"x", "tests cannot be read from a bytes"),
    "no expected value": ([{"fn": "f", "args": [1]}], 'without "expected"'),
    "an argument": ([{"fn": "f", "args": [datetime.date(2026, 1, 1)], "expected": 1}], "has a date among"),
    "too many": ([{"input": "", "output": ""}] * 1001, "1001 tests"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_told(name: str) -> None:
    """One sentence that names the row and says why."""
    given, words = REFUSED[name]
    with pytest.raises(RewardError, match="row 7") as caught:
        read_tests({"tests": given}, "tests", "7")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"generated_checker": "print(1)"}, "has a 'generated_checker'"),
        ({"language": "cpp"}, "language 'cpp'"),
        ({"tests": None}, "has no tests"),
    ],
)
def test_what_a_row_says_of_all_its_tests(columns: dict[str, Any], words: str) -> None:
    """A checker, or another language; one that people speak is no reason."""
    good = {"tests": [{"input": "1", "output": "2"}], "language": "en", "checker": None}
    assert len(read_tests(good, "tests", "7")[0].cases) == 1
    with pytest.raises(RewardError, match="row 7") as caught:
        read_tests(good | columns, "tests", "7")
    assert words in str(caught.value)


def test_one_bad_row_abstains_alone(reward: CodeReward) -> None:
    """Its neighbours are scored, also beside tests that fail only when they are run."""
    good = {"tests": ["assert add(1, 2) == 3"]}
    bad = [[3], ["import scipy\nassert add(1, 2) == 3"], ["assert 1 == 1"]]
    rows = [good, *({"tests": tests} for tests in bad), good]
    results = reward.score([of(row, ADD, str(at)) for at, row in enumerate(rows)])
    assert [result.value for result in results] == [1.0, None, None, None, 1.0]
    assert "row 2" in str(results[2].error) and "scipy" in str(results[2].error)
    assert "nothing of the solution" in str(results[3].error)


def test_rows_from_parquet(reward: CodeReward, tmp_path: Path) -> None:
    """A column of structs has every key in every row: null is as good as absent."""
    cases = [{"input": "1 2\n", "output": "3\n"}, {"fn": "add", "args": [1, 2], "expected": 3}]
    fields = {"input": pa.string(), "output": pa.string(), "fn": pa.string()}
    fields |= {"args": pa.list_(pa.int64()), "expected": pa.int64()}
    schema = pa.schema([("prompt", pa.string()), ("tests", pa.list_(pa.struct(list(fields.items()))))])
    rows = [{"prompt": "?", "tests": [case]} for case in cases]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "rows.parquet")
    prompts = load_prompts(str(tmp_path / "rows.parquet"))
    codes = ["a, b = map(int, input().split())\nprint(a + b)", ADD]
    samples = [Sample(prompt, f"```python\n{code}\n```") for prompt, code in zip(prompts, codes, strict=True)]
    assert [result.value for result in reward.score(samples)] == [1.0, 1.0]


def test_hidden_tests_of_every_form(reward: CodeReward) -> None:
    """They count, and have a part of their own; with ``partial`` every test is a share."""
    columns = {"tests": ["assert add(1, 2) == 3"], "hidden_tests": json.dumps(["assert add(0, 5) == 5"])}
    result = reward.score([of(columns, "def add(a, b):\n    return 3")])[0]
    assert result.value == 0.0 and result.parts == {"visible": 1.0, "hidden": 0.0}
    reward.partial = True
    shares = [result.value for result in reward.score([of(columns, "def add(a, b):\n    return 3")])]
    reward.partial = False
    assert shares == [0.5]


def test_a_completion_that_goes_on_with_its_prompt(reward: CodeReward) -> None:
    """HumanEval's form: a body after the prompt, indented or stripped; helpers of the prompt are there."""
    begun = (
        "import math\n\ndef twice(x):\n    return 2 * x\n\n"
        'def area(r: float) -> float:\n    """Area.\n    >>> area(1)\n    6.28\n    """\n'
    )
    columns = {
        "test": "def check(candidate):\n    assert abs(candidate(2) - twice(math.pi * 4)) < 1e-6\n",
        "entry_point": "area",
    }
    prompt = Prompt("7", ({"role": "user", "content": begun},), columns)
    body = "    c = math.pi * r * r\n    return twice(c)\n"
    whole = "def area(r):\n    return twice(math.pi * r * r)\n"
    texts = [
        body,
        body.strip(),
        f"```python\n{body}```",
        f"```python\n{whole}```",
        body.replace("r * r", "r"),
    ]
    results = reward.score([Sample(prompt, text) for text in texts])
    assert [result.value for result in results] == [1.0, 1.0, 1.0, 1.0, 0.0]


def test_what_of_numpy_there_is_not_is_told(reward: CodeReward) -> None:
    """It is refused and does not count as a wrong answer."""
    result = reward.score([of({"tests": ["import numpy as np\nassert np.sum(add(1, 2)) == 3"]}, ADD)])[0]
    assert result.value is None and "numpy.sum" in str(result.error)


def test_a_program_ends_with_its_last_thread(reward: CodeReward) -> None:
    """R33: contest programs start `main` in a thread and join nothing, as Python allows."""
    code = "import threading, time\ndef main():\n    time.sleep(0.05)\n"
    code += "    print(sum(map(int, input().split())))\n"
    code += "threading.Thread(target=main).start()"
    cases = {"tests": [{"input": "1 2", "output": "3"}]}, {"tests": [{"input": "1 2", "output": "4"}]}
    assert [one.value for one in reward.score([of(case, code) for case in cases])] == [1.0, 0.0]


def test_dates_are_plain_values(reward: CodeReward) -> None:
    """R33: dates, times and differences of them are told by what they hold, in asserts as in Python."""
    code = "import datetime\nUTC = datetime.timezone.utc\n"
    code += "def day(x):\n    return datetime.datetime(2020, 1, x, 5, tzinfo=UTC)\n"
    code += "def gap(x):\n    return datetime.timedelta(days=-x, microseconds=7)\n"
    setup = "import datetime\nfrom datetime import date, timedelta\n"
    right = setup + "assert day(2).date() == date(2020, 1, 2) and day(3) > day(2)\n"
    right += "assert day(2) - day(1) == timedelta(1) and gap(1) == timedelta(-1, 0, 7)\n"
    right += "assert day(2) + gap(0) == datetime.datetime(2020, 1, 2, 5, 0, 0, 7, datetime.timezone.utc)"
    wrong = setup + "assert gap(1) == timedelta(1, 0, 7)"
    results = reward.score([of({"tests": [text]}, code) for text in (right, wrong)])
    assert [one.value for one in results] == [1.0, 0.0], results


def test_imports_of_a_solution_class() -> None:
    """What a `class Solution` uses and lacks is brought; what it has, and other code, is left alone."""
    code = "from typing import List\nclass Solution:\n    def f(self, x: List[int]) -> Dict:\n"
    code += "        return Counter(x)\n"
    assert missing_imports(code) == "from collections import Counter\nfrom typing import Dict\n"
    own = "class Solution:\n    def f(self, gcd):\n        heap = 'Counter'  # Deque\n        gcd = 1\n"
    assert missing_imports(own) == ""
    assert missing_imports("def f(x: List[int]): pass") == ""
    assert missing_imports("from typing import *\nclass Solution:\n    x: List\n") == ""


def test_gold_of_public_sets() -> None:
    """The columns in which they keep their own solutions."""
    made = CodeReward(None)  # type: ignore[arg-type]
    talk = ({"role": "user", "content": "def f(x):\n"},)
    humaneval = {"canonical_solution": "\n    \n    return x\n", "entry_point": "f", "test": "…"}
    assert "def f(x):\n    \n    return x" in str(made.gold_completion(Prompt("0", talk, humaneval)))
    mbpp = {"code": "def g(): pass", "test_list": ["assert g() is None"]}
    assert "def g(): pass" in str(made.gold_completion(Prompt("0", talk, mbpp)))
    assert made.gold_completion(Prompt("0", talk, {"code": "def g(): pass"})) is None
