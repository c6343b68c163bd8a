"""Trackers that a run can also write to; the only file that imports them, and only when one is used.

Each stage becomes a run of its own in the tracker (``NAME-sft``, ``NAME-rl``), so that every stage counts
its steps from 1 and metric names stay as they are. Beside our names stand those that TRL users know. Nothing
leaves the machine unless ``allow_upload`` is set: files go into the run directory.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from trimtab.errors import ConfigError, nearest
from trimtab.runs.spellings import trl_metrics

_TRACKIO_REMOTE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_BUCKET_ID", "TRACKIO_WEBHOOK_URL")

_TELEMETRY_OFF = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
}


class Sink(Protocol):
    """Something that takes the metrics of each step."""

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of one step, under our names."""

    def close(self) -> None:
        """Finish; called once."""


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """Where a sink writes: ``directory`` is the run's; ``name`` names the run in the tracker."""

    directory: Path
    name: str = "trimtab"
    allow_upload: bool = False


class TensorBoardSink:
    """TensorBoard event files in ``tensorboard/STAGE``, written without torch or TensorFlow."""

    def __init__(self, settings: SinkSettings) -> None:
        self._settings = settings
        self._writers: dict[str, Any] = {}
        self._writer = _require("tensorboard", "tensorboard.summary.writer.event_file_writer")
        self._event = import_module("tensorboard.compat.proto.event_pb2").Event
        self._summary = import_module("tensorboard.compat.proto.summary_pb2").Summary

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Write one scalar per name and flush, so that a live TensorBoard sees the step."""
        if stage not in self._writers:
            folder = self._settings.directory / "tensorboard" / stage
            self._writers[stage] = self._writer.EventFileWriter(str(folder))
        values = [
            self._summary.Value(tag=name, simple_value=value)
            for name, value in {**metrics, **trl_metrics(metrics)}.items()
        ]
        event = self._event(step=step, summary=self._summary(value=values))
        event.wall_time = time.time()
        self._writers[stage].add_event(event)
        self._writers[stage].flush()

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()


class WandbSink:
    """Weights & Biases; offline unless uploads are allowed (then ``WANDB_MODE`` and the login decide)."""

    def __init__(self, settings: SinkSettings) -> None:
        self._settings, self._stage = settings, ""
        self._run: Any = None
        _send_no_telemetry(settings)
        self._wandb: Any = _require("wandb")

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Log to the run of this stage, opening it first."""
        if stage != self._stage:
            self.close()
            self._run = self._wandb.init(
                project=os.environ.get("WANDB_PROJECT", "trimtab"),
                group=self._settings.name,
                name=f"{self._settings.name}-{stage}",
                dir=str(_made(self._settings.directory)),
                mode=None if self._settings.allow_upload else "offline",
                settings=self._wandb.Settings(console="off", silent=True),
            )
            self._stage = stage
        self._run.log({**metrics, **trl_metrics(metrics)}, step=step)

    def close(self) -> None:
        """Finish the open run."""
        if self._run is not None:
            self._run.finish()
            self._run = None


class TrackioSink:
    """Trackio; its local database unless uploads are allowed (then its environment variables decide)."""

    def __init__(self, settings: SinkSettings) -> None:
        self._settings, self._stage = settings, ""
        # Trackio reads its folder once, when it is imported.
        os.environ.setdefault("TRACKIO_DIR", str((settings.directory / "trackio").absolute()))
        _send_no_telemetry(settings)
        self._trackio: Any = _require("trackio")

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Log to the run of this stage, opening it first."""
        if stage != self._stage:
            self.close()
            with _without_variables(() if self._settings.allow_upload else _TRACKIO_REMOTE):
                self._trackio.init(project=self._settings.name, name=f"{self._settings.name}-{stage}")
            self._stage = stage
        self._trackio.log({**metrics, **trl_metrics(metrics)}, step=step)

    def close(self) -> None:
        """Finish the open run."""
        if self._stage:
            self._trackio.finish()
            self._stage = ""


class MlflowSink:
    """MLflow; a local database unless uploads are allowed (then ``MLFLOW_TRACKING_URI`` decides).

    A name of ours has dots for slashes here (``reward.mean``), for MLflow cannot hold both ``reward`` and
    ``reward/mean``.
    """

    def __init__(self, settings: SinkSettings) -> None:
        self._settings, self._run_of = settings, dict[str, str]()
        _send_no_telemetry(settings)
        client = _require("mlflow", "mlflow.tracking").MlflowClient
        self._open: Callable[..., Any] = client
        self._client: Any = None

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Log to the run of this stage, opening it first."""
        if self._client is None:
            folder = _made(self._settings.directory / "mlflow").absolute()
            self._client = self._open(
                None if self._settings.allow_upload else f"sqlite:///{folder}/mlflow.db"
            )
        if stage not in self._run_of:
            found = self._client.get_experiment_by_name(self._settings.name)
            experiment = found.experiment_id if found else self._client.create_experiment(self._settings.name)
            run = self._client.create_run(experiment, run_name=f"{self._settings.name}-{stage}")
            self._run_of[stage] = run.info.run_id
        ours = {name.replace("/", "."): value for name, value in metrics.items()}
        for name, value in {**ours, **trl_metrics(metrics)}.items():
            self._client.log_metric(self._run_of[stage], name, value, step=step)

    def close(self) -> None:
        """Mark the runs as finished."""
        for run in self._run_of.values():
            self._client.set_terminated(run)


SINKS: dict[str, Callable[[SinkSettings], Sink]] = {
    "tensorboard": TensorBoardSink,
    "wandb": WandbSink,
    "trackio": TrackioSink,
    "mlflow": MlflowSink,
}


def build_sinks(names: Sequence[str], settings: SinkSettings) -> list[Sink]:
    """Return the sinks of these names.

    Raises:
        ConfigError: a name is unknown, or its package is not installed.
    """
    check_trackers(names)
    return [SINKS[name](settings) for name in names]


def check_trackers(names: Sequence[str]) -> None:
    """Look whether these trackers are known and installed, without importing or opening one.

    Raises:
        ConfigError: a name is unknown, or its package is not there.
    """
    for name in names:
        if name not in SINKS:
            raise ConfigError(f"Unknown tracker '{name}'{nearest(name, SINKS)}.")
        if find_spec(name) is None:
            raise ConfigError(
                f"The tracker '{name}' is not installed: `pip install 'trimtab[{name}]'`, or take it out of "
                "monitor.trackers."
            )


def _require(package: str, module: str | None = None) -> Any:
    try:
        return import_module(module or package)
    except ImportError as error:
        raise ConfigError(
            f"The tracker '{package}' cannot be imported ({error}); install it with "
            f"`pip install 'trimtab[{package}]'` or switch it off in the recipe."
        ) from error


def _send_no_telemetry(settings: SinkSettings) -> None:
    """Trackers report their own use, and read these variables when they are imported."""
    if not settings.allow_upload:
        for name, value in _TELEMETRY_OFF.items():
            os.environ.setdefault(name, value)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _without_variables(names: Sequence[str]) -> Iterator[None]:
    """Hide environment variables for the length of the block."""
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)
