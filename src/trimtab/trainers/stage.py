"""What every stage shares: records, view, health, checkpoints, and the learning rate of a step."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from trimtab.errors import DivergedError
from trimtab.models.checkpoint import (
    list_checkpoints,
    load_checkpoint,
    rng_state,
    save_checkpoint,
    set_rng_state,
)
from trimtab.monitor import Alarm, Guard, Measure
from trimtab.runs import RunWriter, TerminalView


class HasState(Protocol):
    """Anything that can be saved in a checkpoint."""

    def state(self) -> Mapping[str, Any]:
        """Return what is needed to go on."""
        ...

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        ...


@dataclass
class Stage:
    """One stage of a run: where it writes, what it shows, what watches it."""

    name: str
    run: RunWriter
    view: TerminalView
    guard: Guard
    checkpoint_every: int = 0
    is_resumed: bool = False

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record and show the metrics of a finished step, and raise what the detectors see."""
        self.run.metrics(self.name, step, metrics)
        self.view.update(step, metrics)
        self._raise_alarms(step, self.guard.after_log(metrics))

    def log_evaluation(self, step: int, measures: Mapping[str, Measure]) -> None:
        """Record and show an evaluation on the hidden prompts after ``step``, and raise what its gaps say.

        Step -1 is the evaluation before the first step: an event of step 0, and no metric of it.
        """
        figures, alarms = self.guard.after_evaluation(measures)
        self.run.event(self.name, "evaluation", max(step, 0), {**figures, "num_steps": step + 1})
        if step >= 0:
            self.run.metrics(self.name, step, figures)
        shown = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
        self.view.note(f"step {step + 1}: {shown}")
        if self.guard.healer is not None and step >= 0:
            self.guard.healer.snapshots.evaluated(step)
        self._raise_alarms(step, alarms)

    def _raise_alarms(self, step: int, alarms: Sequence[Alarm]) -> None:
        for alarm in alarms:
            self.run.event(self.name, "alarm", step, alarm.as_dict())
            self.view.note(alarm.message(self.guard.language))
        if self.guard.healer is not None:
            self.guard.healer.see(alarms)

    def stop_if_diverged(self, step: int, verdict: str, reason: str) -> None:
        """Record a verdict other than proceed; a stop ends the run with a sentence."""
        if verdict == "proceed":
            return
        self.run.event(self.name, "verdict", step, {"verdict": verdict, "reason": reason})
        self.view.note(f"guard: {verdict}: {reason}")
        if verdict == "stop":
            raise DivergedError(
                f"Stage {self.name} was stopped at step {step}: {reason}; lower the learning rate or train "
                f"in bfloat16 or float32, then go on with --resume."
            )

    @property
    def checkpoint_directory(self) -> Path:
        """Where this stage keeps its checkpoints."""
        return Path(self.run.directory.checkpoints) / self.name

    def checkpoint_if_due(self, step: int, total: int, state: Mapping[str, Any]) -> None:
        """Save a checkpoint after ``step`` finished steps when the recipe asks for one there."""
        if self.checkpoint_every and step % self.checkpoint_every == 0 and step < total:
            self.save(step, state)

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Save a checkpoint after ``step`` finished steps; those that the guard may go back to are kept."""
        healer = self.guard.healer
        kept = [f"step-{one:06d}" for one in healer.snapshots.held()] if healer else []
        full = {"step": step, "rng": rng_state(), "guard": self.guard.state(), **state}
        path = save_checkpoint(self.checkpoint_directory / f"step-{step:06d}", full, kept=kept)
        self.run.event(self.name, "checkpoint", step, {"path": str(path)})

    def restore(self) -> dict[str, Any] | None:
        """The newest checkpoint of this stage when the run is resumed, else None."""
        found = list_checkpoints(self.checkpoint_directory) if self.is_resumed else []
        if not found:
            return None
        state = load_checkpoint(found[-1])
        set_rng_state(state["rng"])
        self.guard.load_state(state["guard"])
        self.run.rewind(self.name, state["step"])
        self.view.note(f"resumed {self.name} after step {state['step']} from {found[-1]}")
        return state


@dataclass(frozen=True, slots=True)
class StepContext:
    """Where an RL step stands: its number, how many there are, the recipe's seed, the KL coefficient."""

    step: int
    num_steps: int
    seed: int
    kl_coef: float


class Phases:
    """Seconds spent in each phase of a step.

    Example:
        >>> phases = Phases()
        >>> with phases("rollout"): ...
        >>> phases.metrics()   # {"time/rollout": 1.2, "time/step": 1.3}
    """

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the time of the block to phase ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start

    def metrics(self) -> dict[str, float]:
        """``time/<phase>`` of every phase and ``time/step`` since the start, in seconds."""
        seconds = {f"time/{name}": value for name, value in self._seconds.items()}
        return {**seconds, "time/step": time.perf_counter() - self._start}


def total_steps(num_items: int, batch_size: int, epochs: int, steps: int | None) -> int:
    """Steps of a stage: given, or enough for ``epochs`` passes over the items, at least one."""
    if steps is not None:
        return steps
    return max(1, -(-num_items * epochs // batch_size))


def mean_metrics(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each metric over the updates of a step; names that end in ``_max`` keep the largest."""
    names = {name for row in rows for name in row}
    merged = {}
    for name in sorted(names):
        values = [row[name] for row in rows if name in row]
        merged[name] = max(values) if name.endswith("_max") else sum(values) / len(values)
    return merged
