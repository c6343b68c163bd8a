"""The page that explains every number says what the code says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from trimtab.monitor import AlarmKind
from trimtab.runs import METRICS
from trimtab.runs.spellings import STATS, TRL

PAGE = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")


def rows(width: int) -> list[list[str]]:
    """The table rows of the page with ``width`` cells whose first cell is one name in backticks."""
    lines = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in cells] for cells in lines if len(cells) == width]


def test_every_metric_is_explained_once_and_as_in_the_code() -> None:
    """R17: one row for each key of METRICS, with its unit, range and meaning; no row without a key."""
    explained = {cells[0].strip("`"): cells[1:] for cells in rows(4)}
    expected = {name: [m.unit, m.range_text, m.meaning] for name, m in METRICS.items()}
    assert explained == expected
    assert len(rows(4)) == len(METRICS)


def test_spellings_are_those_of_the_code() -> None:
    """R13, R17: the table of other names matches the mappings."""
    table = {cells[0].strip("`"): tuple(cell.strip("`") for cell in cells[1:]) for cells in rows(3)}
    assert table == {
        name: (STATS.get(name, ""), TRL.get(name, "")) for name in METRICS if name in {*STATS, *TRL}
    }


def test_every_alarm_is_listed() -> None:
    """R14: every kind of alarm says when it fires."""
    assert {cells[0].strip("`") for cells in rows(2)} == set(get_args(AlarmKind))


@pytest.mark.parametrize("key", sorted(set(re.findall(r"`((?:rl|monitor)\.[a-z_.]+)`", PAGE))))
def test_every_recipe_key_on_the_page_exists(key: str) -> None:
    """R14: a remedy that the page names can be turned in a recipe."""
    from trimtab.config import Recipe

    section: object = Recipe
    for part in key.split("."):
        fields = section.model_fields  # type: ignore[attr-defined]
        assert part in fields, f"{key} is in no recipe"
        options = [fields[part].annotation, *get_args(fields[part].annotation)]
        section = next((option for option in options if hasattr(option, "model_fields")), None)
