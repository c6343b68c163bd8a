"""Issue 4: level 2: what it is told, what it lets through, what it leaves, and which level is chosen."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.unit.rewards.test_code_attacks import left_processes, why_not

from trimtab.errors import RewardError
from trimtab.rewards.sandbox import Limits, Sandbox, choose_level, levels
from trimtab.rewards.sandbox.landlock import EXECUTE, LIST, READ, grants, handled, readable
from trimtab.rewards.sandbox.leftovers import own_name, sweep
from trimtab.rewards.sandbox.levels import describe_choice, missing_for_landlock
from trimtab.rewards.sandbox.seccomp import seccomp_filter

ALLOWED, REFUSED, KILLED, MISSING = 0x7FFF0000, 0x50001, 0x80000000, 0x50000 + 38
X86, ARM = 0xC000003E, 0xC00000B7


@pytest.fixture
def box() -> Sandbox:
    """One sandbox of level 2."""
    if (reason := why_not("landlock")) is not None:
        pytest.skip(reason)
    return Sandbox("landlock", Limits(seconds_per_case=3.0, seconds=6.0, disk_mib=4, disk_files=50))


@pytest.mark.parametrize(
    ("abi", "masks"),
    [
        (1, (0x1FFF, 0, 0)),
        (2, (0x3FFF, 0, 0)),
        (3, (0x7FFF, 0, 0)),
        (4, (0x7FFF, 3, 0)),
        (5, (0xFFFF, 3, 0)),
        (6, (0xFFFF, 3, 3)),
        (9, (0xFFFF, 3, 3)),
    ],
)
def test_all_that_a_version_can_deny_is_denied(abi: int, masks: tuple[int, int, int]) -> None:
    """The masks of linux/landlock.h; no rule grants a right that is not handled, which would be refused."""
    assert handled(abi) == masks
    assert all(access & ~masks[0] == 0 for _, access in grants(abi, "/tmp/x", Path("/usr"), Path("/usr")))


def test_packages_inside_the_library_are_not_granted(tmp_path: Path) -> None:
    """A folder with something hidden in it is granted child by child; links are left out."""
    for name in ("json", "site-packages/torch"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "os.py").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "site-packages")
    rules = dict(readable(tmp_path, {tmp_path / "site-packages"}))
    assert rules == {
        str(tmp_path): LIST,
        str(tmp_path / "json"): EXECUTE | READ | LIST,
        str(tmp_path / "os.py"): EXECUTE | READ,
    }
    assert dict(readable(tmp_path, set())) == {str(tmp_path): EXECUTE | READ | LIST}


def test_what_is_missing_for_level_2_is_said() -> None:
    """No Landlock, no filter, or signals that reach the trainer: each is refused by name."""
    assert missing_for_landlock(6, is_root=False, has_filter=True) is None
    assert missing_for_landlock(1, is_root=True, has_filter=True) is None
    assert "has no Landlock" in str(missing_for_landlock(0, is_root=True, has_filter=True))
    assert "seccomp" in str(missing_for_landlock(6, is_root=True, has_filter=False))
    assert "version 5" in str(missing_for_landlock(5, is_root=False, has_filter=True))


@pytest.mark.parametrize(
    ("bubblewrap", "landlock", "chosen"),
    [(None, None, "bubblewrap"), (None, "no", "bubblewrap"), ("no", None, "landlock"), ("no", "no", None)],
)
def test_the_strongest_level_is_chosen(
    monkeypatch: pytest.MonkeyPatch, bubblewrap: str | None, landlock: str | None, chosen: str | None
) -> None:
    """3, then 2, then refusal; a level that is named is that one or refused; the manifest says which."""
    monkeypatch.setattr(levels, "bubblewrap_fault", lambda: bubblewrap)
    monkeypatch.setattr(levels, "landlock_fault", lambda: landlock)
    told = describe_choice()
    assert told["name"] == chosen
    assert told["level"] == {"bubblewrap": 3, "landlock": 2, None: None}[chosen]
    assert told["self_tests"] == {"bubblewrap": bubblewrap or "passed", "landlock": landlock or "passed"}
    if chosen is None:
        with pytest.raises(RewardError, match="cannot be run safely here: no; no"):
            choose_level()
    else:
        assert choose_level() == chosen
    if landlock is None:
        assert choose_level("landlock") == "landlock"
    else:
        with pytest.raises(RewardError, match="cannot be run safely"):
            choose_level("landlock")


def answer(program: bytes, architecture: int, number: int, first: int = 0) -> int:
    """What the kernel would answer: the filter, interpreted."""
    data = struct.pack("=iIQ6Q", number, architecture, 0, first, 0, 0, 0, 0, 0)
    steps, at, value = list(struct.iter_unpack("HBBI", program)), 0, 0
    while True:
        code, yes, no, operand = steps[at]
        if code == 0x20:
            (value,) = struct.unpack_from("=I", data, operand)
            at += 1
        elif code == 0x06:
            return int(operand)
        else:
            is_true = {0x15: value == operand, 0x35: value >= operand, 0x45: bool(value & operand)}[code]
            at += 1 + (yes if is_true else no)


@pytest.mark.parametrize(
    ("machine", "architecture", "read", "socket", "chmod", "prlimit", "clone"),
    [("x86_64", X86, 0, 41, 90, 302, 56), ("aarch64", ARM, 63, 198, 52, 261, 220)],
)
def test_the_filter_decides(
    machine: str, architecture: int, read: int, socket: int, chmod: int, prlimit: int, clone: int
) -> None:
    """Beside the host more is refused; limits may be changed of oneself only; unknown machines are ended."""
    shared, apart = seccomp_filter(machine, shares_host=True), seccomp_filter(machine)
    for program in (shared, apart):
        assert answer(program, architecture, read) == ALLOWED
        assert answer(program, architecture, socket) == REFUSED
        assert answer(program, architecture, clone, 0x11) == ALLOWED
        assert answer(program, architecture, clone, 0x10000000) == REFUSED
        assert answer(program, architecture, 435) == MISSING
        assert answer(program, 0x40000003, read) == KILLED
    assert answer(shared, architecture, chmod) == REFUSED and answer(apart, architecture, chmod) == ALLOWED
    assert answer(shared, architecture, prlimit, 0) == ALLOWED
    assert answer(shared, architecture, prlimit, 77) == REFUSED
    assert answer(apart, architecture, prlimit, 77) == ALLOWED


def test_what_a_solution_can_do_at_level_2(box: Sandbox) -> None:
    """It reads Python and nothing else, writes plain files into its own folder, and reaches no process."""
    code = """
