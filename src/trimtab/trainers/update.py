"""One optimizer step behind the guard: gradients that are not finite never reach the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from trimtab.distributed.interfaces import Learner, Objective
from trimtab.models.finite import FiniteCheck, find_non_finite
from trimtab.models.optim import MasterAdamW
from trimtab.monitor import Decision, Guard
from trimtab.monitor.sites import Site, StateFault, site_of
from trimtab.runs.faults import poison, reach
from trimtab.trainers.stage import Stage
from trimtab.types import TrainBatch, UpdateResult

# What a mini-batch brings along, and the site that it stands for; the earliest comes first.
_INPUTS: Mapping[str, Site] = {
    "rollout_logprobs": "log-probability",
    "old_logprobs": "log-probability",
    "ref_logprobs": "log-probability",
    "advantages": "reward",
    "returns": "reward",
}


@dataclass(frozen=True, slots=True)
class StepSettings:
    """What an optimizer step needs besides the gradients."""

    step: int
    learning_rate: float
    max_grad_norm: float


@dataclass(frozen=True, slots=True)
class Part:
    """A learner that takes part in an update, what it minimises, and how."""

    learner: Learner
    objective: Objective
    settings: StepSettings


@dataclass(frozen=True, slots=True)
class Choice:
    """What an update comes to: its gradients are applied, or thrown away."""

    apply: Callable[[], None]
    discard: Callable[[], None]


def guarded_update(
    learner: Learner, minibatch: TrainBatch, objective: Objective, stage: Stage, settings: StepSettings
) -> UpdateResult:
    """Accumulate the gradients of a mini-batch, ask the guard, then apply or discard them.

    Raises:
        DivergedError: the guard says stop.
    """
    return guarded_updates([Part(learner, objective, settings)], minibatch, stage)[0]


def guarded_updates(parts: Sequence[Part], minibatch: TrainBatch, stage: Stage) -> list[UpdateResult]:
    """One guarded update of several learners: all of them move, or none does.

    Asked one by one, a healthy critic would clear the guard's count of the policy's failures.

    Raises:
        DivergedError: the guard says stop.
    """
    step = parts[0].settings.step
    results = []
    for part in parts:
        metrics = part.learner.forward_backward(minibatch, part.objective)
        reach("after_backward")
        norm = poison("grad_norm", part.learner.clip_gradients(part.settings.max_grad_norm))
        loss = metrics.get("loss/total", metrics.get("loss/value", 0.0))
        results.append(UpdateResult(loss=loss, grad_norm=norm, metrics=metrics))
        stage.tell_memory(step, part.learner.take_news())
    figures = {name: value for result in results for name, value in result.metrics.items()}
    # A sum is finite only where every norm is.
    figures["train/grad_norm"] = sum(result.grad_norm for result in results)

    def apply() -> None:
        for part in parts:
            part.learner.optimizer_step(part.settings.learning_rate)
            reach("after_optimizer_step")

    def discard() -> None:
        for part in parts:
            part.learner.discard_gradients()

    checks = [part.learner.finite for part in parts]
    settle(stage, step, figures, checks, Choice(apply, discard), minibatch)
    return results


def guarded_optimizer_step(
    optimizer: MasterAdamW, finite: FiniteCheck, loss: float, stage: Stage, settings: StepSettings
) -> float:
    """One guarded step of an optimizer whose gradients are there; return their norm before clipping.

    For trainers whose model is no learner: reward models.

    Raises:
        DivergedError: the guard says stop.
    """
    reach("after_backward")
    norm = poison("grad_norm", optimizer.clip_grad_norm(settings.max_grad_norm))

    def apply() -> None:
        optimizer.step(settings.learning_rate)
        reach("after_optimizer_step")
        optimizer.zero_grad()

    figures = {"loss/total": loss, "train/grad_norm": norm}
    settle(stage, settings.step, figures, [finite], Choice(apply, optimizer.zero_grad))
    return norm


def settle(
    stage: Stage,
    step: int,
    figures: Mapping[str, float],
    checks: Sequence[FiniteCheck],
    choice: Choice,
    minibatch: TrainBatch | None = None,
) -> None:
    """Ask the guard about an update whose gradients are there, carry out what it says, look at the weights.

    Raises:
        DivergedError: the guard says stop.
    """
    fault = find_fault_before(checks, figures, minibatch)
    decision = decide(stage.guard, figures, fault)
    if not decision.is_applied:
        choice.discard()
        stage.stop_if_diverged(step, decision, fault)
        return
    choice.apply()
    stage.stop_if_diverged(step, decision, fault)
    if (fault := find_fault_after(checks)) is not None:
        stage.stop_if_diverged(step, decide(stage.guard, figures, fault), fault)


def decide(guard: Guard, figures: Mapping[str, float], fault: StateFault | None) -> Decision:
    """Ask the guard about an update: its figures, or what is broken for good."""
    if fault is not None and fault.is_lasting:
        return guard.on_broken_state(fault.site, fault.detail)
    return guard.before_update(figures)


def find_fault_before(
    checks: Sequence[FiniteCheck], figures: Mapping[str, float], minibatch: TrainBatch | None = None
) -> StateFault | None:
    """Where the first number that is not finite is, before an optimizer step.

    The moments are read each time: one bad moment makes bad weights, while loss and gradient look well.
    Weights and inputs are read only when a figure is bad, to say where that comes from.
    """
    for check in checks:
        if (name := check.find_bad_moment()) is not None:
            return StateFault("optimizer state", f"{name} is not finite", is_lasting=True)
    bad = tuple(name for name, value in figures.items() if not math.isfinite(value))
    if not bad:
        return None
    for check in checks:
        if (name := check.find_bad_weight()) is not None:
            return StateFault("weight", f"{name} is not finite", is_lasting=True)
    for name, site in _INPUTS.items() if minibatch is not None else ():
        if (given := getattr(minibatch, name)) is not None and find_non_finite({name: given}):
            return StateFault(site, f"{name} is not finite")
    found = site_of(bad)
    return None if found is None else StateFault(found, f"{bad[0]} is {figures[bad[0]]}")


def find_fault_after(checks: Sequence[FiniteCheck]) -> StateFault | None:
    """A weight that the optimizer step made NaN or infinite: found before it is sampled from or saved."""
    for check in checks:
        if (name := check.find_bad_trained_weight()) is not None:
            return StateFault("weight", f"{name} is not finite after the update", is_lasting=True)
    return None
