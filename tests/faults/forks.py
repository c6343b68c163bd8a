"""Runs of tiny recipes in forked children: a child starts in milliseconds, with everything imported.

``trimtab run`` is called as from the command line, in a process of its own that a test may kill. The parent
must not start threads, so nothing is computed in it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.forked import fork, wait
from tests.unit.pipeline.tiny_recipe import tiny_tree

from trimtab.models.checkpoint import load_checkpoint
from trimtab.runs import faults, metrics_table, read_events, read_rollouts

STEPS, EVERY = 6, 2
KILLED = -signal.SIGKILL
STAGES = ("sft", "reward_model", "grpo", "ppo")
OUTPUTS = {"sft": "sft", "reward_model": "rm", "rl": "policy"}


# What a run imports on its way: a child that is forked after them starts at once.
for _name in (
    "trimtab.cli.run",
    "trimtab.pipeline",
    "pyarrow.parquet",
    "scipy.stats",
    "transformers.generation.utils",
    "transformers.models.llama.modeling_llama",
    "pandas",
):
    with contextlib.suppress(ImportError):  # pyarrow imports pandas where it is
        importlib.import_module(_name)


def table_of(kind: str) -> str:
    """The recipe's table of one of the four stages."""
    return "rl" if kind in ("grpo", "ppo") else kind


def write_recipe(root: Path, kind: str, **keys: Any) -> Path:
    """A recipe of one stage: six steps, a checkpoint after every second; data and base are in ``root``."""
    root.mkdir(parents=True, exist_ok=True)
    tree = tiny_tree(root)
    name = table_of(kind)
    table = {**tree[name], "steps": STEPS, "checkpoint_every": EVERY, "learning_rate": 1e-2}
    if name == "rl":
        # Neither starts a process; both differ between completions of random bytes.
        rewards = [
            {"name": "length", "options": {"low": 40, "high": 60}},
            {"name": "language", "options": {"target": "en"}, "constraint": {"target": 0.1}},
        ]
        table |= {"algorithm": kind, "rewards": rewards, "max_new_tokens": 6}
        table |= {"num_minibatches": 2, "num_epochs_per_batch": 1}
        table |= {"eval_every": 2, "eval_prompts": 2, "reward_normalisation": "running"}
        table |= {"kl": {"controller": "adaptive", "horizon": 10, "coef": 0.1}}
        if kind == "grpo":
            table |= {"reference_refresh_steps": 3, "reference_mix": 0.5}
    kept = {key: tree[key] for key in ("name", "seed", "threads", "model", "monitor")}
    path = root / "recipe.toml"
    path.write_text(to_toml({**kept, name: {**table, **keys}}), encoding="utf-8")
    return path


def to_toml(tree: Mapping[str, Any]) -> str:
    """Plain data as TOML; JSON's spelling of text, numbers, truth values and lists is TOML's, too."""
    lines = [f"{key} = {_value(value)}" for key, value in tree.items() if not isinstance(value, Mapping)]
    for name, table in tree.items():
        if isinstance(table, Mapping):
            lines += [f"[{name}]", *(f"{key} = {_value(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    return json.dumps(value)


def start(
    recipe: Path,
    output: Path,
    words: Sequence[str] = (),
    fault: str | None = None,
    setup: Callable[[], object] = lambda: None,
) -> int:
    """Fork a ``trimtab run``; return its process id. ``setup`` is called in the child first."""
    output.parent.mkdir(parents=True, exist_ok=True)

    def body() -> int:
        from trimtab.cli.main import main

        setup()
        _keep_the_end(output / "end")
        faults.arm(fault)
        return main(["run", str(recipe), "--output", str(output), *words])

    return fork(body, output.parent / f"{output.name}.log")


def run(
    recipe: Path,
    output: Path,
    words: Sequence[str] = (),
    fault: str | None = None,
    setup: Callable[[], object] = lambda: None,
) -> int:
    """Run a ``trimtab run`` to its end; return its exit code."""
    return wait(start(recipe, output, words, fault, setup))


def _keep_the_end(directory: Path) -> None:
    """After the last step there is no checkpoint; a test wants one, to compare what training ended with."""
    from trimtab.errors import CheckpointError
    from trimtab.models.checkpoint import rng_state, save_checkpoint
    from trimtab.trainers.stage import Stage

    real = Stage.checkpoint_if_due

    def kept(self: Stage, step: int, total: int, state: Mapping[str, Any], every: int | None = None) -> None:
        if step == total:
            armed, faults._faults = faults._faults, None
            full = {"rng": rng_state(), "guard": self.guard.state(), **state}
            try:
                save_checkpoint(directory / f"step-{step:06d}", full)
            except CheckpointError as error:
                raise AssertionError(error) from error
            faults._faults = armed
        real(self, step, total, state, every)

    Stage.checkpoint_if_due = kept  # type: ignore[method-assign]


@dataclass(frozen=True)
class Outcome:
    """What a finished run left: files of the model, the end of training, its record."""

    model: dict[str, bytes]
    end: dict[str, Any]
    metrics: dict[str, list[Any]]
    rollouts: list[dict[str, Any]]
    num_metrics: int

    @classmethod
    def of(cls, output: Path, kind: str) -> Outcome:
        """Read the directory of a finished run."""
        name = table_of(kind)
        folder = output / OUTPUTS[name]
        table = metrics_table(output / "run", name)
        return cls(
            model={path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()},
            end=load_checkpoint(output / "end" / f"step-{STEPS:06d}"),
            metrics={key: column for key, column in table.items() if not is_time(key)},
            rollouts=read_rollouts(output / "run", name),
            num_metrics=len(read_events(output / "run", "metrics", name)),
        )

    def differences(self, other: Outcome) -> list[str]:
        """The names of what is not equal, bit for bit."""
        found = [
            f"model/{name}"
            for name in {*self.model, *other.model}
            if self.model.get(name) != other.model.get(name)
        ]
        found += [f"end/{path}" for path in unequal(self.end, other.end)]
        names = {*self.metrics, *other.metrics}
        found += [f"metrics/{n}" for n in names if str(self.metrics.get(n)) != str(other.metrics.get(n))]
        if self.rollouts != other.rollouts:
            found.append("rollouts")
        if self.num_metrics != other.num_metrics:
            found.append("a step was recorded twice, or not at all")
        return sorted(found)


def is_time(name: str) -> bool:
    """Whether a figure is of the clock, which no seed decides."""
    return name in ("speed", "seconds") or name.startswith(("time/", "speed/", "memory/"))


def unequal(a: Any, b: Any, path: str = "") -> list[str]:
    """Paths in two trees of states where they differ; figures of the clock are left out."""
    import torch

    if isinstance(a, Mapping) and isinstance(b, Mapping):
        keys = [key for key in {*a, *b} if not is_time(str(key))]
        return [
            found
            for key in keys
            for found in (
                unequal(a[key], b[key], f"{path}/{key}") if key in a and key in b else [f"{path}/{key}"]
            )
        ]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [
            found for i, (x, y) in enumerate(zip(a, b, strict=True)) for found in unequal(x, y, f"{path}/{i}")
        ]
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [path]
    return [] if str(a) == str(b) else [path]
