"""What the tree of a final answer states: a name and its value, several values, a quantity and its unit."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.rewards.math_node import Node
from trimtab.rewards.math_units import Unit, read_unit
from trimtab.rewards.math_values import fraction_of, letters_of


def is_relation(node: Node) -> bool:
    """Whether a tree states something instead of naming a value."""
    return node.kind in ("relation", "modulo", "builder")


def split_name(node: Node) -> tuple[Node, Node] | None:
    """The name and the value of ``x = 5``, ``5 = x``, ``f(x) = 2x``, ``AB = 5``, ``x = 2 + 3 = 5``.

    A chain without a name, ``6 · 7 = 42``, has its value alone. None where it is no such equation.
    """
    if node.kind == "relation" and node.text == "∈" and _is_name(node.parts[0]):
        return node.parts[0], node.parts[1]
    if node.kind != "relation" or set(node.text.split(" ")) != {"="}:
        return None
    names = [part for part in node.parts if _is_name(part)]
    values = [part for part in node.parts if not _is_name(part)]
    if len(names) > 1 or not values or (names and len(names) + len(values) != len(node.parts)):
        return None
    if not names:
        return (Node("empty"), values[-1]) if _is_true_chain(values) else None
    if any(letters_of(names[0]) & letters_of(value) for value in values if names[0].kind == "letter"):
        return None
    if len(values) > 1 and not _is_true_chain(values):
        return None
    return names[0], values[-1]


def _is_true_chain(values: Sequence[Node]) -> bool:
    """Numbers that are all equal, the last one no sum or product any more: 6 · 7 = 42, and not 42 = 6 · 7."""
    numbers = [fraction_of(value) for value in values]
    return len(set(numbers)) == 1 and numbers[0] is not None and all(v.kind != "number" for v in values[:-1])


def _is_name(node: Node) -> bool:
    """A letter, f(x), or letters side by side such as AB."""
    if node.kind == "letter":
        return True
    if node.kind == "apply":
        return all(part.kind == "letter" for part in node.parts)
    return node.kind == "product" and all(p.kind == "letter" and p.text.isupper() for p in node.parts)


def is_list(node: Node) -> bool:
    """Whether a tree holds several values: a list, or one with ±."""
    return node.kind == "list" or any(below.kind == "pm" for below in node.walk())


def names_matter(found: Sequence[object]) -> bool:
    """Whether several different letters are given values: x = 3, y = 4."""
    bases = {str(one[0].text).partition("_")[0] for one in found if isinstance(one, tuple)}
    return len(bases) > 1


def has_names_alike(names: Sequence[Sequence[tuple[Node, Node] | None]]) -> bool:
    """Whether two lists of named values use the same names."""
    said = [sorted(repr(one[0]) if one else "" for one in found) for found in names]
    return said[0] == said[1]


def items_of(node: Node) -> tuple[Node, ...]:
    """The values of a list or set, those of inner ones too."""
    if node.kind in ("list", "set"):
        return tuple(item for part in node.parts for item in items_of(part))
    split = split_name(node) if node.kind == "relation" else None
    if split is not None and is_list(split[1]):
        name = split[0]
        return tuple(Node("relation", (name, item), node.text) for item in items_of(split[1]))
    if any(below.kind == "pm" for below in node.walk()):
        return _with_sign(node, "pm"), _with_sign(node, "mp")
    return (node,)


def _with_sign(node: Node, upper: str) -> Node:
    """The upper signs of all ± and ∓, or with ``mp`` the lower ones."""
    parts = tuple(_with_sign(part, upper) for part in node.parts)
    if node.kind != "pm":
        return Node(node.kind, parts, node.text)
    last = parts[-1] if node.text == upper else Node("negative", (parts[-1],))
    return last if len(parts) == 1 else Node("sum", (parts[0], last))


def quantity_of(node: Node) -> tuple[Node, Unit | None, str | None]:
    """The value, its unit and the unit's name."""
    if node.kind == "negative" and node.parts[0].kind in ("quantity", "measure", "degree"):
        value, unit, name = quantity_of(node.parts[0])
        return Node("negative", (value,)), unit, name
    if node.kind == "degree":
        return node.parts[0], read_unit("degrees"), "degrees"
    if node.kind not in ("quantity", "measure"):
        return node, None, None
    unit = read_unit(node.text)
    if unit is not None and unit.dimension and all(kind == "unit" for kind, _ in unit.dimension):
        return node.parts[0], None, None
    return node.parts[0], unit, node.text
