"""Where things are in a run directory; the only place that knows file names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The paths of one run. Reading code works on a live run and on a dead one.

    Example:
        >>> RunDirectory("output/run").events.name
        'events.jsonl'
    """

    root: Path

    def __init__(self, root: str | Path) -> None:
        object.__setattr__(self, "root", Path(root))

    @property
    def events(self) -> Path:
        """Append-only JSON lines, one event each."""
        return self.root / "events.jsonl"

    @property
    def rollouts(self) -> Path:
        """``rollouts/STAGE/step-00000012.parquet``: one file, of one row group, per step, from 1."""
        return self.root / "rollouts"

    @property
    def checkpoints(self) -> Path:
        """Directories from which the run can go on."""
        return self.root / "checkpoints"

    @property
    def manifest(self) -> Path:
        """Versions, seed, commit, command line and start time."""
        return self.root / "manifest.json"

    @property
    def recipe(self) -> Path:
        """The resolved recipe: every default written out."""
        return self.root / "recipe.json"

    @property
    def report(self) -> Path:
        """The Markdown report of the evaluation."""
        return self.root / "report.md"

    @property
    def stacks(self) -> Path:
        """Where every thread stood when the run stalled; only there if it did."""
        return self.root / "stacks.txt"

    @property
    def tensorboard(self) -> Path:
        """``tensorboard/STAGE/``: TensorBoard event files."""
        return self.root / "tensorboard"

    @property
    def lock(self) -> Path:
        """Locked while a process writes the run; who that is, or was last."""
        return self.root / "run.lock"

    @property
    def previous(self) -> Path:
        """The records of the run that was here before; only the latest is kept."""
        return self.root / "previous"

    def rollout_file(self, stage: str, step: int) -> Path:
        """The Parquet file of one step."""
        return self.rollouts / stage / f"step-{step:08d}.parquet"

    def create(self) -> RunDirectory:
        """Make the directories and return self."""
        for path in (self.root, self.rollouts, self.checkpoints):
            path.mkdir(parents=True, exist_ok=True)
        return self
