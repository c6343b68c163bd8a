"""Run the stages of a recipe: each is recorded, timed, and skipped when a resumed run has finished it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch

from trimtab.config import STAGES, Recipe, Stage
from trimtab.distributed.budget import choose_tokens_as
from trimtab.errors import ConfigError, DivergedError, StoppedError, TrimtabError
from trimtab.evals.report import write_report
from trimtab.models.checkpoint import list_checkpoints, remove_checkpoints, seed_everything
from trimtab.models.choice import following_choices
from trimtab.models.save import sweep_models
from trimtab.monitor import Guard
from trimtab.monitor.watchdog import build_watchdog
from trimtab.pipeline.agreement import refuse_disagreement
from trimtab.pipeline.evaluation import run_eval
from trimtab.pipeline.inputs import as_manifest, stage_inputs
from trimtab.pipeline.preflight import refuse_problems
from trimtab.pipeline.resuming import (
    Progress,
    changes_since,
    progress_of,
    refuse_changes,
    stages_to_run,
    told_progress,
)
from trimtab.pipeline.training import num_steps, run_process_reward, run_reward_model, run_rl, run_sft
from trimtab.rewards.registry import describe_sandbox
from trimtab.runs import RunWriter, Sink, SinkSettings, TerminalView, build_sinks, read_events
from trimtab.runs.files import write_json
from trimtab.runs.plain_text import one_line
from trimtab.runs.stopping import StopRequest
from trimtab.trainers import stage as stages

RUNNERS: Mapping[Stage, Callable[[Recipe, stages.Stage], dict[str, Any]]] = {
    "sft": run_sft,
    "reward_model": run_reward_model,
    "process_reward": run_process_reward,
    "rl": run_rl,
    "eval": run_eval,
}


def run_pipeline(
    recipe: Recipe, stage: Stage | None = None, resume: bool = False, stop: StopRequest | None = None
) -> dict[str, Any]:
    """Run every stage of ``recipe`` in order, or only ``stage``; return and write the summary.

    With ``resume``, finished stages are skipped and the one that was interrupted goes on from its newest
    checkpoint. With ``stop``, a signal ends the run where it can go on from.

    Raises:
        TrimtabError: something that the user can mend; its sentence says what.
        StoppedError: ``stop`` was asked for.
    """
    if stop is None:
        return _run_pipeline(recipe, stage, resume, StopRequest())
    try:
        return _run_pipeline(recipe, stage, resume, stop)
    except KeyboardInterrupt:
        raise StoppedError(
            f"stopped by {stop.name} at once; what came after the last checkpoint is repeated on --resume",
            stop.exit_code,
        ) from None


def _run_pipeline(recipe: Recipe, stage: Stage | None, resume: bool, stop: StopRequest) -> dict[str, Any]:
    names = _stages_of(recipe, stage)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    progress = progress_of(recipe) if resume else {}
    names_left = stages_to_run(names, progress)
    changes = changes_since(recipe, progress) if resume else []
    refuse_changes(recipe, progress, changes)
    notes = refuse_problems(recipe, names_left)
    keeps_records = resume or stage is not None
    facts = describe_sandbox(recipe.rl.rewards) if recipe.rl is not None else {}
    warned = refuse_disagreement(recipe, names_left)
    with (
        RunWriter(
            recipe.paths.run, recipe.resolved(), sinks=_sinks(recipe), resume=keeps_records, facts=facts
        ) as run,
        following_choices(run.choices(), run.note_choices),
    ):
        history = [*_history(recipe, run, resume, progress), *_replaced(run, stage, resume)]
        for text in [*notes, *history]:
            _say(run, text)
        for change in changes:
            _say(run, f"resume: {change}", asdict(change))
        paths = recipe.paths
        for path in (paths.sft, paths.reward_model, paths.process_reward, paths.policy):
            sweep_models(path)
        results = finished_stages(recipe.paths.run) if keeps_records else {}
        for name in names:
            if name not in names_left:
                continue
            checkpoints = run.directory.checkpoints / name
            if not resume:  # a later --resume must not find those of the run before
                remove_checkpoints(checkpoints)
            if not list_checkpoints(checkpoints):
                run.rewind(name, 0)
            results.pop("eval", None)
            run.note_inputs(name, as_manifest(stage_inputs(recipe, name)))
            stage_of_run = _new_stage(recipe, name, run, resume, stop)
            while warned:
                stage_of_run.tell_warning(warned.pop(0))
            try:
                results[name] = _run_stage(recipe, stage_of_run)
            except TrimtabError as error:
                _tell_stopped(recipe, run, name, error, results)
                raise
            if stop.is_asked and name != names[-1]:
                raise StoppedError(f"stopped by {stop.name} after the stage {name}", stop.exit_code)
        summary = summarise(results)
        write_json(Path(recipe.paths.summary), summary)
        write_report(run.directory, summary)
    return summary


def _history(
    recipe: Recipe, run: RunWriter, resume: bool, progress: Mapping[Stage, Progress]
) -> Iterator[str]:
    """What becomes of the run that was here before."""
    place = recipe.paths.run
    if run.has_moved:
        yield (
            f"WARNING: there was a run in {place}: its records and checkpoints are now in "
            f"{run.directory.previous}, in place of an older one that may have been there, and its models "
            f"will be replaced. Go on with a run by --resume; keep both with another --output."
        )
    elif resume and not any(how.finished is not None or how.checkpoint for how in progress.values()):
        yield f"resume: nothing to go on with in {place} (no finished stage, no checkpoint): it starts anew"
    yield from told_progress(progress)


def _replaced(run: RunWriter, stage: Stage | None, resume: bool) -> Iterator[str]:
    """That a stage which has finished here is run again, in place of what it left."""
    place = run.directory.root
    if stage is not None and not resume and read_events(place, "stage_finished", stage):
        yield (
            f"WARNING: stage {stage} had finished in {place}: its records, checkpoints and results are "
            "replaced. Go on with it by --resume; keep both with another --output."
        )


def _say(run: RunWriter, text: str, data: Mapping[str, Any] | None = None) -> None:
    """Tell the user, and the record."""
    run.event("run", "note", 0, {"text": text, **(data or {})})
    print(f"trimtab: {one_line(text, 1000)}", file=sys.stderr, flush=True)


def _tell_stopped(
    recipe: Recipe, run: RunWriter, name: Stage, error: TrimtabError, results: Mapping[Stage, Any]
) -> None:
    """A report that says why the run ended, in place of one of an earlier run; a signal needs none."""
    if isinstance(error, StoppedError):
        return
    reason = " ".join(str(error).split())
    if not isinstance(error, DivergedError):  # which has its verdict on record
        steps = [event.step for event in read_events(run.directory.root, "metrics", name)]
        run.event(name, "verdict", max(steps, default=0), {"verdict": "stop", "reason": reason})
    write_report(run.directory, {**summarise(results), "stopped": {"stage": name, "reason": reason}})


def _stages_of(recipe: Recipe, stage: Stage | None) -> tuple[Stage, ...]:
    if stage is not None and stage not in recipe.stages:
        raise ConfigError(
            f"The recipe has no [{stage}] table, so --stage {stage} has nothing to run; it has: "
            f"{', '.join(recipe.stages) or 'none'}."
        )
    if not recipe.stages:
        tables = ", ".join(f"[{name}]" for name in STAGES[:-1])
        raise ConfigError(f"The recipe has no stage: add a table {tables} or [{STAGES[-1]}].")
    return recipe.stages if stage is None else (stage,)


def _sinks(recipe: Recipe) -> list[Sink]:
    directory, monitor = Path(recipe.paths.run), recipe.monitor
    settings = SinkSettings(directory, name=recipe.name, allow_upload=monitor.allow_upload)
    return build_sinks(monitor.trackers, settings)


def _new_stage(recipe: Recipe, name: Stage, run: RunWriter, resume: bool, stop: StopRequest) -> stages.Stage:
    return stages.Stage(
        name=name,
        run=run,
        view=TerminalView(num_steps(recipe, name), name, samples=recipe.monitor.samples),
        guard=Guard(config=recipe.monitor),
        checkpoint_every=getattr(getattr(recipe, name), "checkpoint_every", 0),
        is_resumed=resume,
        checkpoint=recipe.checkpoint,
        keeps_last=recipe.checkpoint.keep_last,
        stop=stop,
    )


def _run_stage(recipe: Recipe, stage: stages.Stage) -> dict[str, Any]:
    start, name = time.perf_counter(), cast(Stage, stage.name)
    stage.run.event(name, "stage_started", 0, {})
    try:
        seed_everything(recipe.seed)
        choose_tokens_as({})
        stacks = stage.run.directory.stacks
        with build_watchdog(recipe.monitor, stacks, stage.tell_stall) as stage.watchdog:
            result = RUNNERS[name](recipe, stage)
    finally:
        stage.view.close()
        stage.stop.is_deferred = False
    result["seconds"] = round(time.perf_counter() - start, 2)
    stage.run.event(name, "stage_finished", num_steps(recipe, name), result)
    return result


def finished_stages(run_directory: str) -> dict[Stage, dict[str, Any]]:
    """The results of the stages that a run has finished; training again makes an evaluation stale."""
    results: dict[Stage, dict[str, Any]] = {}
    for event in read_events(run_directory, kind="stage_finished"):
        results.pop("eval", None)
        results[cast(Stage, event.stage)] = dict(event.data)
    return results


def summarise(results: Mapping[Stage, Mapping[str, Any]]) -> dict[str, Any]:
    """The summary of a run: seconds of every stage, and the figures of the evaluation."""
    summary: dict[str, Any] = {"stages": {name: result["seconds"] for name, result in results.items()}}
    if "reward_model" in results:
        card = results["reward_model"]
        names = ("accuracy", "ece", "length_correlation", "num_held_out", "mean", "std")
        summary["reward_model"] = {name: card[name] for name in names}
    if "process_reward" in results:
        card = results["process_reward"]
        figures = ("accuracy", "ece", "first_error_accuracy", "first_error_chance", "num_held_out")
        summary["process_reward"] = {name: card[name] for name in figures}
    evaluated = results.get("eval", {})
    return {**summary, **{k: v for k, v in evaluated.items() if k not in ("seconds", "path")}}
