"""The written material of the sales task: products, situations and fragments, read from ``content/*.toml``.

A fragment is text with ``{a|b}`` alternatives (nesting allowed) and ``<slot>`` names:

    >>> expand("{Hi|Hi} <name>", random.Random(0), {"name": "CloudSail"})
    'Hi CloudSail'
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CONTENT = Path(__file__).parent / "content"
NUMBERS = ("price", "trial", "days", "support", "term", "seats")
SITUATIONS = (
    "price", "competitor", "hesitation", "decision", "budget", "integration", "trial",
    "complaint", "delivery", "contract", "aftersales", "security", "renewal", "plan",
)  # fmt: skip
_ALTERNATIVES = re.compile(r"\{([^{}]*)\}")
_SLOT = re.compile(r"<(\w+)>")


@dataclass(frozen=True, slots=True)
class Product:
    """One invented product: price in yuan per seat and month, trial in days, term in months."""

    id: str
    name: str
    name_en: str
    func: str
    func_en: str
    price: int
    trial: int
    days: int
    support: int
    term: int
    seats: int
    systems: tuple[str, ...]
    systems_en: tuple[str, ...]
    outcome: str
    outcome_en: str
    cert: str
    user: str

    def slots(self, language: str) -> dict[str, str]:
        """Return the product's facts as slot values in one language."""
        zh = language == "zh"
        systems = self.systems if zh else self.systems_en
        return {
            "name": self.name if zh else self.name_en,
            "func": self.func if zh else self.func_en,
            "outcome": self.outcome if zh else self.outcome_en,
            "systems": ("和" if zh else " and ").join(systems),
            "sys": systems[0],
            "cert": self.cert,
            "user": self.user,
            **{key: str(getattr(self, key)) for key in NUMBERS},
        }


@dataclass(frozen=True, slots=True)
class Point:
    """One thing worth saying in a situation, and the strings of which one shows that it was said."""

    keys: tuple[str, ...]
    say: str


@dataclass(frozen=True, slots=True)
class Situation:
    """What customers ask (``ask_hidden`` only in the hidden set) and the points of a good answer."""

    topic: str
    ask: tuple[str, ...]
    ask_hidden: tuple[str, ...]
    lead: str
    point: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Content:
    """Everything written in one language."""

    slots: dict[str, list[str]]
    style: dict[str, list[str]]
    flaw: dict[str, list[str]]
    situation: dict[str, Situation]


@cache
def products() -> tuple[Product, ...]:
    """Return the products in their fixed order."""
    rows = tomllib.loads((CONTENT / "products.toml").read_text(encoding="utf-8"))["product"]
    for row in rows:
        row["systems"], row["systems_en"] = tuple(row["systems"]), tuple(row["systems_en"])
    return tuple(Product(**row) for row in rows)


@cache
def content(language: str) -> Content:
    """Return the fragments of ``zh`` or ``en``."""
    raw = tomllib.loads((CONTENT / f"{language}.toml").read_text(encoding="utf-8"))
    situations = {}
    for key in SITUATIONS:
        row = raw[key]
        points = tuple(Point(tuple(p["keys"]), p["say"]) for p in row["point"])
        situations[key] = Situation(
            row["topic"], tuple(row["ask"]), tuple(row["ask_hidden"]), row["lead"], points
        )
    return Content(raw["slots"], raw["style"], raw["flaw"], situations)


def fill(template: str, slots: Mapping[str, str]) -> str:
    """Replace each ``<slot>``, twice, since a value may hold slots; an unknown slot raises KeyError."""
    once = _SLOT.sub(lambda match: slots[match[1]], template)
    return _SLOT.sub(lambda match: slots[match[1]], once)


def expand(template: str, rng: random.Random, slots: Mapping[str, str]) -> str:
    """Pick the alternatives of a fragment (innermost first) and fill its slots."""
    while match := _ALTERNATIVES.search(template):
        choice = rng.choice(match[1].split("|"))
        template = template[: match.start()] + choice + template[match.end() :]
    return fill(template, slots)
