"""Threads on a shared machine: what is set before torch, what the user's own settings keep, quotas (B.13)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trimtab.cores import WAITING, allowed_cores, one_thread, settle_environment, share_of_cores, usable_cores


def group(root: Path, text: str, files: dict[str, str]) -> Path:
    """A made-up machine: what /proc says of the process's groups, and the files of the groups."""
    for name, content in {"proc/self/cgroup": text, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.mark.parametrize("name", WAITING)
def test_what_the_user_has_set_stays(name: str) -> None:
    own = {name: "7", "OMP_NUM_THREADS": "3"}
    settle_environment(own)
    assert own == {name: "7", "OMP_NUM_THREADS": "3"}


def test_all_runtimes_wait_briefly() -> None:
    found: dict[str, str] = {}
    settle_environment(found)
    assert found["GOMP_SPINCOUNT"] == "2000" and found["KMP_BLOCKTIME"] == "1"


@pytest.mark.parametrize(
    ("text", "files", "cores"),
    [
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
        (
            "0::/a/b\n",
            {"sys/fs/cgroup/a/cpu.max": "50000 100000", "sys/fs/cgroup/a/b/cpu.max": "max 100000"},
            1,
        ),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "nonsense"}, 8),
        (
            "4:cpu,cpuacct:/x\n",
            {
                "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (
            "4:cpu:/\n",
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
            8,
        ),
        ("", {}, 8),
    ],
)
def test_a_quota_bounds_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, files: dict[str, str], cores: int
) -> None:
    """1.5 cores are two threads, half a core is one, the group above counts, no quota: all eight."""
    monkeypatch.setattr("trimtab.cores.allowed_cores", lambda: 8)
    assert usable_cores(group(tmp_path, text, files)) == cores


def test_the_quota_becomes_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.cores.allowed_cores", lambda: 8)
    monkeypatch.setattr("trimtab.cores.usable_cores", lambda: 2)
    found: dict[str, str] = {}
    settle_environment(found)
    assert found["OMP_NUM_THREADS"] == "2"
    assert share_of_cores({}, 2)["OMP_NUM_THREADS"] == "1"
    assert share_of_cores({}, 5)["OMP_NUM_THREADS"] == "1"
    assert share_of_cores({"OMP_NUM_THREADS": "4"}, 5) == {"OMP_NUM_THREADS": "4"}


def test_workers_beside_the_trainer_have_one_thread() -> None:
    assert one_thread({"OMP_NUM_THREADS": "8", "A": "b"}) == {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "A": "b",
    }
    assert allowed_cores() >= 1


def test_importing_any_part_sets_it_before_torch() -> None:
    """A fresh process: the variables are there, torch is not."""
    program = "import sys, os, trimtab.cli.main; print('torch' in sys.modules, os.environ['GOMP_SPINCOUNT'])"
    clean = {key: value for key, value in os.environ.items() if key not in WAITING}
    done = subprocess.run([sys.executable, "-c", program], env=clean, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "2000"], done.stderr
