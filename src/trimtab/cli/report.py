"""Print the report of a run, or its figures where it has no report yet."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from trimtab.cli.figures import figures_of, table
from trimtab.cli.parser import Parser
from trimtab.errors import DataError


def add_arguments(parser: Parser) -> None:
    """Add the options of `trimtab report`."""
    parser.add_argument(
        "run", metavar="RUN", help="the DIR of `--output DIR`, a run directory, or summary.json"
    )


def execute(args: argparse.Namespace) -> int:
    """Print; return the exit code."""
    from trimtab.runs.layout import RunDirectory

    source = Path(args.run)
    for folder in (source, source / "run"):
        report = RunDirectory(folder).report
        if report.is_file():
            print(report.read_text(encoding="utf-8"))
            return 0
    rows = [[name, f"{value:.4g}"] for name, value in figures_of(read_summary(source)).items()]
    print(table(["figure", "value"], rows))
    return 0


def read_summary(source: Path) -> dict[str, Any]:
    """Return the summary of a run: the file itself, or `summary.json` in the directory or beside it.

    Raises:
        DataError: there is none, or it is not a JSON object.
    """
    places = [source] if source.is_file() else [source / "summary.json", source.parent / "summary.json"]
    path = next((place for place in places if place.is_file()), None)
    if path is None or not source.exists():
        raise DataError(
            f"There is no summary.json in {source}: give the DIR that `trimtab run --output DIR` wrote."
        )
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise DataError(
            f"{path} is not readable JSON ({type(error).__name__}): run the evaluation again."
        ) from None
    if not isinstance(summary, dict):
        raise DataError(f"{path} is not the summary of a run: give the DIR of `trimtab run --output DIR`.")
    return summary
