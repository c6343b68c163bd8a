"""A user's reward file behaves as with ``python FILE.py``: imports, processes, classes, data, arguments."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from tests.unit.rewards.malformed_rewards import sample

from trimtab.errors import RewardError
from trimtab.rewards.isolated import user_reward

NEIGHBOUR = "def grade(text):\n    return len(text) + 0.5\n"
PACKAGE = "from package.inner import TWO\n"
LAZY = """
def mine(completions, **columns):
    from neighbour import grade
    from package.outer import TWO
    return [TWO * grade(text) for text in completions]
"""
PROCESSES = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

@dataclass
class Item:
    text: str

class Sizes:
    def __call__(self, item):
        return len(item.text)

def size(item):
    from neighbour import grade
    return grade(item.text)

def mine(completions, how, **columns):
    items, context = [Item(text) for text in completions], multiprocessing.get_context(how[0])
    with context.Pool(2) as pool:
        first = pool.map(size, items)
        whole = pool.map(Sizes(), items)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        second = list(pool.map(size, items))
    assert [int(value) for value in first] == whole
    return first if first == second else [None for _ in first]

if __name__ == "__main__":
    raise SystemExit("this is no script now")
"""
STATE = """
import asyncio, pickle, sys, threading
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path

HERE = Path(__file__).parent
Pair = namedtuple("Pair", "a b")

class Kind(Enum):
    GOOD = 1

class Held:
    def __init__(self, value):
        self.value = value

def mine(completions, **columns):
    assert pickle.loads(pickle.dumps(Held(3))).value == 3
    assert pickle.loads(pickle.dumps([Pair(1, 2), Kind.GOOD])) == [Pair(1, 2), Kind.GOOD]
    async def wait():
        await asyncio.sleep(0)
        return 1.0
    assert asyncio.run(wait()) == 1.0
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(len, ["a", "bb"])) == [1, 2]
    assert sys.argv == [__file__] and sys.path[0] == str(HERE) and __name__ != "__main__"
    return [float((HERE / "beside.txt").read_text())]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a neighbour, a package and a data file."""
    (tmp_path / "neighbour.py").write_text(NEIGHBOUR)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "inner.py").write_text("TWO = 2\n")
    (tmp_path / "package" / "outer.py").write_text(PACKAGE)
    (tmp_path / "beside.txt").write_text("7.25")
    return tmp_path


def scores(folder: Path, code: str, *, isolate: bool = True, how: str = "spawn") -> list[float | None]:
    """The values for two completions of one and three letters; the file has a name that is no identifier."""
    file = folder / "my-reward.py"
    file.write_text(code)
    reward = user_reward(
        f"{file}:mine", {"isolate": isolate, "how": [how]} if "how" in code else {"isolate": isolate}
    )
    results = reward.score([sample("a"), sample("abc")])
    assert [result.error for result in results] == [None, None]
    return [result.value for result in results]


@pytest.mark.parametrize("isolate", [True, False])
def test_neighbours_are_imported_late(folder: Path, isolate: bool) -> None:
    """Inside of the function, from a module and a package beside the file."""
    before = list(sys.path)
    try:
        assert scores(folder, LAZY, isolate=isolate) == [3.0, 7.0]
    finally:
        sys.path[:] = before
        for name in ("neighbour", "package", "package.inner", "package.outer"):
            sys.modules.pop(name, None)


def test_in_the_trainer_others_come_first(folder: Path) -> None:
    """Without isolation the folder is the last place where this process looks."""
    before = list(sys.path)
    try:
        scores(folder, LAZY, isolate=False)
        assert sys.path == [*before, str(folder)]
    finally:
        sys.path[:] = before
        for name in ("neighbour", "package", "package.inner", "package.outer"):
            sys.modules.pop(name, None)


@pytest.mark.parametrize("how", ["spawn", "forkserver", "fork"])
def test_pools_of_processes(folder: Path, how: str) -> None:
    """Functions, classes and callable objects of the file are found in every kind of child."""
    assert scores(folder, PROCESSES, how=how) == [1.5, 3.5]


def test_what_a_script_has(folder: Path) -> None:
    """Pickles of its classes, event loops, threads, its own arguments and folder."""
    file = folder / "state.py"
    file.write_text(STATE)
    result = user_reward(f"{file}:mine").score([sample("a")])[0]
    assert (result.value, result.error) == (7.25, None)


def test_a_relative_file_that_lies_beside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are read from where trimtab was started, as with python; the sentence says what to write."""
    file = folder / "data.py"
    file.write_text("def mine(completions, **columns):\n    return [float(open('beside.txt').read())]\n")
    monkeypatch.chdir(folder)
    assert user_reward(f"{file}:mine").score([sample("a")])[0].value == 7.25
    monkeypatch.chdir(os.path.dirname(folder))
    error = str(user_reward(f"{file}:mine").score([sample("a")])[0].error)
    assert "beside.txt" in error and "Path(__file__).parent / 'beside.txt'" in error
    file.write_text("TEXT = open('beside.txt').read()\ndef mine(completions): return [0.0]\n")
    with pytest.raises(RewardError, match="lies beside"):
        user_reward(f"{file}:mine")
