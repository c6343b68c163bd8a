"""Checkpoints are whole or absent, and every changed byte is found."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.faults.forks import fork, wait

from trimtab.errors import CheckpointError
from trimtab.models.checkpoint import (
    list_checkpoints,
    load_checkpoint,
    rng_state,
    save_checkpoint,
    seed_everything,
    set_rng_state,
    sweep,
)
from trimtab.models.retention import Best, is_better, read_best, write_best
from trimtab.runs import faults

FILES = ("tensors.safetensors", "state.json", "manifest.json")


def state_of(step: int, size: int = 64) -> dict[str, Any]:
    """A small state in which every part says which step it is of."""
    return {
        "step": step,
        "weights": {"a": torch.full((size,), float(step)), "b": torch.arange(5) + step},
        "notes": [step, "text", None, True, 0.1 * step],
    }


def is_state_of(state: dict[str, Any], step: int) -> bool:
    wanted = state_of(step)
    same = all(torch.equal(state["weights"][name], wanted["weights"][name]) for name in "ab")
    return same and state["step"] == step and state["notes"] == wanted["notes"]


@pytest.fixture(autouse=True)
def _no_faults() -> Any:
    yield
    faults.arm(None)


def flip(path: Path, position: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def test_200_flipped_bits_are_all_found(tmp_path: Path) -> None:
    """Issue 5 (4): a bit flipped anywhere in any of the three files, the manifest among them, is an error."""
    path = save_checkpoint(tmp_path / "step-000001", state_of(1))
    draw = random.Random(7)
    for number in range(200):
        file = path / FILES[number % 3]
        position, bit = draw.randrange(file.stat().st_size), draw.randrange(8)
        flip(file, position, bit)
        with pytest.raises(CheckpointError):
            load_checkpoint(path)
        flip(file, position, bit)
    assert is_state_of(load_checkpoint(path), 1)


def test_every_byte_of_the_manifest_counts(tmp_path: Path) -> None:
    """Issue 5 (4): also the white space and the checksum of the manifest itself."""
    path = save_checkpoint(tmp_path / "step-000001", state_of(1)) / "manifest.json"
    for position in range(path.stat().st_size):
        flip(path, position, 0)
        with pytest.raises(CheckpointError):
            load_checkpoint(path.parent)
        flip(path, position, 0)
    path.write_text(path.read_text() + "\n")
    with pytest.raises(CheckpointError, match=r"manifest\.json was changed"):
        load_checkpoint(path.parent)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("what", ["missing", "empty", "truncated", "longer"])
def test_missing_and_truncated_files_are_found(file: str, what: str, tmp_path: Path) -> None:
    """Issue 5 (4): one sentence that names the checkpoint."""
    path = save_checkpoint(tmp_path / "step-000001", state_of(1)) / file
    content = path.read_bytes()
    path.unlink()
    if what != "missing":
        kept = {"empty": b"", "truncated": content[:-1], "longer": content + b"\0"}
        path.write_bytes(kept[what])
    with pytest.raises(CheckpointError, match=r"step-000001.*use an older one"):
        load_checkpoint(path.parent)


def test_files_that_do_not_belong_are_found(tmp_path: Path) -> None:
    """Issue 5 (4): an extra file, and a checkpoint under another name, are errors."""
    path = save_checkpoint(tmp_path / "step-000001", state_of(1))
    (path / "extra.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"extra\.bin is no file of the checkpoint"):
        load_checkpoint(path)
    (path / "extra.bin").unlink()
    other = path.rename(tmp_path / "step-000009")
    with pytest.raises(CheckpointError, match="its directory renamed"):
        load_checkpoint(other)


def save_for_ever(directory: Path) -> int:
    """Save checkpoint after checkpoint, every third one twice; say what was begun and what is done."""
    step = 0
    while True:
        step += 1
        for _ in range(2 if step % 3 == 0 else 1):
            with (directory / "log").open("a") as log:
                log.write(f"begun {step}\n")
            save_checkpoint(directory / f"step-{step:06d}", state_of(step))
            with (directory / "log").open("a") as log:
                log.write(f"done {step}\n")


def kill_points(root: Path, count: int) -> int:
    """Kill a process that saves in a loop at ``count`` random moments; return the kills inside a save.

    What is found afterwards must be the last finished checkpoint or the one that was being written.
    """
    draw, num_inside = random.Random(11), 0
    for number in range(count):
        folder = root / str(number)
        folder.mkdir()
        pid = fork(lambda folder=folder: save_for_ever(folder), folder / "output")  # type: ignore[misc]
        end = time.monotonic() + 30
        while not (folder / "log").exists() or "done 1\n" not in (folder / "log").read_text():
            assert time.monotonic() < end, (folder / "output").read_text()
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.03))
        os.kill(pid, signal.SIGKILL)
        wait(pid)
        words = (folder / "log").read_text().split()
        log = list(zip(words[::2], words[1::2], strict=False))
        begun = max(int(step) for word, step in log if word == "begun")
        done = max(int(step) for word, step in log if word == "done")
        num_inside += log[-1][0] == "begun"
        sweep(folder)
        found = list_checkpoints(folder)
        for path in found:
            assert is_state_of(load_checkpoint(path), int(path.name.removeprefix("step-")))
        assert int(found[-1].name.removeprefix("step-")) in (done, begun)
        assert len(found) in (1, 2, 3) and not list(folder.glob(".*"))
        shutil.rmtree(folder)
    return num_inside


def test_killed_at_random_moments(tmp_path: Path) -> None:
    """Issue 5 (4): the previous checkpoint or the new one, always whole; also when one is replaced."""
    kill_points(tmp_path, 10)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_200_random_moments(tmp_path: Path) -> None:
    """Issue 5 (4): 200 random kill points; most of them fall inside a save."""
    inside = kill_points(tmp_path, 200)
    print(f"200 kills, {inside} of them inside a save")
    assert inside > 100


@pytest.mark.parametrize(
    "point",
    ["started", "after_tensors", "after_state", "after_manifest", "before_rename", "between_renames"],
)
def test_a_full_disk_leaves_the_one_before(point: str, tmp_path: Path) -> None:
    """Issue 5 (4): the error is a sentence, what was half written is gone, what was there is whole."""
    save_checkpoint(tmp_path / "step-000001", state_of(1))
    save_checkpoint(tmp_path / "step-000002", state_of(1))
    faults.arm(f"checkpoint_{point}@1=oserror")
    with pytest.raises(CheckpointError, match=f"{os.strerror(errno.ENOSPC)}.*make room on the disk"):
        save_checkpoint(tmp_path / "step-000002", state_of(2))
    found = list_checkpoints(tmp_path)
    assert [path.name for path in found] == ["step-000001", "step-000002"]
    assert is_state_of(load_checkpoint(found[0]), 1) and not list(tmp_path.glob(".*"))


def test_a_really_full_disk(tmp_path: Path) -> None:
    """Issue 5 (4): the same where a write itself fails, by a limit on the size of files."""
    save_checkpoint(tmp_path / "step-000001", state_of(1))

    def body() -> int:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            save_checkpoint(tmp_path / "step-000002", state_of(2, size=100_000))
        except CheckpointError as error:
            print(error)
            return 5
        return 0

    assert wait(fork(body, tmp_path / "output")) == 5
    assert "step-000002 cannot be written (" in (tmp_path / "output").read_text()
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000001"]
    assert not list(tmp_path.glob(".*"))


def test_old_ones_go_and_named_ones_stay(tmp_path: Path) -> None:
    """Issue 5 (4): the newest N and those that are named; nothing goes before the new one is there."""
    for step in range(1, 6):
        save_checkpoint(tmp_path / f"step-{step:06d}", state_of(step), keep=2, kept={"step-000002"})
    names = [path.name for path in list_checkpoints(tmp_path)]
    assert names == ["step-000002", "step-000004", "step-000005"]
    faults.arm("checkpoint_before_rename@1=oserror")
    with pytest.raises(CheckpointError):
        save_checkpoint(tmp_path / "step-000006", state_of(6), keep=1)
    assert [path.name for path in list_checkpoints(tmp_path)] == names


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    """Issue 5 (4): step 1000000 is newer than step 999999 though its name sorts before it."""
    for step in (1_000_000, 999_999):
        save_checkpoint(tmp_path / f"step-{step:06d}", state_of(1), keep=5)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-999999", "step-1000000"]


def test_the_best_is_read_only_where_it_is_true(tmp_path: Path) -> None:
    """Issue 5 (4): a damaged file, another metric, or a checkpoint that is gone is no best."""
    save_checkpoint(tmp_path / "step-000002", state_of(2))
    best = Best("step-000002", "eval/reward", 0.5)
    write_best(tmp_path, best)
    assert read_best(tmp_path, "eval/reward") == best
    assert read_best(tmp_path, "eval/pass_rate") is None and read_best(tmp_path, None) is None
    assert is_better(0.6, best, "max") and not is_better(0.5, best, "max") and is_better(0.4, best, "min")
    assert not is_better(float("nan"), None, "max")
    (tmp_path / "best.json").write_text(json.dumps({"checkpoint": 3}))
    assert read_best(tmp_path, "eval/reward") is None
    write_best(tmp_path, Best("step-000001", "eval/reward", 0.5))
    assert read_best(tmp_path, "eval/reward") is None


def test_every_global_random_state_is_restored(tmp_path: Path) -> None:
    """Issue 5 (4): torch, NumPy and Python go on with the draws that they would have made."""

    def draws() -> list[float]:
        return [float(torch.rand(())), float(np.random.normal()), random.gauss(0, 1), random.random()]

    seed_everything(5)
    draws()
    save_checkpoint(tmp_path / "step-000001", {"rng": rng_state()})
    wanted = draws()
    seed_everything(6)
    set_rng_state(load_checkpoint(tmp_path / "step-000001")["rng"])
    assert draws() == wanted
    seed_everything(5)
    first = draws()
    seed_everything(5)
    assert draws() == first
