"""The run that faults are put into: six steps of GRPO on a very small model, and what it left."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tests.faults.forked import Ended, run_forked
from tests.unit.trainers.systems import tiny_directory

from trimtab.runs import EventKind, metrics_table, read_events
from trimtab.runs.reader import read_rollouts

STEPS = 6
_REWARD = Path(__file__).parent.parent / "unit" / "pipeline" / "tiny_reward.py"
IN_PROCESS = {"name": f"{_REWARD}:varied", "options": {"isolate": False}}
_TIMES = ("time/", "speed/")


@dataclass(frozen=True)
class TinyRun:
    """A run's place and its recipe; ``change`` replaces keys of [rl], ``monitor`` of [monitor]."""

    root: Path
    seed: int
    change: Mapping[str, Any] = field(default_factory=dict)
    monitor: Mapping[str, Any] = field(default_factory=dict)

    @property
    def output(self) -> Path:
        """What --output names."""
        return self.root / "out"

    @property
    def run(self) -> Path:
        """The run directory."""
        return self.output / "run"

    @property
    def checkpoints(self) -> Path:
        """The checkpoints of the RL stage."""
        return self.run / "checkpoints" / "rl"

    def write(self) -> Path:
        """Write recipe and prompts; return the recipe."""
        self.root.mkdir(parents=True, exist_ok=True)
        prompts, hidden = self.root / "prompts.json", self.root / "hidden.json"
        prompts.write_text(json.dumps([f"question number {i}" for i in range(8)]))
        hidden.write_text(json.dumps([f"something else entirely {i}" for i in range(3)]))
        tree: dict[str, Any] = {
            "name": "fault",
            "seed": self.seed,
            "threads": 1,
            "model": {"path": base_model(), "dtype": "float32"},
            "rl": {
                "data": str(prompts),
                "hidden_data": str(hidden),
                "eval_every": 3,
                "eval_prompts": 2,
                "rewards": [IN_PROCESS],
                "steps": STEPS,
                "checkpoint_every": 2,
                "num_prompts": 2,
                "num_generations": 4,
                "num_minibatches": 2,
                "max_new_tokens": 8,
                "learning_rate": 1e-3,
                "kl": {"coef": 0.05},
                **self.change,
            },
            "monitor": {"samples": 0, **self.monitor},
        }
        path = self.root / "recipe.toml"
        path.write_text("\n".join(f"{key} = {_toml(value)}" for key, value in tree.items()), encoding="utf-8")
        return path

    def start(
        self,
        fault: str | None = None,
        setup: Callable[[], object] | None = None,
        *,
        resume: bool = False,
        **options: Any,
    ) -> Ended:
        """Run it in a process of its own, with a fault in it."""
        words = ["run", str(self.write()), "--output", str(self.output), *(["--resume"] if resume else [])]
        log = self.root / ("resumed.log" if resume else "first.log")
        return run_forked(words, log, fault=fault, setup=setup, **options)

    def left(self) -> dict[str, Any]:
        """What must be equal in two runs that are said to be the same: weights, metrics, texts."""
        table = metrics_table(self.run, "rl")
        rows = read_rollouts(self.run, "rl")
        return {
            "weights": hashlib.sha256(
                (self.output / "policy" / "model.safetensors").read_bytes()
            ).hexdigest(),
            "metrics": {k: v for k, v in sorted(table.items()) if not k.startswith(_TIMES)},
            "rollouts": [(r["step"], r["prompt_id"], r["completion"], r["reward"]) for r in rows],
        }

    def weights(self) -> dict[str, torch.Tensor]:
        """The numbers of the policy that it left."""
        return load_file(self.output / "policy" / "model.safetensors")

    def events(self, kind: EventKind) -> list[Any]:
        """The events of one kind."""
        return read_events(self.run, kind) if (self.run / "events.jsonl").exists() else []

    def steps_done(self) -> list[float]:
        """The steps in the record."""
        return [event.step for event in self.events("metrics") if event.stage == "rl"]


@cache
def base_model() -> str:
    """The model that every run starts from; written once per process."""
    import atexit
    import shutil
    import tempfile

    folder = tempfile.mkdtemp(prefix="trimtab-faults-")
    Path(folder).chmod(0o755)
    import os

    owner = os.getpid()
    atexit.register(lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == owner else None)
    return tiny_directory(Path(folder) / "base")


def _toml(value: Any) -> str:
    """Numbers, texts, lists and tables of one line."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
