"""How threads wait and how many there are, said before torch is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trimtab.cores import one_thread, settings, usable_cores, visible_cores

NAMES = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")


def environment_after(code: str, **given: str) -> dict[str, str]:
    """What a fresh interpreter has in its environment after ``code``."""
    kept = {k: v for k, v in os.environ.items() if k not in (*NAMES, "OMP_WAIT_POLICY")}
    script = f"{code}\nimport json, os; print(json.dumps(dict(os.environ)))"
    done = subprocess.run(
        [sys.executable, "-c", script], env={**kept, **given}, capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_threads_fall_asleep_soon() -> None:
    """B.13: importing trimtab, for the command line, Python and every worker, is enough."""
    for code in ("import trimtab", "import trimtab.cli.main", "from trimtab.rewards import isolated_worker"):
        found = environment_after(code)
        assert (found["GOMP_SPINCOUNT"], found["KMP_BLOCKTIME"]) == ("2000", "1")


@pytest.mark.parametrize("name", ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME"])
def test_what_the_user_says_stays(name: str) -> None:
    """B.13: one word of the user about waiting, and nothing is set."""
    found = environment_after("import trimtab", **{name: "7"})
    assert {k: found[k] for k in NAMES if k in found} | {name: found[name]} == {name: "7"}


def test_a_loaded_torch_is_left_alone() -> None:
    """B.13: its runtime has read the environment, so a setting would only mislead."""
    assert "GOMP_SPINCOUNT" not in environment_after("import torch, trimtab")


def test_a_quota_bounds_the_threads(tmp_path: Path) -> None:
    """B.13: a container that sees 64 cores and may use one and a half gets two threads."""
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert usable_cores(tmp_path) == min(2, visible_cores())
    assert settings({}, usable=2, visible=64)["OMP_NUM_THREADS"] == "2"
    assert "OMP_NUM_THREADS" not in settings({}, usable=64, visible=64)
    assert "OMP_NUM_THREADS" not in settings({"OMP_NUM_THREADS": "9"}, usable=2, visible=64)


@pytest.mark.parametrize("text", ["max 100000", "", "x y", "5 0"])
def test_no_quota(tmp_path: Path, text: str) -> None:
    """B.13: no limit, or a file that says nothing, leaves the cores that are there."""
    (tmp_path / "cpu.max").write_text(text)
    assert usable_cores(tmp_path) == visible_cores() == usable_cores(tmp_path / "nothing")


def test_the_first_cgroups(tmp_path: Path) -> None:
    """B.13: version 1 keeps quota and period in two files."""
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("50000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert usable_cores(tmp_path) == 1
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert usable_cores(tmp_path) == visible_cores()


def test_a_worker_has_one_thread() -> None:
    """B.13: a reward worker beside the trainer, also where the trainer was given more; the rest stays."""
    found = one_thread({"OMP_NUM_THREADS": "8", "HOME": "/h"})
    assert (found["OMP_NUM_THREADS"], found["MKL_NUM_THREADS"], found["HOME"]) == ("1", "1", "/h")
    assert found["GOMP_SPINCOUNT"] == "2000"
    assert "GOMP_SPINCOUNT" not in one_thread({"OMP_WAIT_POLICY": "active"})


def test_a_user_reward_sees_one_thread(tmp_path: Path) -> None:
    """B.13: the process of a reward function of the user's own."""
    from trimtab.rewards.isolated import user_reward
    from trimtab.types import Prompt, Sample

    (tmp_path / "r.py").write_text(
        "import os\ndef f(completions, **_):\n"
        '    return [float(os.environ["OMP_NUM_THREADS"]) for _ in completions]\n'
    )
    reward = user_reward(f"{tmp_path}/r.py:f", {})
    assert reward.score([Sample(Prompt("0", ({"role": "user", "content": "q"},)), "a")])[0].value == 1.0
