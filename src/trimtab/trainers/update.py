"""One optimizer step behind the guard: gradients that are not finite never reach the weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.distributed.interfaces import Learner, Objective
from trimtab.runs.faults import poison, reach
from trimtab.trainers.stage import Stage
from trimtab.types import TrainBatch, UpdateResult


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
    results = []
    for part in parts:
        metrics = part.learner.forward_backward(minibatch, part.objective)
        reach("after_backward")
        norm = poison("grad_norm", part.learner.clip_gradients(part.settings.max_grad_norm))
        loss = metrics.get("loss/total", metrics.get("loss/value", 0.0))
        results.append(UpdateResult(loss=loss, grad_norm=norm, metrics=metrics))
    figures = {name: value for result in results for name, value in result.metrics.items()}
    # A sum is finite only where every norm is.
    figures["train/grad_norm"] = sum(result.grad_norm for result in results)
    decision = stage.guard.before_update(figures)
    for part in parts:
        if decision.verdict == "proceed":
            part.learner.optimizer_step(part.settings.learning_rate)
            reach("after_optimizer_step")
        else:
            part.learner.discard_gradients()
    stage.stop_if_diverged(parts[0].settings.step, decision.verdict, decision.reason)
    return results
