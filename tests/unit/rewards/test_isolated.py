"""A user's reward file in a process of its own: what works, what goes wrong, and that nothing stays."""

from __future__ import annotations

import datetime
import os
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.unit.rewards.malformed_rewards import MALFORMED, Malformed, sample, try_one

from trimtab.config import RewardSpec
from trimtab.errors import RewardError
from trimtab.rewards.adapters import reward_from_file
from trimtab.rewards.base import call_reward
from trimtab.rewards.isolated import IsolatedReward, kind_of, user_reward
from trimtab.rewards.isolated_wire import decode, encode
from trimtab.rewards.registry import build_reward
from trimtab.types import Prompt, Sample


def write(folder: Path, code: str) -> str:
    """The file, named with its function ``mine``."""
    (folder / "mine.py").write_text(code)
    return f"{folder}/mine.py:mine"


def is_running(pid: int) -> bool:
    """Whether there is such a process, not counting one that has ended and was not taken in."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pids: list[int]) -> list[int]:
    """Those that still run after some seconds."""
    end = time.monotonic() + 10
    while time.monotonic() < end and any(map(is_running, pids)):
        time.sleep(0.02)
    return [pid for pid in pids if is_running(pid)]


@pytest.mark.parametrize("case", MALFORMED, ids=lambda case: case.name)
def test_what_goes_wrong_costs_its_batch(case: Malformed, tmp_path: Path) -> None:
    """R19: no crash; both samples abstain, are counted, and told why; the next batch is scored."""
    found = try_one(case, tmp_path)
    if case.is_refused:
        assert found.values == [] and case.kind in found.errors[0]
        return
    assert found.values == [None, None]
    assert found.faults == {case.kind: 2}
    assert len(found.errors) == 2 and all("mine" in error for error in found.errors)
    assert found.next_values == [1.0, 1.0]
    assert found.num_deaths == (case.kind in ("timeout", "killed", "exited", "forged reply"))


FORMS = {
    "TRL": "def mine(prompts, completions, answer, **columns):\n"
    "    return [float(c == a) + len(p) for p, c, a in zip(prompts, completions, answer)]\n",
    "TRL with messages": "def mine(prompts, completions, scale=1.0, **columns):\n"
    "    return [scale * len(c[0]['content']) + len(p[-1]['role']) for p, c in zip(prompts, completions)]\n",
    "TRL with tokens and step": "def mine(completions, completion_ids, trainer_state, **columns):\n"
    "    return [len(ids) + trainer_state.global_step for ids in completion_ids]\n",
    "TRL async": "import asyncio\nasync def mine(completions, **columns):\n"
    "    await asyncio.sleep(0)\n    return [None if c == 'no' else 2.0 for c in completions]\n",
    "verl": "def mine(data_source, solution_str, ground_truth, extra_info=None):\n"
    "    if solution_str == 'no': raise ValueError('row')\n"
    "    return {'score': float(solution_str == ground_truth), 'length': len(solution_str)}\n",
    "OpenRLHF": "def mine(queries, prompts, labels):\n"
    "    return {'rewards': [float(q == p + l) for q, p, l in zip(queries, prompts, labels)]}\n",
    "a class": "class mine:\n    name = 'long'\n    def __init__(self, scale=1.0): self.scale = scale\n"
    "    def score(self, samples): return [self.scale * len(s.completion) for s in samples]\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_works_as_it_does_here(form: str, tmp_path: Path) -> None:
    """R31: the same values, parts, errors and name as in this process."""
    file = write(tmp_path, FORMS[form])
    talk = ({"role": "user", "content": "2+2?"},)
    rows = [
        Sample(
            Prompt(str(i), talk, {"answer": "4", "tag": (i, None)}, form.endswith("messages")), text, (1, 2)
        )
        for i, text in enumerate(["4", "no", "五\ud800"])
    ]
    options = {"scale": 2.0} if "scale" in FORMS[form] else {}
    isolated, here = user_reward(file, options), reward_from_file(file, options)
    for reward in (isolated, here):
        if hasattr(reward, "set_step"):
            reward.set_step(7)
    assert isolated.name == here.name
    assert isolated.score(rows) == call_reward(here, rows)


def test_columns_arrive_as_they_are(tmp_path: Path) -> None:
    """What JSON does not know is carried; what cannot be carried is named with the way out."""
    row: dict[str, Any] = {
        "when": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
        "day": datetime.date(2026, 1, 2),
        "price": Decimal("1.20"),
        "raw": b"\x00x",
        "pair": (1, [2.5, None]),
        "by_number": {1: "a"},
        "tags": {"x"},
        "marked": {"$trimtab": "tuple", "value": 3},
    }
    assert decode(encode(row)) == row
    code = f"import datetime\nfrom decimal import Decimal\nROW = {row!r}\n"
    code += "def mine(completions, **columns):\n    return [all(columns[k] == [v] for k, v in ROW.items())]\n"
    reward = IsolatedReward(write(tmp_path, code))
    talk = ({"role": "user", "content": "?"},)
    assert [r.value for r in reward.score([Sample(Prompt("0", talk, row), "x")])] == [1.0]
    result = reward.score([Sample(Prompt("0", talk, {"image": object()}), "x")])[0]
    assert result.value is None
    assert "'image' holds a object" in str(result.error) and "isolate = false" in str(result.error)
    assert reward.faults == {"cannot be sent": 1} and reward.num_deaths == 0


def test_the_process_is_light_and_its_own(tmp_path: Path) -> None:
    """No torch unless the file asks for it; another process than this one; one process for all batches."""
    code = "import os, sys\ndef mine(completions):\n    return [os.getpid(), 'torch' in sys.modules]\n"
    file = write(tmp_path, code)
    reward = IsolatedReward(file)
    first, second = ([r.value for r in reward.score([sample("a"), sample("b")])] for _ in range(2))
    assert first == second and first[0] != os.getpid() and first[1] == 0.0
    here = user_reward(file, {"isolate": False}).score([sample("a"), sample("b")])
    assert here[0].value == os.getpid()


CHILDREN = """
import os, subprocess, time
def mine(completions, path, **columns):
    started = [subprocess.Popen(["sleep", "1000"]).pid]
    started.append(subprocess.Popen(["sleep", "1000"], start_new_session=True).pid)
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        pid = os.fork()
        if pid == 0:
            time.sleep(1000)
        os.write(write, str(pid).encode())
        os._exit(0)
    started.append(int(os.read(read, 20)))
    with open(path[0], "w") as file:
        print(os.getpid(), *started, file=file)
    while True:
        pass
