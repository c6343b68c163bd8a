"""Issue 4: what `threats.md` lists against code rewards, and more: nothing is paid, nothing is left
behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.unit.rewards.benign import EXPRESSIONS

from trimtab.rewards.code_tests import CodeReward, code_reward
from trimtab.rewards.sandbox import Limits, Sandbox, choose_level
from trimtab.rewards.sandbox.landlock import landlock_abi, package_folders
from trimtab.rewards.sandbox.leftovers import CGROUP_ROOTS, own_name
from trimtab.rewards.sandbox.levels import missing_for_landlock
from trimtab.types import Prompt, Sample

LEVELS = ["bubblewrap", "landlock"]


def has_user_namespaces() -> bool:
    """Whether a process here may make a user namespace: then the sandbox must work."""
    code = "import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare(0x10000000) != 0)"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@cache
def why_not(level: str) -> str | None:
    """Why this kernel cannot have ``level``; a sandbox that is broken is no reason."""
    if level == "landlock":
        return missing_for_landlock(landlock_abi(), is_root=os.getuid() == 0, has_filter=True)
    return None if has_user_namespaces() else "no user namespaces here"


@pytest.fixture(scope="module", params=LEVELS)
def level(request: pytest.FixtureRequest) -> str:
    """Both levels that keep an attacker away, where the kernel has them."""
    if (reason := why_not(request.param)) is not None:
        pytest.skip(reason)
    return str(request.param)


def left_processes(mark: str) -> list[int]:
    """Processes of a sandbox, told by ``mark`` in their cgroup's name or (level 2) their private folder's."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            said = (entry / "cgroup").read_text() + (entry / "environ").read_text("utf-8", "replace")
        except OSError:
            continue
        if entry.name.isdigit() and mark in said:
            found.append(int(entry.name))
    return found


CALLS = [{"fn": "double", "args": [n], "expected": 2 * n} for n in (1, 7, -3)]
TALKS = [{"input": f"{n}\n", "output": f"{2 * n}\n"} for n in (1, 7, -3)]

ATTACKS = tomllib.loads(Path(__file__).with_name("attacks.toml").read_text())


@pytest.fixture(scope="module")
def reward(level: str) -> Iterator[CodeReward]:
    """The reward with short limits; after all attacks nothing of its sandboxes is left."""
    made = code_reward(seconds_per_case=0.5, memory_mib=256, sandbox=level)
    yield made
    made.pool.close()
    mark = own_name().rpartition("-")[0]
    assert left_processes(mark) == []
    places = [*CGROUP_ROOTS, Path("/dev/shm"), Path(tempfile.gettempdir())]
    assert [path for place in places for path in place.glob(f"{mark}-*")] == []


def sample(completion: str, tests: object) -> Sample:
    """A row with its tests."""
    return Sample(Prompt("0", ({"role": "user", "content": "Double it."},), {"tests": tests}), completion)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_earns_nothing(name: str, reward: CodeReward) -> None:
    """Paid 0 in both forms of tests, in time, and no file outside."""
    outside = Path("/tmp") / f"trimtab-{os.getpid()}-attack"
    code = ATTACKS[name]["code"].replace("@OUTSIDE@", str(outside)).replace("@REPOSITORY@", __file__)
    start = time.monotonic()
    results = reward.score([sample(code, CALLS), sample(code, TALKS)])
    assert [result.value for result in results] == [0.0, 0.0], (name, results)
    assert time.monotonic() - start < 12.0
    assert not outside.exists()


def test_right_answers_are_paid_and_the_next_one_is_not_poisoned(reward: CodeReward) -> None:
    """After all of that: right programs, in both forms, fenced or bare, are paid."""
    right = "def double(x):\n    return x * 2\n"
    talk = "print(2 * int(input()))"
    rows = [sample(right, CALLS), sample(f"So:\n```python\n{right}```\nDone.", CALLS), sample(talk, TALKS)]
    assert [result.value for result in reward.score(rows)] == [1.0, 1.0, 1.0]


