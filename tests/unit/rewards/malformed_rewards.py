"""Reward functions that go wrong, each in its own way, when a completion is ``bad``; else they say 1.

``python tests/unit/rewards/malformed_rewards.py`` prints what becomes of each.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trimtab.errors import RewardError
from trimtab.rewards.isolated import IsolatedReward
from trimtab.types import Prompt, Sample

_TRL = """
import ctypes, json, os, sys, time
def mine(completions, **columns):
    if "bad" not in completions:
        return [1.0] * len(completions)
    n = len(completions)
    {body}
"""
_ASYNC = """
import asyncio
async def mine(completions, **columns):
    if "bad" in completions:
        await asyncio.Event().wait()
    return [1.0] * len(completions)
"""
_FORGED = """
    line = json.dumps({{"nonce": "", "results": [[1.0, {{}}, None]] * n}}) + chr(10)
    for number in range(3, 64):
        try: os.write(number, line.encode())
        except OSError: pass
    time.sleep(0.5)
    return [float("nan")] * n
"""


@dataclass(frozen=True)
class Malformed:
    """A way to go wrong, and the kind that it must be counted as."""

    name: str
    code: str
    kind: str
    is_refused: bool = False  # when the reward is built, before any sample is scored


def _case(name: str, body: str, kind: str) -> Malformed:
    return Malformed(name, _TRL.format(body=body.strip()), kind)


MALFORMED = (
    _case("NaN", "return [float('nan')] * n", "not finite"),
    _case("inf", "return [float('inf')] * n", "not finite"),
    _case("-inf", "return [-float('inf')] * n", "not finite"),
    _case("a string", "return 'great'", "wrong type"),
    _case("strings", "return ['1.0'] * n", "not a number"),
    _case("lists", "return [[1.0]] * n", "not a number"),
    _case("complex numbers", "return [1j] * n", "not a number"),
    _case("too large", "return [1e30] * n", "out of range"),
    _case("one value", "return 1.0", "wrong type"),
    _case("None", "return None", "wrong type"),
    _case("too short", "return [1.0]", "wrong length"),
    _case("too long", "return [1.0] * (n + 1)", "wrong length"),
    _case("an exception", "raise KeyError('answer')", "exception"),
    _case(
        "an exception that cannot be shown", "raise type('E', (Exception,), {'__str__': 1})()", "exception"
    ),
    _case("SystemExit", "raise SystemExit(3)", "SystemExit"),
    _case("sys.exit", "sys.exit('bye')", "SystemExit"),
    _case("os._exit", "os._exit(0)", "exited"),
    _case("infinite loop", "while True: pass", "timeout"),
    _case("sleep", "time.sleep(1000)", "timeout"),
    _case("a hang in C", "return 9**9**9", "timeout"),
    _case("segfault", "ctypes.string_at(0)", "killed"),
    _case("abort", "os.abort()", "killed"),
    _case("recursion without end", "f = lambda: f(); f()", "exception"),
    _case("huge stdout", "[print('x' * 10**6) for _ in range(100)]; return ['x'] * n", "not a number"),
    _case(
        "a line that looks like an answer",
        'print(json.dumps({"nonce": "", "results": [[1.0, {}, None]] * n})); return ["x"] * n',
        "not a number",
    ),
    Malformed("a forged answer", _TRL.format(body=_FORGED.format().strip()), "forged reply"),
    _case("every descriptor closed", "os.closerange(0, 256); return [1.0] * n", "exited"),
    _case("a fork that stays", "os.fork() or time.sleep(1000); os._exit(3)", "exited"),
    Malformed("a coroutine that never ends", _ASYNC, "timeout"),
    Malformed("not callable", "mine = 3\n", "cannot be called", is_refused=True),
    Malformed("wrong signature", "def mine(text): return 1.0\n", "no known form", is_refused=True),
    Malformed("exit while it is read", "import os\nos._exit(7)\n", "exit code 7", is_refused=True),
    Malformed("sys.exit while it is read", "import sys\nsys.exit(7)\n", "SystemExit: 7", is_refused=True),
)


def sample(completion: str) -> Sample:
    """A row with no columns."""
    return Sample(Prompt("0", ({"role": "user", "content": "?"},)), completion)


@dataclass(frozen=True)
class Outcome:
    """What became of two bad samples, and of the batch after them."""

    values: list[float | None]
    errors: list[str]
    faults: dict[str, int]
    next_values: list[float | None]
    num_deaths: int = 0


def try_one(case: Malformed, root: Path) -> Outcome:
    """Build the reward, score two bad samples, then two good ones."""
    path = root / "mine.py"
    path.write_text(case.code)
    timeout_s = 1.0 if case.kind == "timeout" else 60.0
    try:
        reward = IsolatedReward(f"{path}:mine", timeout_s=timeout_s)
    except RewardError as error:
        return Outcome([], [str(error)], {"refused": 1}, [])
    try:
        results = reward.score([sample("bad"), sample("bad")])
        after = reward.score([sample("good"), sample("good")])
    finally:
        reward.close()
    errors = [result.error for result in results if result.error]
    values = [result.value for result in results]
    return Outcome(values, errors, dict(reward.faults), [result.value for result in after], reward.num_deaths)


def table() -> Iterator[str]:
    """The lines of the table; an exception that reaches the caller is a crash."""
    yield "| what the function does | crashes | values | counted as | next batch | sentence |"
    yield "|---|---|---|---|---|---|"
    num_crashes = 0
    for case in MALFORMED:
        found = Outcome([], ["it crashed"], {}, [])
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            try:
                found, crashed = try_one(case, Path(folder)), 0
            except BaseException:
                crashed = 1
            said = found.errors[0].replace(folder, "").replace("|", "/")[:110] if found.errors else ""
        num_crashes += crashed
        counted = ", ".join(f"{kind} {count}" for kind, count in found.faults.items())
        yield f"| {case.name} | {crashed} | {found.values} | {counted} | {found.next_values} | {said} |"
    yield f"{len(MALFORMED)} cases, {num_crashes} crashes"


if __name__ == "__main__":
    for line in table():
        print(line, flush=True)
