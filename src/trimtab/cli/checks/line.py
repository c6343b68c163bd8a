"""One line of the checklist."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from trimtab.errors import TrimtabError

Status = Literal["pass", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class CheckLine:
    """What was looked at, how it stands, what was found, and what to do when it does not pass."""

    status: Status
    name: str
    found: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.status}  {self.name}: {self.found}" + (f"; {self.fix}" if self.fix else "")


def guarded(name: str, check: Callable[[], Iterable[CheckLine]]) -> list[CheckLine]:
    """Return the lines of ``check``; an error that a user can mend becomes one line that fails."""
    lines: list[CheckLine] = []
    try:
        lines.extend(check())
    except TrimtabError as error:
        lines.append(CheckLine("fail", name, " ".join(str(error).split()).rstrip(".")))
    return lines


def within(name: str, value: float, low: float, high: float, fix: str) -> CheckLine:
    """Pass when ``low ≤ value ≤ high``, warn otherwise."""
    # Bounds are decimal numbers: 5e-6 written in a recipe must not fall outside by rounding.
    if low * (1 - 1e-9) <= value <= high * (1 + 1e-9):
        return CheckLine("pass", name, f"{value:g} is within {low:g} to {high:g}")
    return CheckLine("warn", name, f"{value:g} is outside {low:g} to {high:g}", fix)
