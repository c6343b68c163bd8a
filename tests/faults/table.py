"""The table of faults: ``python -m tests.faults.table [--json FILE] [--seeds 1 2 3] [--only WORDS]``.

Each fault is put into a run of six steps in a process of its own, for each seed; the run survives it or is
resumed, and is compared with an undisturbed one. Exit code 1 when one of them did not do what it should.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from tests.faults.cases import Fault, Outcome, disturb
from tests.faults.catalogue import all_faults
from tests.faults.tiny_runs import TinyRun

from trimtab.cli.main import main as run_command


def run_faults(
    faults: Sequence[Fault],
    seeds: Sequence[int],
    root: Path,
    tell: Callable[[Outcome], object] = lambda _: None,
) -> list[Outcome]:
    """Every fault with every seed, each in a fresh directory below ``root``."""
    outcomes = []
    warm_up(root / "warm-up")
    for seed in seeds:
        undisturbed = TinyRun(root / f"undisturbed-{seed}", seed)
        ended = undisturbed.start()
        assert ended.code == 0, ended.said
        for number, fault in enumerate(faults):
            outcome = disturb(fault, seed, root / f"{seed}-{number}", undisturbed)
            outcomes.append(outcome)
            tell(outcome)
    return outcomes


def warm_up(root: Path) -> None:
    """Run once in this process: what is imported and compiled here, the forked ones have already."""
    run = TinyRun(root, 0)
    with open(os.devnull, "w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
        assert run_command(["run", str(run.write()), "--output", str(run.output)]) == 0


def rows(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """One row per fault over its seeds."""
    found = []
    for name in dict.fromkeys(outcome.fault for outcome in outcomes):
        mine = [outcome for outcome in outcomes if outcome.fault == name]
        found.append(
            {
                "fault": name,
                "runs": len(mine),
                "good": sum(not outcome.problems for outcome in mine),
                "hung": sum(outcome.is_hung for outcome in mine),
                "how": "/".join(sorted({outcome.how for outcome in mine})),
                "exact": "/".join(sorted({_word(outcome.is_exact) for outcome in mine})),
                "codes": sorted({outcome.code for outcome in mine}),
                "detection_s": _median([outcome.detection_s for outcome in mine]),
                "recovery_s": _median([outcome.recovery_s for outcome in mine]),
                "problems": sorted({problem for outcome in mine for problem in outcome.problems}),
            }
        )
    return found


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(statistics.median(known), 3) if known else None


def _word(is_exact: bool | None) -> str:
    return "not promised" if is_exact is None else "yes" if is_exact else "no"


def show(table: Sequence[dict[str, Any]]) -> str:
    """The table as Markdown."""
    lines = [
        "| fault | runs | as expected | how | exact | exit code | noticed after s | next step after s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in table:
        times = [("–" if row[key] is None else f"{row[key]:.2f}") for key in ("detection_s", "recovery_s")]
        codes = ", ".join(map(str, row["codes"]))
        lines.append(
            f"| {row['fault']} | {row['runs']} | {row['good']} | {row['how']} | {row['exact']} | {codes} | "
            f"{times[0]} | {times[1]} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Print the table; write it where ``--json`` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", default="", help="only faults whose name has these words")
    parser.add_argument("--keep", type=Path, help="keep the runs here")
    arguments = parser.parse_args()
    faults = [fault for fault in all_faults() if arguments.only in fault.name]
    start = time.monotonic()

    done: list[Outcome] = []

    def tell(outcome: Outcome) -> None:
        done.append(outcome)
        if arguments.json:  # each time: what is known stays known
            content = {"rows": rows(done), "runs": [one.as_dict() for one in done]}
            text = json.dumps(content, indent=1, ensure_ascii=False)
            arguments.json.write_text(text + "\n", encoding="utf-8")
        state = "ok" if not outcome.problems else f"FAILED: {'; '.join(outcome.problems)} [{outcome.said}]"
        print(f"{time.monotonic() - start:6.0f} s  seed {outcome.seed}  {outcome.fault}: {state}", flush=True)

    with tempfile.TemporaryDirectory(prefix="trimtab-faults-") as folder:
        root = arguments.keep or Path(folder)
        outcomes = run_faults(faults, arguments.seeds, root, tell)
    table = rows(outcomes)
    print(show(table))
    bad = [outcome for outcome in outcomes if outcome.problems]
    print(
        f"{len(table)} faults, {len(outcomes)} runs: {len(outcomes) - len(bad)} as expected, "
        f"{sum(outcome.is_hung for outcome in outcomes)} hung, {time.monotonic() - start:.0f} s"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
