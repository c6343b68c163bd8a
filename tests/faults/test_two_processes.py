"""``trimtab run`` twice into one directory: the second is refused, and the first one's death frees it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.faults.forks import Outcome, run, start, wait, write_recipe

from trimtab.runs import read_events


def test_the_second_run_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    """Issue 5 (4): exit code 2 and a sentence that names the first process; after SIGKILL it is resumed."""
    recipe, out = write_recipe(tmp_path, "sft"), tmp_path / "out"
    assert run(recipe, tmp_path / "whole") == 0
    first = start(recipe, out, fault="after_batch@4=hang")
    try:
        until_step(out / "run", 3)
        before = (out / "run" / "events.jsonl").read_bytes()
        log = out.with_name("out.log")
        for words in ([], ["--resume"], ["--stage", "sft"], ["--max-restarts", "2", "--resume"]):
            said = len(log.read_bytes())
            assert run(recipe, out, words) == 2
            last = log.read_bytes()[said:].decode().strip().splitlines()[-1]
            assert f": Process {first} on " in last and "write elsewhere" in last
        assert (out / "run" / "events.jsonl").read_bytes() == before
    finally:
        os.kill(first, signal.SIGKILL)
        wait(first)
    assert run(recipe, out, ["--resume"]) == 0, log.read_text()
    assert Outcome.of(out, "sft").differences(Outcome.of(tmp_path / "whole", "sft")) == []


def until_step(root: Path, step: int, seconds: float = 60.0) -> None:
    """Wait until a step is on record."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (root / "events.jsonl").exists() and step in [e.step for e in read_events(root, "metrics")]:
            return
        time.sleep(0.01)
    raise TimeoutError(f"step {step} of {root} was not recorded in {seconds} seconds")
