"""How a stage saves its checkpoints and finds the one to go on from; what fails is said and recorded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.distributed.budget import choose_tokens_as, chosen_tokens
from trimtab.errors import CheckpointError
from trimtab.models.checkpoint import (
    list_checkpoints,
    load_checkpoint,
    prune,
    rng_state,
    save_checkpoint,
    set_rng_state,
    sweep,
)
from trimtab.models.retention import Best, is_better, measured, read_best, write_best
from trimtab.runs import read_events

if TYPE_CHECKING:
    from trimtab.trainers.stage import Stage

DAMAGED = "damaged-"


def save_stage(stage: Stage, step: int, state: Mapping[str, Any]) -> bool:
    """Save what a stage needs to go on after ``step`` finished steps; whether it could be written.

    A full disk costs this checkpoint and not the run: it is an event, and the checkpoint before it stays.
    """
    directory, settings = stage.checkpoint_directory, stage.checkpoint
    best = read_best(directory, settings.best)
    full = {
        "step": step,
        "rng": rng_state(),
        "guard": stage.guard.state(),
        "max_tokens": chosen_tokens(),
        "best": measured(stage.latest, settings.best, step),
        **state,
    }
    kept = held_by_guard(stage) | ({best.checkpoint} if best else set())
    try:
        stage.run.sync()
        path = save_checkpoint(directory / f"step-{step:06d}", full, settings.keep, kept)
        _mark_best(stage, path, full["best"])
    except (CheckpointError, OSError) as error:
        _warn(stage, step, str(error))
        return False
    stage.run.event(stage.name, "checkpoint", step, {"path": str(path)})
    return True


def restore_stage(stage: Stage) -> dict[str, Any] | None:
    """The state to go on from: of the newest checkpoint that is whole, or None where there are none.

    Damaged ones are set aside under another name, said and recorded; later steps leave the record.

    Raises:
        CheckpointError: there are checkpoints, and none of them can be read.
    """
    directory = stage.checkpoint_directory
    sweep(directory)
    found, damaged = list_checkpoints(directory), []
    if not found:
        return None
    state = None
    while state is None:
        try:
            state = load_checkpoint(found[-1])
        except CheckpointError as error:
            damaged.append((found.pop(), error))
            if not found:
                raise CheckpointError(
                    f"{error} There is none that can be read; remove {directory} to start {stage.name} anew."
                ) from None
    path, step = found[-1], int(state["step"])
    set_rng_state(state["rng"])
    choose_tokens_as(state["max_tokens"])
    stage.guard.load_state(state["guard"])
    stage.run.rewind(stage.name, step, goes_on=True)
    for bad, problem in damaged:
        _set_aside(bad)
        _warn(stage, step, f"{problem} Going on from {path.name}.")
    recorded = read_events(stage.run.directory.root, "checkpoint", stage.name)
    if step not in [event.step for event in recorded]:
        stage.run.event(stage.name, "checkpoint", step, {"path": str(path)})  # killed before it was recorded
    stage.run.event(stage.name, "resumed", step, {"path": str(path)})
    _mark_best(stage, path, state["best"])
    stage.view.note(f"resumed {stage.name} after step {step} from {path}")
    return state


def _mark_best(stage: Stage, path: Path, value: float | None) -> None:
    """Name ``path`` the best checkpoint if it is; the one that was may go then."""
    settings, best = stage.checkpoint, read_best(path.parent, stage.checkpoint.best)
    if settings.best is None or value is None or not is_better(value, best, settings.best_mode):
        return
    write_best(path.parent, Best(path.name, settings.best, value))
    prune(path.parent, settings.keep, {path.name} | held_by_guard(stage))


def held_by_guard(stage: Stage) -> set[str]:
    """The checkpoints that a guard that heals may go back to."""
    healer = stage.guard.healer
    return {f"step-{step:06d}" for step in healer.snapshots.held()} if healer is not None else set()


def _set_aside(path: Path) -> None:
    """Give a damaged checkpoint a name that is not taken for one; it is kept to be looked at."""
    target, number = path.with_name(f"{DAMAGED}{path.name}"), 1
    while target.exists():
        number += 1
        target = path.with_name(f"{DAMAGED}{path.name}-{number}")
    path.rename(target)


def _warn(stage: Stage, step: int, text: str) -> None:
    stage.run.event(stage.name, "warning", step, {"text": text})
    stage.view.note(f"warning: {text}")
