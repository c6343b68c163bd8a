"""A final answer as a tree that holds all of its text, or no tree at all.

Nothing is evaluated here: numbers stay digits, so reading is safe in any process.
"""

from __future__ import annotations

from trimtab.rewards.math_node import MAX_DEPTH, Node
from trimtab.rewards.math_tokens import Unreadable, is_measure, tokens_of
from trimtab.rewards.math_units import read_unit
from trimtab.rewards.math_value_reader import ValueReader

__all__ = ["Node", "read_tree"]


def read_tree(text: str) -> Node:
    """The tree of a tidied text.

    Raises:
        Unreadable: a part of the text has no place in the tree.

    Example:
        >>> read_tree("-3x").kind, [node.text for node in read_tree("-3x").walk() if node.text]
        ('negative', ['3', 'x'])
    """
    reader = _Reader(tokens_of(text))
    node = reader.statements()
    if reader.peek() is not None:
        raise Unreadable(f"'{reader.tokens[reader.at].text}' at the end")
    digits = sorted(char for char in text if char.isdigit())
    if digits != sorted(char for part in node.walk() for char in part.text if char.isdigit()):
        raise Unreadable("a number that the tree does not hold")
    return node


class _Reader(ValueReader):
    """Everything above values: lists, brackets, sets, relations, matrices."""

    def statements(self) -> Node:
        """Statements between commas, ``and`` and ``or``."""
        found, joins = [self.statement()], set()
        while (join := self.take("comma") or self.take("join")) is not None:
            second = self.take("join") if join.kind == "comma" else None  # "1, 2, or 3"
            joins.add((second or join).text)
            found.append(self.statement())
        if len(found) == 1:
            return found[0]
        return Node("list", tuple(found), "or" if "or" in joins else "and" if "and" in joins else ",")

    def statement(self) -> Node:
        node = self.collection()
        parts, signs = [node], []
        while (sign := self._relation()) is not None:
            signs.append(sign)
            parts.append(self.collection())
        if signs:
            node = Node("relation", tuple(parts), " ".join(signs))
        if self.take("operator", ":") if not self.no_bar else None:
            ratio = [node, self.sum()]
            while self.take("operator", ":"):
                ratio.append(self.sum())
            node = Node("ratio", tuple(ratio))
        modulus = self._modulus()
        return node if modulus is None else Node("modulo", (node, modulus))

    def _relation(self) -> str | None:
        if self.no_bar and self.is_next("relation", "∣"):
            return None
        sign = self.take("relation")
        if sign is not None:
            return sign.text
        return "∣" if not self.no_bar and self.take("bar") else None

    def _modulus(self) -> Node | None:
        if self.take("command", "pmod"):
            return self.group()
        if self.is_next("open", "(") and self.is_next("operator", "mod", offset=1):
            self.at += 2
            node = self.sum()
            self.need("close", ")")
            return node
        if self.take("command", "mod"):
            return self.sum()
        return None

    def collection(self) -> Node:
        node = self._quantity()
        while (sign := self.take("operator", "cup", "cap", "minus")) is not None:
            right = self._quantity()
            left = node.parts if node.kind == sign.text and sign.text != "minus" else (node,)
            node = Node(sign.text, (*left, right))
        return node

    def _quantity(self) -> Node:
        """A value and the unit behind it, or words alone."""
        if self.is_next("word"):
            return self._words()
        node = self.sum()
        is_bracketed = self.is_next("open", "(") and self.is_next("word", offset=1)  # 16 (oranges)
        is_slash = self.is_next("operator", "/") and self.is_next("word", offset=1)
        if not (self.is_next("word") or self.is_next("unit") or is_slash or is_bracketed):
            return node
        may_be_letter = self.is_next("unit")
        self.at += is_bracketed
        unit = self._unit()
        if is_bracketed:
            self.need("close", ")")
        if is_measure(unit):
            return node
        if unit[:1] in "万亿千百" and not unit.startswith(("千克", "千米", "千瓦", "百分")):
            node, unit = Node("scaled", (node,), unit[0]), unit[1:]
            while unit[:1] in ("万", "亿"):
                node, unit = Node("scaled", (node,), unit[0]), unit[1:]
            if not unit or is_measure(unit):
                return node
        if read_unit(unit) is None:
            raise Unreadable(f"'{unit}' is no unit")
        return Node("measure" if may_be_letter and unit not in ("h", "L") else "quantity", (node,), unit)

    def _words(self) -> Node:
        texts = []
        while (word := self.take("word")) is not None:
            texts.append(word.text)
        return Node("word", (), " ".join(texts).rstrip("."))

    def _unit(self) -> str:
        """The text of a unit: words, powers of them and a slash."""
        texts: list[str] = []
        while (token := self.peek()) is not None:
            if token.kind in ("word", "unit"):
                texts.append((" " if texts and texts[-1][-1:] != "/" else "") + token.text.rstrip("."))
            elif token.kind == "operator" and token.text in "/*" and self.is_next("word", offset=1):
                texts.append("/" if token.text == "/" else " ")
            elif token.kind == "operator" and token.text == "^" and texts:
                self.at += 1
                power = self.group()
                if power.kind != "number":
                    raise Unreadable("the power of a unit")
                texts.append(f"^{power.text}")
                continue
            else:
                break
            self.at += 1
        return "".join(texts).strip()

    def structure(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("nested too deeply")
        before, self.no_bar = self.no_bar, False
        node = self._matrix() if self.is_next("begin") else self._bracket()
        self.no_bar = before
        self.depth -= 1
        return node

    def _bracket(self) -> Node:
        opened = self.need("open").text
        if opened == "\\{":
            return self._set()
        inside = self.statements()
        items = inside.parts if inside.kind == "list" and inside.text == "," else (inside,)
        closed = self.need("close").text
        pair = opened + closed
        if pair in ("()", "{}"):
            if len(items) == 1:
                return items[0]
            return Node("tuple" if pair == "()" else "set", items)
        if pair == "[]":
            return items[0] if items[0].kind == "matrix" and len(items) == 1 else Node("square", items)
        if pair in ("(]", "[)") and len(items) == 2:
            return Node("half", items, pair)
        if pair in ("floorfloor", "ceilceil") and len(items) == 1:
            return Node(opened, items)
        if pair == "<<>>":
            return Node("angle", items)
        raise Unreadable(f"{opened} is closed by {closed}")

    def _set(self) -> Node:
        if self.take("close", "\\}"):
            return Node("empty")
        self.no_bar = True
        inside = self.statements()
        self.no_bar = False
        if self.take("bar") or self.take("relation", "∣") or self.take("operator", ":"):
            condition = self.statements()
            self.need("close", "\\}")
            return Node("builder", (inside, condition))
        self.need("close", "\\}")
        return Node("set", inside.parts if inside.kind == "list" and inside.text == "," else (inside,))

    def _matrix(self) -> Node:
        name = self.need("begin").text
        rows: list[Node] = []
        cells: list[Node] = []
        while True:
            if self.is_next("cell") or self.is_next("newrow") or self.is_next("end"):
                cells.append(Node("empty cell"))
            else:
                cells.append(self.statements() if name != "cases" else self._case())
            if self.take("cell"):
                continue
            rows.append(Node("row", tuple(cells)))
            cells = []
            while self.take("newrow"):
                continue
            if self.take("end"):
                return Node(
                    "matrix",
                    tuple(rows),
                    "|" if name in ("vmatrix", "Vmatrix") else name if name == "cases" else "",
                )

    def _case(self) -> Node:
        """A cell of a case distinction: ``x,`` or ``\\text{if } x > 0``."""
        word = self.take("word", "if", "for", "when", "otherwise", "else")
        if word is not None and word.text in ("otherwise", "else"):
            return Node("word", (), "otherwise")
        node = self.statement()
        self.take("comma")
        return node
