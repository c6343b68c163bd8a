"""Read a run directory, of a run that is alive, finished or dead."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from trimtab.errors import DataError
from trimtab.runs.events import Event, EventKind
from trimtab.runs.layout import RunDirectory
from trimtab.runs.rollouts import is_rollout_of, read_rollout_file


def read_events(
    root: str | os.PathLike[str], kind: EventKind | None = None, stage: str | None = None
) -> list[Event]:
    """Return the events in order, optionally of one kind and one stage.

    A line that is still being written, or was when the process died, is left out; so is a damaged one.

    Raises:
        DataError: there is no run in ``root``.
    """
    path = RunDirectory(os.fspath(root)).events
    if not path.is_file():
        raise DataError(
            f"No run in {os.fspath(root)}: {path.name} is missing; "
            "give the directory that `trimtab run` wrote."
        )
    return [
        event
        for event in parse_events(complete_lines(path))
        if kind in (None, event.kind) and stage in (None, event.stage)
    ]


def metrics_table(root: str | os.PathLike[str], stage: str) -> dict[str, list[float | None]]:
    """Return the metrics of a stage as columns of equal length, ``step`` among them, rows in order of step.

    Events of the same step share a row, the later value wins; None where a step has no such metric.

    Raises:
        DataError: there is no run in ``root``.
    """
    rows: dict[int, dict[str, float]] = {}
    for event in read_events(root, "metrics", stage):
        rows.setdefault(event.step, {}).update(event.data)
    names = dict.fromkeys(name for row in rows.values() for name in row)
    steps = sorted(rows)
    table: dict[str, list[float | None]] = {"step": [float(step) for step in steps]}
    return table | {name: [rows[step].get(name) for step in steps] for name in names}


def read_rollouts(root: str | os.PathLike[str], stage: str, step: int | None = None) -> list[dict[str, Any]]:
    """Return the recorded completions of a stage, of one step (from 1) or of all; ``parts`` as dictionaries.

    A stage or step without rollouts gives an empty list.
    """
    folder = RunDirectory(os.fspath(root)).rollouts / stage
    if not folder.is_dir():
        return []
    first, last = (0, float("inf")) if step is None else (step, step)
    paths = sorted(path for path in folder.iterdir() if is_rollout_of(path, first, last))
    return [row for path in paths for row in read_rollout_file(path)]


def complete_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of ``path`` that end with a line break, without it."""
    with path.open("rb") as file:
        for line in file:  # bytes split at \n only, never at a separator inside a text
            if line.endswith(b"\n"):
                yield line[:-1]


def parse_events(lines: Iterable[bytes]) -> Iterator[Event]:
    """Yield the event of each line, leaving out lines that hold none."""
    for line in lines:
        try:
            yield Event.from_line(line)
        except (ValueError, TypeError):
            continue
