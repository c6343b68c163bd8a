"""What keys a recipe has: for overrides, error messages, `--help` and the documentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the recipe: dotted name, type as text, default as text, and its sentence."""

    name: str
    type: str
    default: str
    description: str


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    """Yield every leaf key of a section and of the sections below it."""
    for name, field in model.model_fields.items():
        section = _section(field.annotation)
        if section is not None:
            yield from keys(section, f"{prefix}{name}.")
            continue
        default = field.get_default(call_default_factory=True, validated_data={})
        shown = "required" if default is PydanticUndefined else repr(default)
        yield Key(f"{prefix}{name}", _type_name(field.annotation), shown, field.description or "")


def key_names(model: type[BaseModel]) -> list[str]:
    """The dotted names of every leaf key."""
    return [key.name for key in keys(model)]


def field_type(model: type[BaseModel], name: str) -> str | None:
    """The type of a dotted key as text, or None when there is no such key.

    Below a table of free names (``rl.columns``) every name is a key: ``rl.columns.prompt``.
    """
    found = {key.name: key.type for key in keys(model)}
    table = name.rpartition(".")[0]
    return found.get(name) or ("str" if found.get(table, "").startswith("dict[str, str]") else None)


def section_at(model: type[BaseModel], names: Sequence[str]) -> type[BaseModel] | None:
    """The section under these names, also one whose entries are a list (`rl.rewards`); None where none is."""
    for name in names:
        field = model.model_fields.get(name)
        found = None if field is None else _entries(field.annotation)
        if found is None:
            return None
        model = found
    return model


def _entries(annotation: Any) -> type[BaseModel] | None:
    """The section that an annotation holds, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _entries(part))), None)


def _section(annotation: Any) -> type[BaseModel] | None:
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)


def _type_name(annotation: Any) -> str:
    if get_origin(annotation) is None and isinstance(annotation, type):
        return annotation.__name__
    return str(annotation).replace("typing.", "").replace("trimtab.config.rl.", "")
