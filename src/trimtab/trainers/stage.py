"""What every stage shares: records, view, health, checkpoints, and the learning rate of a step."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from trimtab.config.checkpoint import CheckpointConfig
from trimtab.distributed.room import Shrink
from trimtab.errors import DivergedError, RewardError, StoppedError, TrimtabError
from trimtab.models.finite import find_in_tree
from trimtab.monitor import Alarm, Decision, Guard, Measure
from trimtab.monitor.sites import Site, StateFault
from trimtab.monitor.watchdog import NoWatchdog, Stall, Watchdog
from trimtab.rewards.base import NOT_FINITE, why_silent
from trimtab.runs import RunWriter, TerminalView
from trimtab.runs.faults import reach
from trimtab.runs.stopping import StopRequest
from trimtab.trainers.saving import restore_stage, save_stage
from trimtab.types import RewardResult


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
    """One stage of a run: where it writes, what it shows, what watches it.

    Loops count ``step`` from 0, as an index; whatever a reader sees (events, files, terminal, reports) counts
    from 1, so that step N is the N-th one and a checkpoint of step N was taken right after it. The methods
    below translate.
    """

    name: str
    run: RunWriter
    view: TerminalView
    guard: Guard
    checkpoint_every: int = 0
    is_resumed: bool = False
    is_restored: bool = False  # it goes on from a checkpoint, maybe that of step 0
    watchdog: Watchdog | NoWatchdog = field(default_factory=NoWatchdog)
    last_step: int = -1  # index of the last one that was logged
    has_bad_rewards: bool = False  # in the last step: NaN or infinity, which abstained
    silence: str = ""  # why completions of the step in hand got no reward, most of them
    silent_steps: int = 0  # in a row without any reward
    has_scored: bool = False  # whether any completion ever got one
    fault: TrimtabError | None = None  # what ends the run after the step in hand
    keeps_last: bool = False  # also take a checkpoint after the last step
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    stop: StopRequest = field(default_factory=StopRequest)
    # Name → finished steps and value, as last recorded: what the best checkpoint is chosen by.
    latest: dict[str, tuple[int, float]] = field(default_factory=dict)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record and show the metrics of a finished step, and raise what the detectors see."""
        reach("before_event")
        self.run.metrics(self.name, step + 1, metrics)
        reach("after_event")
        self.last_step = step
        self.latest |= {name: (step + 1, value) for name, value in metrics.items()}
        self.view.update(step, metrics)
        self._raise_alarms(step, self.guard.after_log(metrics))

    def log_evaluation(self, step: int, measures: Mapping[str, Measure]) -> None:
        """Record and show an evaluation on the hidden prompts after ``step``, and raise what its gaps say.

        Index -1 is the evaluation before the first step: an event of step 0, and no metric of it.
        """
        figures, alarms = self.guard.after_evaluation(measures)
        self.run.event(self.name, "evaluation", step + 1, {**figures, "num_steps": step + 1})
        self.latest |= {name: (step + 1, value) for name, value in figures.items()}
        if step >= 0:
            self.run.metrics(self.name, step + 1, figures)
        shown = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
        self.view.note(f"step {step + 1}: {shown}")
        if self.guard.healer is not None and step >= 0:
            self.guard.healer.snapshots.evaluated(step)
        self._raise_alarms(step, alarms)

    def _raise_alarms(self, step: int, alarms: Sequence[Alarm]) -> None:
        for alarm in alarms:
            if alarm.kind == "reward_abstains" and not alarm.detail:
                alarm = replace(alarm, detail=self.silence)
            would = self.guard.would_do(alarm)
            data = alarm.as_dict() | ({"would": would} if would else {})
            self.run.event(self.name, "alarm", step + 1, data)
            self.view.note(alarm.message(self.guard.language))
        if self.guard.healer is not None:
            self.guard.healer.see(alarms)

    def tell_bad_rewards(self, step: int, errors: Sequence[str]) -> None:
        """Alarm, until it ends only once, when rewards are NaN or infinite: they abstain and are not seen.

        ``errors`` are those of the step's completions, empty where there was none.
        """
        count = sum(NOT_FINITE in error for error in errors)
        if count and not self.has_bad_rewards:
            evidence = {"completions": float(count), "of": float(len(errors))}
            self._raise_alarms(step, [Alarm("non_finite", "reward", math.nan, math.inf, evidence)])
        self.has_bad_rewards = bool(count)

    def see_rewards(self, results: Sequence[RewardResult]) -> None:
        """Look at the rewards of the step in hand, before it is logged: why are some missing, and are all?

        A run in whose first step nothing is scored, or that gets no reward for ``max_silent_steps`` in a row,
        ends after that step with a RewardError (:meth:`checkpoint_if_due`): there is nothing to learn from.
        """
        self.silence = why_silent(results)
        if any(result.value is not None for result in results):
            self.silent_steps, self.has_scored = 0, True
            return
        self.silent_steps += 1
        allowed = self.guard.config.max_silent_steps if self.has_scored else 1
        if results and self.silent_steps >= allowed:
            steps = "the first step" if allowed == 1 else f"{self.silent_steps} steps in a row"
            self.fault = RewardError(
                f"Stage {self.name} was stopped: the reward abstained, no completion got a reward in "
                f"{steps}: {self.silence}; mend the reward (rl.rewards) or the data that it reads (rl.data), "
                f"then go on with --resume."
            )

    def tell_memory(self, step: int, news: Sequence[Shrink]) -> None:
        """Record where memory ran out and what was done about it."""
        for item in news:
            self.run.event(self.name, "out_of_memory", step + 1, asdict(item))
            self.view.note(item.sentence())

    def tell_warning(self, text: str) -> None:
        """Record and show what was noticed before the first step."""
        self.run.event(self.name, "warning", 0, {"text": text})
        self.view.note(f"warning: {text}")

    def tell_stall(self, stall: Stall) -> None:
        """Record what is awaited for too long; called by the watchdog's thread."""
        self.run.event(self.name, "stall", self.last_step + 2, {**asdict(stall), "text": stall.sentence()})
        self.view.note(stall.sentence())

    def stop_if_diverged(self, step: int, decision: Decision, fault: StateFault | None = None) -> None:
        """Record a verdict other than proceed, with its site; a stop ends the run with a sentence."""
        if decision.verdict == "proceed":
            return
        data = {"verdict": decision.verdict, "reason": decision.reason}
        if decision.would is not None:
            data["would"] = decision.would
        if fault is not None:
            data |= {"site": fault.site, "detail": fault.detail}
        self.run.event(self.name, "verdict", step + 1, data)
        self.view.note(f"guard: {decision.verdict}: {decision.reason}")
        if decision.verdict == "stop":
            raise DivergedError(
                f"Stage {self.name} was stopped at step {step + 1}: {decision.reason}; lower the learning "
                f"rate or train in bfloat16 or float32, then go on with --resume."
            )

    @property
    def checkpoint_directory(self) -> Path:
        """Where this stage keeps its checkpoints."""
        return Path(self.run.directory.checkpoints) / self.name

    def checkpoint_if_due(
        self, step: int, total: int, state: Mapping[str, Any], every: int | None = None
    ) -> None:
        """Save a checkpoint after ``step`` finished steps, when the recipe or a signal asks for one there.

        ``every`` takes the place of the recipe's interval. After the last step there is one where
        ``keeps_last``: a resumed run may be asked for more steps.

        Raises:
            StoppedError: a signal asked the run to stop; what is needed to go on is saved.
            RewardError: no reward answers any more; what was learnt until then is saved.
        """
        every = self.checkpoint_every if every is None else every
        is_due = self.keeps_last if step == total else every and step % every == 0
        is_stopping = self.stop.is_asked and step < total
        is_lost = self.fault is not None and not self.has_scored  # nothing was learnt that could be saved
        is_saved = False
        if (is_due or is_stopping or self.fault is not None) and not is_lost:
            self.refuse_bad_state(step, state)
            with self.watchdog.waiting("checkpoint"):
                is_saved = save_stage(self, step, state)
        reach("step_finished")
        if self.fault is not None:
            raise self.fault
        if is_stopping:
            where = f"after step {step} of {total} of {self.name}"
            lost = "" if is_saved else "; its checkpoint could not be written, an older one is used"
            raise StoppedError(f"stopped by {self.stop.name} {where}{lost}", self.stop.exit_code)

    def refuse_bad_state(self, step: int, state: Mapping[str, Any]) -> None:
        """Write no checkpoint from which nobody can go on.

        Raises:
            DivergedError: a tensor of ``state`` holds NaN or infinity, and the guard says stop.
        """
        if (path := find_in_tree(state)) is None:
            return
        site: Site = "optimizer state" if "/optimizer/" in path else "weight"
        fault = StateFault(site, f"{path} is not finite, so no checkpoint is written", is_lasting=True)
        self.stop_if_diverged(step - 1, self.guard.on_broken_state(fault.site, fault.detail), fault)

    def restore(self) -> dict[str, Any] | None:
        """The newest checkpoint of this stage that can be read when the run is resumed, else None.

        From here on a signal waits for the end of a step.

        Raises:
            CheckpointError: there are checkpoints, and none can be read.
        """
        state = restore_stage(self) if self.is_resumed else None
        self.is_restored = state is not None
        self.stop.is_deferred = True
        return state


@dataclass(frozen=True, slots=True)
class StepContext:
    """Where an RL step stands: its number, how many there are, the recipe's seed, the KL coefficient."""

    step: int
    num_steps: int
    seed: int
    kl_coef: float


class Phases:
    """Seconds spent in each phase of a step; ``watchdog`` is told what the run waits for.

    Example:
        >>> phases = Phases()
        >>> with phases("rollout"): ...
        >>> phases.metrics()   # {"time/rollout": 1.2, "time/step": 1.3}
    """

    def __init__(self, watchdog: Watchdog | NoWatchdog | None = None) -> None:
        self._watchdog = watchdog or NoWatchdog()
        self._start = time.perf_counter()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the time of the block to phase ``name``."""
        start = time.perf_counter()
        try:
            with self._watchdog.waiting(name):
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
