"""Faults in real processes: a few quick ones by default, the whole table and the leaks when asked (slow)."""

from __future__ import annotations

from pathlib import Path

import pytest

from .cases import Outcome
from .catalogue import all_faults
from .leaks import growth, measure
from .table import rows, run_faults, show

QUICK = ("killed: checkpoint_before_rename", "NaN in exp_avg", "out of memory in a micro-batch")


def complaints(outcomes: list[Outcome]) -> list[str]:
    return [f"{o.fault}, seed {o.seed}: {'; '.join(o.problems)} [{o.said}]" for o in outcomes if o.problems]


def test_a_few_faults(tmp_path: Path) -> None:
    """Issue 5 (faults): killed in a checkpoint, NaN in a moment, out of memory: resumed or survived."""
    chosen = [fault for fault in all_faults() if fault.name in QUICK]
    outcomes = run_faults(chosen, [1], tmp_path)
    assert [outcome.fault for outcome in outcomes] == list(QUICK) or len(outcomes) == len(QUICK)
    assert not complaints(outcomes)
    how = {outcome.fault: (outcome.how, outcome.code, outcome.is_exact) for outcome in outcomes}
    assert how["killed: checkpoint_before_rename"] == ("resumed", -9, True)
    assert how["NaN in exp_avg"] == ("resumed", 3, True)
    assert how["out of memory in a micro-batch"] == ("survived", 0, None)


def test_the_catalogue_is_as_large_as_promised() -> None:
    """Issue 5 (faults): at least 30 distinct faults, at least 12 points at which the trainer is killed."""
    names = [fault.name for fault in all_faults()]
    assert len(names) == len(set(names)) >= 30
    assert sum(name.startswith("killed: ") for name in names) >= 12
    assert sum(name.startswith("SIGTERM in: ") for name in names) == 7


def test_rows_by_hand() -> None:
    """The table counts runs, good ones and hung ones, and takes medians of the times that there are."""
    outcomes = [
        Outcome("a", 1, "resumed", -9, False, True, (), 1.0, None, ""),
        Outcome("a", 2, "resumed", -9, True, None, ("hung",), 3.0, 0.5, ""),
        Outcome("b", 1, "survived", 0, False, None, (), None, None, ""),
    ]
    first, second = rows(outcomes)
    assert (first["runs"], first["good"], first["hung"], first["codes"]) == (2, 1, 1, [-9])
    assert (first["detection_s"], first["recovery_s"], first["problems"]) == (2.0, 0.5, ["hung"])
    assert (second["detection_s"], second["exact"]) == (None, "not promised")
    assert "| b | 1 | 1 | survived | not promised | 0 | – | – |" in show([second])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_whole_table(tmp_path: Path) -> None:
    """Issue 5 (faults): every fault with three seeds: survived or resumed, none hung, nothing lost."""
    outcomes = run_faults(all_faults(), [1, 2, 3], tmp_path)
    assert not complaints(outcomes)
    assert not any(outcome.is_hung for outcome in outcomes)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_nothing_leaks(tmp_path: Path) -> None:
    """Issue 5 (leaks): memory, descriptors and threads are flat over 400 steps."""
    samples = measure(400, 40, tmp_path / "run")
    grown = growth(samples)
    assert grown["descriptors"] == grown["threads"] == 0
    assert grown["tensors"] <= 0 and grown["rss_mib"] <= 8.0
