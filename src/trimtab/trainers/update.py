"""One optimizer step behind the guard: gradients that are not finite never reach the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trimtab.distributed.interfaces import Learner, Objective
from trimtab.trainers.stage import Stage
from trimtab.types import TrainBatch, UpdateResult


@dataclass(frozen=True, slots=True)
class StepSettings:
    """What an optimizer step needs besides the gradients."""

    step: int
    learning_rate: float
    max_grad_norm: float


def guarded_update(
    learner: Learner, minibatch: TrainBatch, objective: Objective, stage: Stage, settings: StepSettings
) -> UpdateResult:
    """Accumulate the gradients of a mini-batch, ask the guard, then apply or discard them.

    Raises:
        DivergedError: the guard says stop.
    """
    metrics: Mapping[str, float] = learner.forward_backward(minibatch, objective)
    norm = learner.clip_gradients(settings.max_grad_norm)
    decision = stage.guard.before_update({**metrics, "train/grad_norm": norm})
    if decision.verdict == "proceed":
        learner.optimizer_step(settings.learning_rate)
    else:
        learner.discard_gradients()
        stage.stop_if_diverged(settings.step, decision.verdict, decision.reason)
    loss = metrics.get("loss/total", metrics.get("loss/value", 0.0))
    return UpdateResult(loss=loss, grad_norm=norm, metrics=metrics)
