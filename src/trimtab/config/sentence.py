"""One sentence for the first thing that is wrong with a recipe: place, key, problem, nearest valid name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pydantic import BaseModel, ValidationError

from trimtab.config.recipe import Recipe
from trimtab.config.schema import section_at
from trimtab.errors import nearest


def sentence(error: ValidationError, where: str, text: str, overridden: Sequence[str] = ()) -> str:
    """Tell the first problem of ``error``.

    Args:
        where: the file that the recipe came from.
        text: its TOML, for the line.
        overridden: keys that came from the command line instead: their place is ``--KEY``.
    """
    problem = error.errors(include_url=False)[0]
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    given = next((name for name in overridden if name == key or key.startswith(f"{name}.")), None)
    place = f"{where}{_line_of(location, text)}" if given is None else f"--{given}"
    if problem["type"] == "extra_forbidden":
        section = section_at(Recipe, _names(location[:-1]))
        known = section.model_fields if section else ()
        return f"{place}: '{key}' is not a known key{nearest(location[-1], known)}."
    if problem["type"] == "missing":
        return f"{place}: '{key}' is missing; add it to the table [{'.'.join(location[:-1])}]."
    value = problem.get("input")
    shown = "" if isinstance(value, (dict, BaseModel)) else f" (got {value!r})"
    message = problem["msg"].removeprefix("Value error, ")
    if not location:  # two tables that do not fit together
        return f"{place}: {message}."
    message = message[0].lower() + message[1:]
    close = ""
    if problem["type"] == "literal_error" and isinstance(value, str):
        expected = str(problem["ctx"]["expected"]).replace(" or ", ", ").split(", ")
        close = nearest(value, [name.strip("'") for name in expected])
    return f"{place}: '{key}' is not valid: {message}{shown}{close}."


def _names(location: Sequence[str]) -> list[str]:
    """The location without the numbers of list entries."""
    return [part for part in location if not part.isdigit()]


def _line_of(location: Sequence[str], text: str) -> str:
    """`:LINE` of a key in the TOML text, or of the nearest table around it that is written there."""
    lines = dict(reversed(list(_written(text))))  # the first of several wins
    names = _names(location)
    for length in range(len(names), 0, -1):
        if (number := lines.get(".".join(names[:length]))) is not None:
            return f":{number}"
    return ""


def _written(text: str) -> Iterator[tuple[str, int]]:
    """Dotted name and line of every table and key of a TOML text."""
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[+([^\[\]]+)\]", line)
        key = re.match(r"\s*([\w.\"' -]+?)\s*=", line)
        if header:
            table = header[1].strip()
            yield table, number
        elif key:
            name = key[1].replace('"', "").replace("'", "")
            yield f"{table}.{name}".lstrip("."), number
