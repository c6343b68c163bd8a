"""What ``--resume`` finds changed since the run was recorded: each change applies, is ignored, or is refused.

A stage that goes on from a checkpoint keeps its weights, optimizer and place in the data, so a change that
would make nonsense of those is refused: other rows, another model, another seed. Finished stages are left
alone, but for a larger number of steps, up to which they go on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trimtab.config import STAGES, Recipe, Stage
from trimtab.errors import CheckpointError, TrimtabError
from trimtab.models.checkpoint import list_checkpoints
from trimtab.pipeline.inputs import Input, Kind, rl_models, stage_inputs
from trimtab.pipeline.training import num_steps
from trimtab.runs import RunDirectory, read_events
from trimtab.runs.events import to_plain
from trimtab.runs.files import read_json
from trimtab.runs.writer import changed_keys

Effect = Literal["applies", "ignored", "refused"]

# What a checkpoint cannot go on with, and why.
_REFUSED: Mapping[str, str] = {
    "seed": "the order of the data and every draw follow it",
    "model.lora": "the checkpoint holds other trained weights",
    "model.dtype": "the checkpoint's optimizer is of the other precision",
    "rl.ppo.critic": "the checkpoint holds the other critic",
    "sft.max_length": "it decides which rows are trained on",
    "reward_model.held_out": "it decides which rows are trained on",
    "process_reward.held_out": "it decides which rows are trained on",
    "process_reward.rows": "it decides which rows are trained on",
}
_UNKNOWN = "what it was is not on record, so nobody can say whether it is the same"
# What a checkpoint holds itself.
_IN_CHECKPOINT: Mapping[str, str] = {
    "rl.ppo.critic_init": "the critic is in the checkpoint",
}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a recorded run has brought a stage.

    ``finished`` are the steps of a finished stage, else None; ``checkpoint`` those of its newest checkpoint,
    None where there is none; ``wanted`` what the recipe asks for now.
    """

    finished: int | None
    checkpoint: int | None
    wanted: int

    @property
    def is_longer(self) -> bool:
        """Whether the recipe asks for more steps than the finished stage has done."""
        return self.finished is not None and self.wanted > self.finished

    @property
    def goes_on(self) -> bool:
        """Whether the stage will be continued from a checkpoint."""
        return self.checkpoint is not None and (self.finished is None or self.is_longer)

    @property
    def is_done(self) -> bool:
        """Whether the stage will be skipped."""
        return self.finished is not None and not self.is_longer


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is no longer as it was recorded: its key, before and after, and what comes of it."""

    key: str
    before: str
    after: str
    effect: Effect
    why: str

    def __str__(self) -> str:
        words = {"applies": "applies", "ignored": "is ignored", "refused": "is refused"}[self.effect]
        return f"{self.key} ({self.before} → {self.after}) {words}: {self.why}"


def progress_of(recipe: Recipe) -> dict[Stage, Progress]:
    """How far the run recorded in ``paths.run`` has come, for every stage of the recipe; a stage that has
    finished and whose model is gone has not."""
    layout = RunDirectory(recipe.paths.run)
    ends: dict[str, Any] = {}
    for event in read_events(layout.root, "stage_finished") if layout.events.is_file() else ():
        ends.pop("eval", None)  # training again makes an evaluation stale
        ends[event.stage] = event
    found: dict[Stage, Progress] = {}
    for stage in recipe.stages:
        end, saved = ends.get(stage), list_checkpoints(layout.checkpoints / stage)
        if end is not None and not Path(end.data.get("path", "")).exists():
            end = None
        newest = int(saved[-1].name.rpartition("-")[2]) if saved else None
        try:
            wanted = num_steps(recipe, stage)
        except TrimtabError:  # the data of a finished stage may be gone
            wanted = 0 if end is None else end.step
        found[stage] = Progress(None if end is None else end.step, newest, wanted)
    return found


def stages_to_run(stages: Sequence[Stage], progress: Mapping[Stage, Progress]) -> list[Stage]:
    """Those of ``stages`` that are not done; the evaluation too where anything is trained before it."""
    left = [stage for stage in stages if stage not in progress or not progress[stage].is_done]
    return [stage for stage in stages if stage in left or (stage == "eval" and left)]


def changes_since(recipe: Recipe, progress: Mapping[Stage, Progress]) -> list[Change]:
    """Everything that differs from the recorded run: keys of the recipe, rows, models and reward files.

    Empty where there is no record.
    """
    layout = RunDirectory(recipe.paths.run)
    before, after = read_json(layout.recipe), to_plain(recipe.resolved())
    if not before:
        return []
    recorded = read_json(layout.manifest).get("inputs", {})
    told: list[Change] = []
    same: set[str] = set()
    for stage, how in progress.items():
        if stage in recorded:
            for key, pair in _compared(recorded[stage], stage_inputs(recipe, stage)):
                if pair.is_same:
                    same.add(key)
                else:
                    told.append(_judge_input(stage, how, key, pair))
    moved = {change.key for change in told}
    for key in changed_keys(before, after):
        if key in moved:
            continue
        old, new = _shown(_at(before, key)), _shown(_at(after, key))
        if key in same:
            told.append(Change(key, old, new, "applies", "it holds the same as before"))
        else:
            told.append(Change(key, old, new, *_effect(recipe, key, before, progress)))
    return told


def refuse_changes(recipe: Recipe, progress: Mapping[Stage, Progress], changes: list[Change]) -> None:
    """Raise where the run cannot go on with what has changed.

    Raises:
        CheckpointError: with every refused change; a finished stage has no checkpoint for more steps; or more
            steps would replace the SFT model that an RL stage, which goes on, is held to.
    """
    refused = [change for change in changes if change.effect == "refused"]
    if refused:
        shown = "; ".join(map(str, refused))
        raise CheckpointError(
            f"The run in {recipe.paths.run} cannot go on: {shown}. Resume with what it was recorded with, or "
            f"start a new run with another --output."
        )
    for stage, how in progress.items():
        if how.is_longer and how.checkpoint is None:
            raise CheckpointError(
                f"Stage {stage} has finished its {how.finished} steps and kept no checkpoint to go on from "
                f"to {how.wanted}: train it anew with --stage {stage} and without --resume, and leave "
                f"checkpoint.keep_last at true."
            )
    sft, rl = progress.get("sft"), progress.get("rl")
    if sft and sft.is_longer and rl and rl.goes_on and Path(recipe.paths.sft) in rl_models(recipe):
        raise CheckpointError(
            f"The run in {recipe.paths.run} cannot go on: sft.steps ({sft.finished} → {sft.wanted}) is "
            f"refused: stage rl goes on from step {rl.checkpoint}, and its reference is the SFT model of "
            f"{sft.finished} steps. Resume with the SFT steps that it was recorded with, or start a new run "
            f"with another --output."
        )


def told_progress(progress: Mapping[Stage, Progress]) -> Iterator[str]:
    """One sentence for every finished stage that goes on or has done more than is asked for now."""
    trained: list[str] = []
    for stage, how in progress.items():
        if stage == "eval":
            continue
        if how.finished is None:
            if trained and how.goes_on:
                yield (
                    f"stage {stage} goes on from step {how.checkpoint} beside the new {trained[0]} model: "
                    "where it reads it, figures before and after do not compare"
                )
        elif how.is_longer:
            trained.append(stage)
            repeated = (
                ""
                if how.checkpoint == how.finished
                else f", its newest checkpoint is of step {how.checkpoint}"
            )
            yield f"stage {stage} has done {how.finished} steps and goes on to {how.wanted}{repeated}"
        elif how.wanted < how.finished:
            yield (
                f"stage {stage} has done {how.finished} steps, more than the {how.wanted} asked for: it "
                "stays as it is"
            )
        elif trained:
            yield (
                f"stage {stage} started from the {trained[0]} model as it was and stays so; "
                f"--stage {stage} trains it anew"
            )


@dataclass(frozen=True, slots=True)
class _Pair:
    """An input as it was recorded and as it is now."""

    kind: Kind
    before: Mapping[str, str]
    after: Input

    @property
    def is_same(self) -> bool:
        return self.before.get("sha256") == self.after.digest

    @property
    def names(self) -> tuple[str, str]:
        """How the two are called; the same file or directory with other content is called so."""
        old, new = self.before.get("name", ""), self.after.name
        nouns = {"data": "rows", "held out": "rows", "model": "weights", "reference": "weights"}
        noun = nouns.get(self.kind, "content")
        return (old, new) if old != new else (f"the {noun} of {new}", f"other {noun}")


def _compared(
    before: Mapping[str, Mapping[str, str]], now: Mapping[str, Input]
) -> Iterator[tuple[str, _Pair]]:
    """What to compare, by key. A stage has one model to start from, under whatever key; a reference that is
    not given is that model."""
    old_model = next((entry for entry in before.values() if entry.get("kind") == "model"), None)
    new_model = next((found for found in now.values() if found.kind == "model"), None)
    if old_model is not None and new_model is not None:
        yield new_model.key, _Pair("model", old_model, new_model)
        old, new = before.get("rl.reference"), now.get("rl.reference")
        if old is not None or new is not None:
            yield "rl.reference", _Pair("reference", old or old_model, new or new_model)
    for key, found in now.items():
        if key in before and found.kind not in ("model", "reference"):
            yield key, _Pair(found.kind, before[key], found)


def _judge_input(stage: Stage, how: Progress, key: str, pair: _Pair) -> Change:
    """What comes of other rows, weights or files."""
    names = pair.names
    if how.is_done:
        return Change(key, *names, "ignored", f"stage {stage} is finished; --stage {stage} runs it anew")
    if not how.goes_on:
        return Change(key, *names, "applies", f"stage {stage} starts from its beginning")
    if pair.kind == "data":
        return Change(
            key, *names, "refused", f"stage {stage} is in the middle of the rows that it began with"
        )
    if pair.kind in ("model", "reference"):
        of_rl = "the policy came from it, and the reference is it"
        return Change(key, *names, "refused", of_rl if stage == "rl" else "the weights came from it")
    return Change(key, *names, "applies", _from_on(how, "figures before and after do not compare"))


def _effect(
    recipe: Recipe, key: str, before: Mapping[str, Any], progress: Mapping[Stage, Progress]
) -> tuple[Effect, str]:
    """What comes of a changed key of the recipe, and why."""
    table = key.partition(".")[0]
    if table in STAGES:
        how = progress.get(table)
        if how is None:
            return "ignored", f"the recipe has no stage {table} any more"
        if how.is_longer and key.rpartition(".")[2] in ("steps", "epochs"):
            return "applies", f"stage {table} goes on from {how.finished} steps to {how.wanted}"
        if how.is_done:
            return "ignored", f"stage {table} is finished; --stage {table} runs it anew"
        if not how.goes_on:
            return "applies", f"stage {table} starts from its beginning"
        return _effect_in_the_middle(recipe, key, before, how)
    going = [how for stage, how in progress.items() if how.goes_on]
    if going and key == "model.path":
        return "refused", _UNKNOWN
    if going and (why := _found(_REFUSED, key)):
        return "refused", why
    if table == "paths":
        return "applies", "what is written from now on goes there; finished stages stay where they are"
    if all(how.is_done for how in progress.values()):
        return "ignored", "every stage is finished"
    return "applies", _from_on(going[0]) if going else "stages that are not finished have it"


def _effect_in_the_middle(
    recipe: Recipe, key: str, before: Mapping[str, Any], how: Progress
) -> tuple[Effect, str]:
    """The same for a stage that goes on from a checkpoint."""
    if why := _found(_REFUSED, key):
        return "refused", why
    if key.rpartition(".")[2] in ("data", "model", "reference"):
        return "refused", _UNKNOWN
    if why := _found(_IN_CHECKPOINT, key):
        return "ignored", why
    if key == "rl.algorithm" and "ppo" in (_at(before, key), recipe.rl and recipe.rl.algorithm):
        return "refused", "PPO has a critic, and the other has none"
    if key == "rl.kl.coef" and recipe.rl is not None and recipe.rl.kl.controller != "fixed":
        return "ignored", "the controller's coefficient is in the checkpoint"
    return "applies", _from_on(how)


def _from_on(how: Progress, but: str = "") -> str:
    return f"from step {(how.checkpoint or 0) + 1} on" + (f", and {but}" if but else "")


def _found(table: Mapping[str, str], key: str) -> str | None:
    return next((why for name, why in table.items() if key == name or key.startswith(f"{name}.")), None)


def _at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree


def _shown(value: Any) -> str:
    if value is None:
        return "not given"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:119]}…"
