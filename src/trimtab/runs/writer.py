"""The one writer of a run directory: events, rollouts, recipe and manifest."""

from __future__ import annotations

import math
import os
import shutil
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, BinaryIO, Self, TextIO

from trimtab.errors import DataError
from trimtab.runs.events import EVENT_KINDS, Event, EventKind, to_plain
from trimtab.runs.files import read_json, sync, write_bytes, write_json
from trimtab.runs.layout import RunDirectory
from trimtab.runs.lock import RunLock, take_lock
from trimtab.runs.manifest import build_manifest
from trimtab.runs.reader import complete_lines, parse_events
from trimtab.runs.rollouts import is_rollout_of, write_rollout_file
from trimtab.runs.sinks import Sink

_DURABLE: tuple[EventKind, ...] = (
    "checkpoint",
    "stage_finished",
)  # synced to the disk, not only to the system

_LASTING: tuple[EventKind, ...] = ("resumed", "restart", "warning")  # kept by a rewind


class RunWriter:
    """Writes a run; used as a context manager.

    ``resume=False`` starts a new record: what an earlier run left in ``root`` is moved to ``root/previous``
    (only the latest is kept; ``has_moved`` says whether there was one). ``resume=True`` goes on with what is
    there: a half-written last line is cut off, the manifest notes the new process, changed keys of the recipe
    become a ``note``. To run one stage of a recipe again beside the others, resume and ``rewind(stage, 0)``.
    ``facts`` go into the manifest.

    Every event reaches the operating system before the call returns, so a killed process loses none. Until it
    is closed no other process can write here.

    Raises:
        DataError: ``root`` cannot be written, or another process is writing it.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        recipe: Mapping[str, Any],
        *,
        sinks: Iterable[Sink] = (),
        resume: bool = False,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.directory = RunDirectory(os.fspath(root))
        self._sinks = list(sinks)
        try:
            self._lock: RunLock | None = take_lock(self.directory.root)
            self.has_moved = not resume and _set_aside(self.directory)
            self.directory.create()
            self._start(recipe, facts)
            _cut_half_line(self.directory)
            _sweep(self.directory)
            self._file: BinaryIO = self.directory.events.open("ab")
        except OSError as error:
            raise DataError(
                f"Cannot write the run directory {self.directory.root}: {error.strerror or error}; "
                f"give another place with --output DIR."
            ) from error
        self._show = warnings.showwarning
        warnings.showwarning = self._record
        if self._lock.fault:
            self.event("run", "warning", 0, {"text": self._lock.fault})
        if self._changed:
            self.event("run", "note", 0, {"text": "recipe changed on resume", "keys": self._changed})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def event(self, stage: str, kind: EventKind, step: int, data: Mapping[str, Any] | None = None) -> None:
        """Append one event and flush it.

        Raises:
            ValueError: the kind is not one of ``EVENT_KINDS``.
        """
        if kind not in EVENT_KINDS:
            raise ValueError(f"unknown event kind {kind!r}; one of {', '.join(EVENT_KINDS)}")
        line = Event(time.time(), stage, kind, step, data or {}).to_line()
        self._file.write(line.encode("utf-8", "backslashreplace") + b"\n")
        self._file.flush()
        if kind in _DURABLE:
            os.fsync(self._file.fileno())

    def _record(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """Keep a warning of ours in the events, and show it as before."""
        if "trimtab" in filename and not self._file.closed:
            self.event("run", "warning", 0, {"text": str(message)})
        self._show(message, category, filename, lineno, file, line)

    def metrics(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Record the figures of one step, in the events and in every sink. None means not measured.

        A sink that fails is closed and left out from then on; it never stops the run.
        """
        values = {name: float(value) for name, value in metrics.items() if value is not None}
        self.event(stage, "metrics", step, values)
        for sink in list(self._sinks):
            try:
                sink.log(stage, step, values)
            except Exception as error:
                self._drop(sink, stage, step, error)

    def rollouts(self, stage: str, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the completions of one step as one Parquet file; see ``rollouts.COLUMNS`` for the columns."""
        if rows:
            write_rollout_file(self.directory.rollout_file(stage, step), step, rows)

    def rewind(self, stage: str, step: int, *, goes_on: bool = False) -> None:
        """Keep only the first ``step`` steps of ``stage`` (1 … step); other stages are untouched.

        Events and rollouts of later steps go; the checkpoint taken after ``step`` finished steps stays, and
        so does what happened to the process: resumptions, restarts, warnings. ``goes_on``: from the state
        after those steps, so what was evaluated of it stays too, also before the first step.
        """
        self._file.close()
        kept = [
            line + b"\n"
            for line in complete_lines(self.directory.events)
            for event in parse_events([line])
            if event.stage != stage
            or (event.step <= step and (step > 0 or event.kind == "checkpoint"))
            or event.kind in _LASTING
            or (goes_on and event.kind == "evaluation" and event.data.get("num_steps", math.inf) <= step)
        ]
        write_bytes(self.directory.events, b"".join(kept))
        folder = self.directory.rollouts / stage
        for path in folder.iterdir() if folder.is_dir() else ():
            if is_rollout_of(path, step + 1):
                path.unlink()
        self._file = self.directory.events.open("ab")

    def note_inputs(self, stage: str, inputs: Mapping[str, Any]) -> None:
        """Write into the manifest what a stage reads, as fingerprints by key: a resumed run compares them."""
        manifest = read_json(self.directory.manifest)
        recorded = {**manifest.get("inputs", {}), stage: to_plain(inputs)}
        write_json(self.directory.manifest, {**manifest, "inputs": recorded})

    def sync(self) -> None:
        """Bring events and rollouts to the disk: a checkpoint must not be newer than the record."""
        self._file.flush()
        os.fsync(self._file.fileno())
        for folder in (self.directory.root, *(path for path in self.directory.rollouts.glob("*/"))):
            sync(folder)

    def close(self) -> None:
        """Sync the events and close the sinks. Closing twice does nothing."""
        if self._file.closed:
            return
        if warnings.showwarning == self._record:
            warnings.showwarning = self._show
        for sink in list(self._sinks):
            try:
                sink.close()
            except Exception as error:
                self._drop(sink, "run", 0, error)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._lock = None  # which releases it, unless another writer of this process goes on

    def _start(self, recipe: Mapping[str, Any], facts: Mapping[str, Any] | None) -> None:
        """Write recipe and manifest; on resume, note what changed and keep the first manifest."""
        plain, before = to_plain(recipe), read_json(self.directory.recipe)
        self._changed = changed_keys(before, plain) if before else []
        write_json(self.directory.recipe, plain)
        now, first = build_manifest(recipe, facts), read_json(self.directory.manifest)
        write_json(
            self.directory.manifest, {**first, "resumed": [*first.get("resumed", []), now]} if first else now
        )

    def note_choices(self, new: Mapping[str, str]) -> None:
        """Add to the ``choices`` of the manifest: which way of computing the machine was given.

        A run that is closed stays as it is.
        """
        if self._file.closed:
            return
        told = read_json(self.directory.manifest)
        write_json(self.directory.manifest, {**told, "choices": {**told.get("choices", {}), **new}})

    def choices(self) -> dict[str, str]:
        """The ``choices`` of the manifest."""
        return dict(read_json(self.directory.manifest).get("choices", {}))

    def _drop(self, sink: Sink, stage: str, step: int, error: Exception) -> None:
        self._sinks.remove(sink)
        text = f"{type(sink).__name__} failed and was switched off: {error}"
        self.event(stage, "note", step, {"text": text})


def _set_aside(layout: RunDirectory) -> bool:
    """Move an earlier run's records, its checkpoints among them, to ``previous``; whether there was one."""
    if not layout.events.exists():
        return False
    shutil.rmtree(layout.previous, ignore_errors=True)
    layout.previous.mkdir()
    # The events last: a kill in between must not leave the checkpoints of a run without its record.
    for path in (
        layout.checkpoints,
        layout.rollouts,
        layout.recipe,
        layout.report,
        layout.tensorboard,
        layout.manifest,
        layout.events,
    ):
        if path.exists():
            path.rename(layout.previous / path.name)
    return True


def _cut_half_line(layout: RunDirectory) -> None:
    """Remove what a killed process left of its last line, so that the next event starts on its own."""
    if not layout.events.exists():
        return
    with layout.events.open("rb+") as file:
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)


def append_event(root: str | os.PathLike[str], event: Event) -> None:
    """Append one event to a run that no process writes; what a killed one left of a line is cut off.

    Raises:
        DataError: a process does write it.
    """
    layout = RunDirectory(os.fspath(root)).create()
    lock = take_lock(layout.root)
    _cut_half_line(layout)
    with layout.events.open("ab") as file:
        file.write(event.to_line().encode("utf-8", "backslashreplace") + b"\n")
        file.flush()
        os.fsync(file.fileno())
    del lock


def _sweep(layout: RunDirectory) -> None:
    """Remove the temporary files of a process that was killed."""
    for pattern in ("*.tmp", "rollouts/*/*.tmp", "checkpoints/*/*.json.*.tmp"):
        for path in layout.root.glob(pattern):
            if path.is_file():
                path.unlink(missing_ok=True)


def changed_keys(before: Any, after: Any, prefix: str = "") -> list[str]:
    """Dotted names of the keys whose values differ."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return [] if before == after else [prefix]
    return [
        name
        for key in sorted({*before, *after})
        for name in changed_keys(before.get(key), after.get(key), f"{prefix}.{key}" if prefix else key)
    ]
