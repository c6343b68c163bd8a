"""GRPO on the built-in model with a reward server that is well, dead, killed, slow or lying.

``python -m tests.faults.remote_runs [STEPS]`` prints a table: what abstained, what it cost, what was said.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.unit.rewards.bad_server import bad_server, dead_address

from trimtab.config import build_recipe
from trimtab.errors import RewardError
from trimtab.pipeline import run_pipeline
from trimtab.runs import metrics_table
from trimtab.runs.reader import read_rollouts

GARBAGE = ("html", "nan", "short", "strings", "500", "truncated")
# Short times, so that the whole table takes a minute; the bounds are of the same kind as the defaults.
OPTIONS: dict[str, Any] = {"timeout_s": 1.0, "deadline_s": 5.0, "batch_size": 8, "retries": 1, "pause_s": 1.0}
PROMPTS = ["你好", "请介绍一下你们的产品", "What does it cost?", "我想预约演示"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run says: shares and seconds of every step, and how often each error was given."""

    name: str
    abstained: list[float]
    reward_s: list[float]
    step_s: list[float]
    errors: Counter[str]

    def row(self) -> str:
        """One line of the table."""
        shown = "; ".join(f"{text} ({count}x)" for text, count in self.errors.most_common(3))
        mean = sum(self.reward_s) / len(self.reward_s)
        return (
            f"{self.name:<10} steps {len(self.abstained):>2}  abstained {_mean(self.abstained):5.0%}  reward "
            f"s/step mean {mean:.3f} max {max(self.reward_s):.3f}  step s {_mean(self.step_s):.2f}  {shown}"
        )


def train(root: Path, name: str, url: str, steps: int, **options: Any) -> Outcome:
    """Run ``steps`` of GRPO with the reward ``remote`` at ``url`` alone, or as many as it lasts."""
    root = root / name.replace(" ", "_")
    root.mkdir(parents=True)
    prompts = root / "prompts.json"
    prompts.write_text(json.dumps(PROMPTS, ensure_ascii=False), encoding="utf-8")
    recipe = build_recipe(
        {
            "model": {"path": "builtin:tiny-zh", "dtype": "float32"},
            "paths": {"policy": str(root / "policy"), "run": str(root / "run")},
            "rl": {
                "data": str(prompts),
                "rewards": [{"name": "remote", "options": {"url": url, **OPTIONS, **options}}],
                "steps": steps,
                "num_prompts": 4,
                "num_generations": 8,
                "max_new_tokens": 16,
                "learning_rate": 1e-4,
            },
            "monitor": {"max_silent_steps": 1000},  # a server may be away for longer than these steps take
        }
    )
    with suppress(RewardError):  # no reward in the first step: the run ends there, and says why
        run_pipeline(recipe, "rl")
    table = metrics_table(root / "run", "rl")
    errors = Counter(
        _numbers_out(record["error"]) for record in read_rollouts(root / "run", "rl") if record["error"]
    )
    return Outcome(
        name,
        _column(table, "reward/abstained"),
        _column(table, "time/reward"),
        _column(table, "time/step"),
        errors,
    )


@contextmanager
def served(
    reward: str = "length", *words: str, port: int = 0
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """``trimtab rewards serve`` in a process of its own, once it is healthy."""
    port = port or int(dead_address().rsplit(":", 1)[1])
    command = [sys.executable, "-m", "trimtab.cli", "rewards", "serve", reward, "--port", str(port), *words]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: _is_healthy(url), 120.0)
        yield url, process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(30)


def killed_and_restarted(root: Path, steps: int) -> Outcome:
    """The server is killed (SIGKILL) after three steps and started again at once."""
    events = root / "killed" / "run"
    finish = threading.Event()

    def kill_and_restart(process: subprocess.Popen[bytes], port: int) -> None:
        wait_until(lambda: len(_column_of(events)) >= 3 or finish.is_set(), 120.0)
        os.kill(process.pid, signal.SIGKILL)
        with served(port=port):
            finish.wait(300)

    with served() as (url, process):
        watcher = threading.Thread(target=kill_and_restart, args=(process, int(url.rsplit(":", 1)[1])))
        watcher.start()
        try:
            return train(root, "killed", url, steps)
        finally:
            finish.set()
            watcher.join()


def all_runs(root: Path, steps: int) -> Iterator[Outcome]:
    """Every kind of server, one run each."""
    with served() as (url, _):
        yield train(root, "healthy", url, steps)
    yield train(root, "dead", dead_address(), steps)
    yield killed_and_restarted(root, steps * 5)
    with bad_server("slow") as server:
        yield train(root, "slow", server.url, steps)
    for mode in GARBAGE:
        with bad_server(mode) as server:
            yield train(root, mode, server.url, steps)


def wait_until(is_done: Callable[[], bool], seconds: float) -> None:
    """Wait; fail when it takes longer than that."""
    ends = time.monotonic() + seconds
    while not is_done():
        assert time.monotonic() < ends, f"it took longer than {seconds:g} s"
        time.sleep(0.05)


def _is_healthy(url: str) -> bool:
    with suppress(OSError, ValueError):
        return bool(json.load(urllib.request.urlopen(f"{url}/health", timeout=2))["status"] == "ok")
    return False


def _column_of(run: Path) -> list[float]:
    with suppress(Exception):  # there is no run yet
        return _column(metrics_table(run, "rl"), "reward/abstained")
    return []


def _column(table: dict[str, list[float | None]], name: str) -> list[float]:
    return [value for value in table[name] if value is not None]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _numbers_out(error: str) -> str:
    """The error without the figures that differ every time."""
    text = error.partition("it is asked again")[0].rstrip("; ")
    return " ".join("N" if word.isdigit() else word for word in text.split())


def main() -> None:
    """Print the table."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 6
    with tempfile.TemporaryDirectory() as folder:
        for outcome in all_runs(Path(folder), steps):
            print(outcome.row(), flush=True)


if __name__ == "__main__":
    main()