"""


def test_what_it_started_ends_with_it(tmp_path: Path) -> None:
    """A child, one in a session of its own, and a daemon: none survives the deadline."""
    reward = IsolatedReward(write(tmp_path, CHILDREN), timeout_s=4.0)
    talk, found = ({"role": "user", "content": "?"},), tmp_path / "pids"
    assert reward.score([Sample(Prompt("0", talk, {"path": str(found)}), "x")])[0].value is None
    pids = [int(word) for word in found.read_text().split()]
    assert len(pids) == 4 and wait_until_gone(pids) == []


def test_it_ends_with_a_killed_trainer(tmp_path: Path) -> None:
    """Also in the middle of an endless loop."""
    code = (
        "import os\ndef mine(completions, path, **columns):\n    open(path[0], 'w').write(str(os.getpid()))\n"
    )
    file, found = write(tmp_path, code + "    while True: pass\n"), tmp_path / "pid"
    trainer = (
        "import os, signal, threading, time\nfrom pathlib import Path\n"
        "from trimtab.rewards.isolated import IsolatedReward\nfrom trimtab.types import Prompt, Sample\n"
        f"row = Sample(Prompt('0', ({{'role': 'user', 'content': '?'}},), {{'path': {str(found)!r}}}), 'x')\n"
        f"reward = IsolatedReward({file!r})\n"
        "threading.Thread(target=reward.score, args=([row],), daemon=True).start()\n"
        f"while not Path({str(found)!r}).exists() or not Path({str(found)!r}).read_text(): time.sleep(0.01)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", trainer], capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert wait_until_gone([int(found.read_text())]) == []


def test_it_is_not_started_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After three deaths in a row (five, shortened here) the samples abstain without a new process."""
    monkeypatch.setattr("trimtab.rewards.isolated._MAX_DEATHS", 3)
    reward = IsolatedReward(write(tmp_path, "import os\ndef mine(completions, **columns): os._exit(9)\n"))
    errors = [reward.score([sample("a")])[0].error for _ in range(5)]
    assert all("its process ended with exit code 9" in str(error) for error in errors)
    assert "not started again after 3 deaths" in str(errors[4])
    assert reward.num_deaths == 3 and reward.faults == {"exited": 3, "given up": 2}


def test_what_it_prints_is_shown_cleaned_and_bounded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr, so that results on stdout stay whole; escape sequences are removed."""
    code = "def mine(completions):\n    print('\\x1b[31mseen' if completions[0] == 'a' else 'y' * 99999)"
    reward = IsolatedReward(write(tmp_path, code + "\n    return [1.0]\n"))
    reward.score([sample("a")])
    reward.score([sample("b")])
    reward.close()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "seen" in shown.err and "\x1b" not in shown.err
    assert 1000 < shown.err.count("y") < 30_000 and "is not shown" in shown.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timeout_s": 0}, "timeout_s = 0 must be"),
        ({"timeout_s": "soon"}, "timeout_s = 'soon' must be"),
        ({"timeout_s": True}, "timeout_s = True must be"),
        ({"isolate": "no"}, "isolate = 'no' must be true or false"),
        ({"isolate": False, "timeout_s": 3}, "needs a process of its own"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    """One sentence each, before anything is started."""
    with pytest.raises(RewardError, match=r"mine\.py:mine") as caught:
        user_reward(write(tmp_path, FORMS["TRL"]), options)
    assert words in str(caught.value)


def test_recipes_isolate_by_default(tmp_path: Path) -> None:
    """`FILE.py:function` in rl.rewards is isolated, with timeout_s and isolate as its options."""
    file = write(tmp_path, FORMS["TRL async"])
    specs = [
        RewardSpec(name=file, options={"timeout_s": 5.5}),
        RewardSpec(name=file, options={"isolate": False}),
    ]
    first, second = (reward for reward, _ in build_reward(specs).components)
    assert isinstance(first, IsolatedReward) and first.timeout_s == 5.5
    assert not isinstance(second, IsolatedReward)


def test_causes_are_told_apart() -> None:
    """Also where an exception's own words are those of another cause."""
    assert kind_of("reward m failed: ValueError: it did not answer within 3 s") == "exception"
    assert kind_of("reward m failed: it did not answer within 3 s (timeout_s)") == "timeout"
    assert kind_of("reward m failed: SystemExit") == "SystemExit"