def test_a_hundred_harmless_programs_pass(level: str) -> None:
    """What solutions of tasks look like, standard library included; expected is what they give out here."""
    assert len(EXPRESSIONS) >= 100
    rows = []
    for imports, expression, value in EXPRESSIONS:
        code = f"{imports}\ndef solve(x):\n    return {expression}\n"
        names: dict[str, Any] = {}
        exec(code, names)
        rows.append(
            sample(code, [{"fn": "solve", "args": [value], "expected": _plain(names["solve"](value))}])
        )
    made = code_reward(sandbox=level)
    results = made.score(rows)
    made.pool.close()
    failed = [e for (_, e, _), result in zip(EXPRESSIONS, results, strict=True) if result.value != 1.0]
    assert failed == []


def _plain(value: Any) -> Any:
    """As a row of data could have it: a set as a list, tuples as lists."""
    if isinstance(value, (set, frozenset, tuple, list)):
        return [_plain(item) for item in value]
    return value


def test_the_sandbox_passes_its_own_test(level: str) -> None:
    """It starts, and a program in it reaches neither network nor host."""
    assert choose_level(level) == level


def test_what_a_solution_sees_of_the_machine() -> None:
    """Its own few processes, a host name that is not this one's, nothing that can be written but /tmp, and
    no installed packages."""
    if (reason := why_not("bubblewrap")) is not None:
        pytest.skip(reason)
    code = """
import os, sys
def look(packages):
    writable = []
    for folder in ("/", "/dev", "/usr", "/root", "/lib", "/tmp", "/dev/shm", *packages):
        try:
            open(folder + "/x", "w").close()
            writable.append(folder)
        except OSError:
            pass
    listed = [name for folder in packages for name in os.listdir(folder)]
    return [os.getpid() < 20, os.uname().nodename, writable, os.getuid() != 0, listed]
"""
    packages = [str(folder) for folder in package_folders(Path(sys.base_prefix).resolve())]
    assert any(os.listdir(folder) for folder in packages), "no packages here, so nothing is hidden"
    box = Sandbox("bubblewrap", Limits(seconds_per_case=2.0, seconds=5.0))
    found = box.run({"code": code, "cases": [{"fn": "look", "args": [packages]}]})
    assert found.replies[0]["value"] == [True, "sandbox", ["/tmp", "/dev/shm"], True, []]


def test_nothing_stays(level: str) -> None:
    """A daemon that left its session dies with its sandbox, and the cgroups are removed."""
    box = Sandbox(level, Limits(seconds_per_case=1.0, seconds=5.0))
    folders = list(box.group.folders)
    marks = {Path(place).name for place in [*folders, box.folder] if place}
    code = ATTACKS["double fork and daemon"]["code"].replace("@OUTSIDE@", "/proc/none")
    found = box.run({"code": code, "cases": [{"fn": "double", "args": [1]}]})
    assert found.fault is None
    assert box.process.is_gone
    assert not any(folder.exists() for folder in folders)
    assert [pid for mark in marks for pid in left_processes(mark)] == []
    if not marks:
        pytest.skip("no cgroup may be made here, so nobody knows who belonged to it")


def test_the_host_is_bounded(level: str) -> None:
    """Where cgroups may be made, a fork bomb meets the limit of processes, a memory bomb that of memory."""
    limits = Limits(seconds_per_case=1.0, seconds=5.0, memory_mib=128, processes=16)
    box = Sandbox(level, limits)
    if not box.group.is_complete:
        box.end()
        pytest.skip("no cgroup may be made here")
    code = """
import os
def count():
    made = 0
    try:
        while True:
            if os.fork() == 0:
                while True: pass
            made += 1
    except OSError:
        return made
def fill():
    parts = []
    try:
        while True: parts.append(bytearray(2**20))
    except MemoryError:
        return len(parts)
"""
    found = box.run({"code": code, "cases": [{"fn": "count", "args": []}, {"fn": "fill", "args": []}]})
    assert found.replies[0]["value"] < 16
    assert found.replies.get(1, {}).get("value", 0) <= 2 * 128