import os, sys
def look(pid):
    done = []
    def attempt(name, what, *given):
        try:
            what(*given)
            done.append(name)
        except (OSError, AttributeError):
            pass
    attempt("read", open, "/etc/hostname")
    attempt("read packages", open, os.path.dirname(os.__file__) + "/site-packages/README.txt")
    attempt("list", os.listdir, "/")
    attempt("host", open, "/tmp/x", "w")
    attempt("signal", os.kill, pid, 0)
    attempt("limit", __import__("resource").prlimit, pid, 7)
    attempt("affinity", os.sched_setaffinity, pid, [0])
    attempt("link to a process", os.readlink, f"/proc/{pid}/exe")
    attempt("folder", os.mkdir, "d")
    attempt("symlink", os.symlink, "/etc", "l")
    attempt("pipe", os.mkfifo, "p")
    attempt("rights", os.chmod, os.__file__, 0o777)
    attempt("time", os.utime, os.__file__)
    attempt("run", os.execv, "/usr/bin/env", ["env"])
    attempt("own file", open, "own", "w")
    attempt("own removed", os.unlink, "own")
    return done
"""
    found = box.run({"code": code, "cases": [{"fn": "look", "args": [os.getpid()]}]})
    assert found.replies[0]["value"] == ["own file", "own removed"]


@pytest.mark.parametrize(
    "body",
    [
        "for n in range(10**6): open(str(n), 'w').close()",
        "for n in range(10): open(str(n), 'wb').write(b'x' * 10**6)",
    ],
)
def test_a_full_folder_ends_the_solution(box: Sandbox, body: str) -> None:
    """51 files or 5 MB where 50 and 4 MiB are allowed: no result, and the folder is gone."""
    code = f"import time\ndef fill():\n    {body}\n    time.sleep(2)\n    return 'filled'\n"
    found = box.run({"code": code, "cases": [{"fn": "fill", "args": []}]})
    assert found.fault is None and 0 not in found.replies
    assert not Path(str(box.folder)).exists()


def test_a_file_is_bounded(box: Sandbox) -> None:
    """A single file meets RLIMIT_FSIZE: 4 MiB."""
    code = """
import signal
def fill():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        open("one", "wb", buffering=0).write(b"x" * (4 << 20))
        open("one", "ab", buffering=0).write(b"x")
    except OSError as error:
        return error.errno
"""
    found = box.run({"code": code, "cases": [{"fn": "fill", "args": []}]})
    assert found.replies[0]["value"] == 27


KILLED_TRAINER = """
import os, signal, sys, threading
from trimtab.rewards.sandbox import Limits, Sandbox
box = Sandbox(sys.argv[1], Limits(seconds_per_case=60, seconds=60))
code = "import os, time\\ndef f():\\n    os.fork() or os.setsid()\\n    time.sleep(60)"
job = {"code": code, "cases": [{"fn": "f", "args": []}]}
threading.Thread(target=box.run, args=(job,), daemon=True).start()
threading.Event().wait(1.0)
print(*box.group.folders, box.folder or "", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("level", ["bubblewrap", "landlock"])
def test_a_killed_trainer_leaves_nothing(level: str) -> None:
    """Its solutions end with it; what level 3 cannot remove then, cgroups, the next start does."""
    if (reason := why_not(level)) is not None:
        pytest.skip(reason)
    ended = subprocess.run(
        [sys.executable, "-c", KILLED_TRAINER, level], capture_output=True, text=True, check=False
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    places = [Path(word) for word in ended.stdout.split()]
    end = time.monotonic() + 15
    while time.monotonic() < end and any(left_processes(place.name) for place in places):
        time.sleep(0.05)
    assert [place for place in places if left_processes(place.name)] == []
    while level == "landlock" and time.monotonic() < end and any(place.exists() for place in places):
        time.sleep(0.05)
    while level == "bubblewrap" and time.monotonic() < end and any(place.exists() for place in places):
        sweep(list({place.parent for place in places}))  # a cgroup is busy until its dead are buried
        time.sleep(0.05)
    assert [place for place in places if place.exists()] == []


def test_only_what_dead_processes_left_is_swept(tmp_path: Path) -> None:
    """Not what is alive, has another name, or belongs to another namespace's process of that number."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    space, me, dice = own_name().split("-")[1:]
    dead = f"trimtab-{space}-{ended.pid}-{dice}"
    others = [own_name(), f"trimtab-{int(space) + 1}-{ended.pid}-{dice}", f"trimtab-{ended.pid}", "trimtab-x"]
    assert int(me) == os.getpid()
    for name in (dead, *others):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("")
    assert sweep([tmp_path]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)
