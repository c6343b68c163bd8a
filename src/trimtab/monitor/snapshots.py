"""Which checkpoints the guard may go back to: those that were followed by healthy steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trimtab.monitor.detectors.robust import mean

RECENT = 3  # steps whose rewards are averaged


@dataclass
class Snapshots:
    """Counts of finished steps after which a checkpoint was saved; the files are the stage's business.

    A checkpoint is a candidate until ``healthy_steps`` more steps went by without an alarm. An alarm that
    persists is raised again after ``window`` steps only, so that long must have passed since the last one;
    and where evaluations raise alarms, one of them must have followed.
    """

    healthy_steps: int
    window: int
    keep: int
    candidates: list[int] = field(default_factory=list)
    healthy: list[int] = field(default_factory=list)
    last_alarm: int | None = None  # step
    last_evaluation: int | None = None  # step
    last_target: int | None = None  # where the last rollback went
    held_before: list[int] = field(default_factory=list)
    recent: list[float] = field(default_factory=list)  # rewards of the last steps
    levels: dict[int, float] = field(default_factory=dict)  # what the policy of a checkpoint earned

    def taken(self, done: int) -> None:
        """A checkpoint is being saved after ``done`` steps; the one before the first step is healthy."""
        self.held_before = sorted({*self.candidates, *self.healthy})
        (self.candidates if done else self.healthy).append(done)
        if self.recent:
            self.levels[done] = mean(self.recent)

    def earned(self, reward: float) -> None:
        """The mean reward of a step. The first of all was earned by the policy before the first step."""
        self.recent = [*self.recent, reward][-RECENT:]
        self.levels.setdefault(0, reward)

    def is_worth_it(self) -> bool:
        """Whether the policy earns no more than the one that a rollback would bring back."""
        level = self.levels.get(self.healthy[-1]) if self.healthy else None
        return level is None or not self.recent or mean(self.recent) <= level

    def alarm(self, step: int) -> None:
        """An alarm at ``step``: what is not known to be healthy by now never will be."""
        self.last_alarm, self.candidates = step, []

    def evaluated(self, step: int) -> None:
        """There was an evaluation at ``step``."""
        self.last_evaluation = step

    def confirm(self, done: int) -> None:
        """Take over the candidates that have proved healthy after ``done`` steps."""
        if self.last_alarm is not None and done - 1 - self.last_alarm <= self.window:
            return
        proved = [
            one
            for one in self.candidates
            if done - one >= self.healthy_steps
            and (self.last_evaluation is None or self.last_evaluation >= one)
        ]
        if proved:
            self.candidates = [one for one in self.candidates if one not in proved]
            self.healthy = [*self.healthy, *proved][-self.keep :]

    def roll_back(self) -> int | None:
        """The checkpoint to go back to: the last healthy one, an older one where that has failed before."""
        if not self.healthy:
            return None
        if self.healthy[-1] == self.last_target and len(self.healthy) > 1:
            self.healthy.pop()
        self.candidates, self.recent, self.last_target = [], [], self.healthy[-1]
        return self.last_target

    def held(self) -> list[int]:
        """Checkpoints to keep: also those that the checkpoint before knew, for who resumes from that one."""
        return sorted({*self.candidates, *self.healthy, *self.held_before})

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {
            "candidates": list(self.candidates),
            "healthy": list(self.healthy),
            "held_before": list(self.held_before),
            "last_alarm": self.last_alarm,
            "last_evaluation": self.last_evaluation,
            "last_target": self.last_target,
            "recent": list(self.recent),
            "levels": {str(step): self.levels[step] for step in self.levels if step in self.held()},
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.candidates, self.healthy = list(state["candidates"]), list(state["healthy"])
        self.held_before, self.last_alarm = list(state["held_before"]), state["last_alarm"]
        self.last_evaluation, self.last_target = state["last_evaluation"], state["last_target"]
        self.recent = list(state.get("recent", ()))
        self.levels = {int(step): level for step, level in state.get("levels", {}).items()}
