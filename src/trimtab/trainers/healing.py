"""What the guard decides is carried out here: settings in force, rollback, and a record of both (R14)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.config import RLConfig
from trimtab.distributed.build import System
from trimtab.errors import CheckpointError
from trimtab.models.checkpoint import load_checkpoint
from trimtab.monitor import Action, Decision, Knob
from trimtab.trainers.stage import HasState, Stage

KEPT = ("stream",)  # what a rollback leaves alone: the same prompts again would fail the same way


def settings_in_force(stage: Stage, system: System, rl: RLConfig) -> RLConfig:
    """The recipe with what the guard has moved. Policy and reference score at its temperature (trap 9)."""
    healer = stage.guard.healer
    if healer is None:
        return rl
    now = healer.controls.settings(rl)
    system.set_temperature(now.temperature)
    return now


def kl_coef_in_force(stage: Stage, rl: RLConfig, coef: float) -> float:
    """The KL coefficient, where the controller says ``coef``."""
    healer = stage.guard.healer
    return coef if healer is None else healer.controls.kl_coef(coef, rl.kl.max_coef)


def checkpoint_interval(stage: Stage) -> int:
    """Steps between checkpoints; healing needs some also where the recipe asks for none."""
    healer = stage.guard.healer
    return stage.checkpoint_every or (healer.config.checkpoint_every if healer else 0)


def heal(
    stage: Stage, system: System, rl: RLConfig, step: int, trained: Mapping[str, HasState]
) -> list[Action]:
    """Let the guard answer the alarms of a finished step; return what was done.

    Raises:
        DivergedError: the recipe's policy says stop, and nothing before it was left.
    """
    healer = stage.guard.healer
    if healer is None:
        return []
    coef = float(trained["kl_controller"].state()["kl_coef"])
    after = healer.controls.values(rl, coef)
    done = healer.decide(step)
    before, after = after, healer.controls.values(rl, coef)
    for action in done:
        record(stage, step, action, (before, after))
        if action.checkpoint is not None:
            roll_back(stage, system, action.checkpoint, step, trained)
        if action.action == "stop":
            stage.stop_if_diverged(step, Decision("stop", action.reason))
    return done


def roll_back(
    stage: Stage, system: System, checkpoint: int, step: int, trained: Mapping[str, HasState]
) -> None:
    """Take policy, critic, optimizers, controllers and detectors back to a checkpoint.

    Step counter, prompts and random streams go on, so that what follows is not what failed. A checkpoint
    that cannot be read is recorded, and training goes on from where it is.
    """
    try:
        state = load_checkpoint(stage.checkpoint_directory / f"step-{checkpoint:06d}")
    except CheckpointError as error:
        stage.run.event(stage.name, "note", step + 1, {"text": f"rollback failed: {error}"})
        stage.view.note(f"guard: rollback failed: {error}")
        return
    for name, part in trained.items():
        if name not in KEPT:
            part.load_state(state[name])
    if "reference" in state:
        system.reference.load_state(state["reference"])
    stage.guard.rewind(state["guard"])
    system.publish(policy_version=step + 1)


def record(stage: Stage, step: int, action: Action, values: Sequence[Mapping[Knob, float]]) -> None:
    """Write an action as an event, with the setting before and after, and show it."""
    data: dict[str, Any] = {
        "action": action.action,
        "alarm": action.alarm,
        "reason": action.reason,
        "is_undo": action.is_undo,
    }
    if action.knob is not None:
        data |= {"setting": action.knob, "before": values[0][action.knob], "after": values[1][action.knob]}
        change = f"{action.knob} {data['before']:.4g} → {data['after']:.4g}"
    elif action.checkpoint is not None:
        data |= {"setting": "step", "before": step + 1, "after": action.checkpoint}
        change = f"the policy of step {action.checkpoint}"
    else:
        change = "the run"
    stage.run.event(stage.name, "action", step + 1, data)
    stage.view.note(f"guard: {'undo ' if action.is_undo else ''}{action.action}: {change} ({action.reason})")
