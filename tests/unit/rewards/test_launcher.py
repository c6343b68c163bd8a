"""Issue 4: the process that starts sandboxes: one for all, and what happens when it is gone."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from tests.unit.rewards.test_code_attacks import LEVELS, left_processes, why_not

from trimtab.rewards.sandbox import Limits, Sandbox, pool
from trimtab.rewards.sandbox.start import launcher

LIMITS = Limits(seconds_per_case=2.0, seconds=4.0)
ECHO = {"code": "def f(x):\n    return x", "cases": [{"fn": "f", "args": ["é\n\ud800"]}]}


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> str:
    """Both levels that keep an attacker away, where the kernel has them."""
    if (reason := why_not(request.param)) is not None:
        pytest.skip(reason)
    return str(request.param)


def test_all_sandboxes_have_one_launcher(level: str) -> None:
    """It runs before and after, and each sandbox is a process of its own below it."""
    boxes = [Sandbox(level, LIMITS), Sandbox(level, LIMITS)]
    found = launcher()
    parents = {
        Path(f"/proc/{box.process.pid}/stat").read_text().rpartition(")")[2].split()[1] for box in boxes
    }
    assert parents == {str(found.pid)} and boxes[0].process.pid != boxes[1].process.pid
    assert [box.run(ECHO).replies[0]["value"] for box in boxes] == ["é\n\ud800"] * 2
    assert launcher() is found and found.is_alive


def test_a_launcher_that_is_gone_takes_its_sandboxes_along(level: str) -> None:
    """They end, which is the machine's fault, leave nothing, and the next sandbox has a new launcher."""
    box, lost = Sandbox(level, LIMITS), launcher()
    threading.Timer(0.5, os.kill, (lost.pid, signal.SIGKILL)).start()
    sleeper = {"code": "import time\ndef f():\n    time.sleep(60)", "cases": [{"fn": "f", "args": []}]}
    assert box.run(sleeper).fault is not None
    marks = {Path(place).name for place in [*box.group.folders, box.folder] if place}
    end = time.monotonic() + 5
    while time.monotonic() < end and any(map(left_processes, marks)):
        time.sleep(0.02)
    assert [pid for mark in marks for pid in left_processes(mark)] == []
    after = Sandbox(level, LIMITS)
    assert after.run(ECHO).replies[0]["value"] == "é\n\ud800"
    assert launcher() is not lost


def test_a_number_that_it_did_not_start_is_never_signalled() -> None:
    """An order to end another process is answered as gone, and that process lives."""
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    try:
        assert launcher().end(pid, signal.SIGKILL)
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_fork_of_the_trainer_has_a_launcher_of_its_own() -> None:
    """Two processes that share a socket would take each other's answers."""
    ours = launcher()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, str(launcher().pid).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert int(os.read(read, 32)) != ours.pid
    os.close(read)
    os.close(write)


def test_a_case_speaks_for_itself_alone(level: str) -> None:
    """A case whose process writes two lines, or no JSON, or other keys: its first line counts, or nothing."""
    code = """
import os, sys
def f(text):
    frame = sys._getframe()
    while "job" not in frame.f_locals:
        frame = frame.f_back
    for number in range(3, 64):
        try:
            os.write(number, text.replace("NONCE", frame.f_locals["job"]["nonce"]).encode())
        except OSError:
            pass
    os._exit(0)
"""
    forged = '{"value": 7}\nNONCE 4 {"value": 8}\n'
    texts = ["garbage\n", '{"value": 1, "pass": true}\n', forged, "[1]\n", '{"value": 9}\n']
    found = Sandbox(level, LIMITS).run({"code": code, "cases": [{"fn": "f", "args": [t]} for t in texts]})
    assert [found.replies[case] for case in (0, 1, 3)] == [{"error": "no result"}] * 3
    assert [found.replies[case] for case in (2, 4)] == [{"value": 7}, {"value": 9}]


def test_a_reply_without_the_nonce_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gets hold of the pipe does not know it, and of two replies to a case the first one counts."""
    said = b'forged 0 {"value": 1}\nright 0 {"value": 2}\nright 0 {"value": 3}\nright x {"value": 4}\n'
    monkeypatch.setattr(pool.secrets, "token_hex", lambda _: "right")
    monkeypatch.setattr(Sandbox, "_read", lambda *_: said)
    box = object.__new__(Sandbox)
    box.limits = LIMITS
    assert box._exchange(ECHO) == {0: {"value": 2}}
