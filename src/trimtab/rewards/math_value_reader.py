"""Values among tokens: sums, products, powers, functions, and what they are made of."""

from __future__ import annotations

import re

from trimtab.rewards.math_node import MAX_DEPTH, Node, TokenReader
from trimtab.rewards.math_tokens import Token, Unreadable

# Letters that are functions before a bracket; any other letter there is a factor: x(x+2).
_CALLED = frozenset({"f", "g", "F", "G", "P", "Q", "\\phi", "\\varphi", "\\psi", "\\Gamma", "\\Phi"})
_HEXADECIMAL = re.compile(r"[A-Z]_(?:1[1-9]|[23][0-9])")
_STARTS = frozenset(
    {"number", "letter", "constant", "function", "command", "open", "field", "empty", "begin"}
)
VALUES = frozenset(
    (
        "number",
        "letter",
        "constant",
        "sum",
        "product",
        "quotient",
        "power",
        "negative",
        "mixed",
        "factorial",
        "percent",
        "call",
        "apply",
        "root",
        "abs",
        "floor",
        "ceil",
        "binom",
        "degree",
        "pm",
    )
)


class ValueReader(TokenReader):
    """Values: sums, products, powers and what they are made of."""

    def sum(self) -> Node:
        """Terms with signs between them."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("nested too deeply")
        node = self._signed(self.product)
        while (sign := self.take("operator", "+", "-", "pm", "mp")) is not None:
            right = self.product()
            if sign.text in ("pm", "mp"):
                node = Node("pm", (node, right), sign.text)
            else:
                right = Node("negative", (right,)) if sign.text == "-" else right
                node = Node("sum", (*(node.parts if node.kind == "sum" else (node,)), right))
        self.depth -= 1
        return node

    def _signed(self, read: object) -> Node:
        """One sign and a value: two signs are no usual writing of anything."""
        sign = self.take("operator", "+", "-", "pm", "mp")
        node: Node = read()  # type: ignore[operator]
        if sign is None or sign.text == "+":
            return node
        return Node("negative", (node,)) if sign.text == "-" else Node("pm", (node,), sign.text)

    def product(self) -> Node:
        """Factors, written out or side by side, and quotients."""
        node = self.power()
        is_divided = False
        while True:
            if self.take("operator", "*"):
                node, is_divided = _times(node, self._signed(self.power)), False
            elif self.is_next("operator", "/") and not self.is_next("word", offset=1):
                self.at += 1
                node, is_divided = Node("quotient", (node, self._signed(self.power))), True
            elif self.take("operator", "mod"):
                node = Node("call", (node, self.power()), "mod")
            elif (factor := self._beside(node)) is not None:
                if is_divided:
                    raise Unreadable("1/2x is (1/2)x or 1/(2x)")
                node = factor
            else:
                return node

    def _beside(self, node: Node) -> Node | None:
        """The product with what stands right beside it, or a mixed number; None where nothing does."""
        token = self.peek()
        if token is None or (token.kind == "bar" and self.no_bar):
            return None
        if token.kind == "open" and token.text == "\\{":
            return None
        if token.kind == "number":
            before = self.tokens[self.at - 1]
            if before.text == ")" and any(part.kind == "letter" for part in node.walk()):
                return _times(node, self.power())
            return self._mixed(node)
        if token.kind == "bar":
            state = self.at, self.depth, self.no_bar
            try:
                return _times(node, self.power())
            except Unreadable:
                self.at, self.depth, self.no_bar = state
                return None
        if token.kind not in _STARTS:
            return None
        if token.kind == "open" and (
            self.is_next("operator", "mod", offset=1) or self.is_next("word", offset=1)
        ):
            return None
        if token.kind == "command" and token.text in ("pmod", "mod"):
            return None
        is_whole = node.kind == "number" and node.text.isdigit()
        factor = self.power()
        top_bottom = [part.text for part in factor.parts if part.kind == "number" and part.text.isdigit()]
        if is_whole and token.text == "frac" and factor.kind == "quotient" and len(top_bottom) == 2:
            if int(top_bottom[0]) >= int(top_bottom[1]):
                raise Unreadable("neither a mixed number nor a product")
            return Node("mixed", (node, *factor.parts))
        if node.kind == "number" and _HEXADECIMAL.fullmatch(factor.text):
            raise Unreadable("digits that are letters")
        return _times(node, factor)

    def _mixed(self, node: Node) -> Node:
        """``1 1/2``; any other number beside a value is two values."""
        top = self.need("number")
        if (
            node.kind == "number"
            and node.text.isdigit()
            and top.text.isdigit()
            and self.take("operator", "/")
        ):
            bottom = self.need("number")
            if bottom.text.isdigit() and int(top.text) < int(bottom.text):
                return Node("mixed", (node, Node("number", (), top.text), Node("number", (), bottom.text)))
        raise Unreadable("two numbers side by side")

    def power(self) -> Node:
        """A value with what is raised or set behind it."""
        node = self.primary()
        while True:
            if self.is_next("operator", "^"):
                self.at += 1
                if self.take("operator", "circ"):
                    node = Node("degree", (node,))
                    continue
                node = Node("power", (node, self._signed(self._exponent)))
            elif self.take("operator", "!"):
                node = Node("factorial", (node,))
            elif self.take("operator", "%"):
                node = Node("percent", (node,))
            elif self.take("operator", "degree"):
                node = Node("degree", (node,))
                scale = self.peek()
                if scale is not None and scale.kind in ("letter", "word") and scale.text in ("C", "F"):
                    self.at += 1
                    node = Node("quantity", node.parts, f"°{scale.text}")
            else:
                return node

    def _exponent(self) -> Node:
        if self.is_next("open", "{"):
            group = self.group()
            if self.is_next("operator", "^"):
                raise Unreadable("two exponents")
            return group
        return self.power()

    def group(self) -> Node:
        """The value in braces, or a single token where there are none."""
        if self.take("open", "{") is None:
            return self.primary()
        before, self.no_bar = self.no_bar, False
        node = self.sum()
        self.need("close", "}")
        self.no_bar = before
        return node

    def primary(self) -> Node:
        """One number, letter, call or bracket."""
        token = self.peek()
        if token is None:
            raise Unreadable("it ends early")
        self.at += 1
        if token.kind == "number":
            return self._number(token)
        if token.kind == "letter":
            return self._letter(token)
        if token.kind in ("constant", "field", "empty"):
            return Node(token.kind, (), token.text)
        if token.kind == "function":
            return self._function(token.text)
        if token.kind == "command":
            return self._command(token.text)
        if token.kind == "bar" and not self.no_bar:
            return Node("abs", (self._until_bar(),))
        if token.kind == "currency":
            return Node("quantity", (self.power(),), token.text)
        self.at -= 1
        return self.structure()

    def structure(self) -> Node:
        """What a value is not made of: see the class below."""
        raise NotImplementedError

    def _until_bar(self) -> Node:
        before, self.no_bar = self.no_bar, True
        node = self.sum()
        self.no_bar = before
        self.need("bar")
        return node

    def _number(self, token: Token) -> Node:
        if not self.take("operator", "_"):
            return Node("number", (), token.text)
        return Node("based", (Node("word", (), self._subscript()),), token.text)

    def _subscript(self) -> str:
        """The text of a subscript; it is a part of a name."""
        if not self.take("open", "{"):
            token = self.peek()
            if token is None or token.kind not in ("number", "letter", "word"):
                raise Unreadable("a subscript")
            self.at += 1
            return token.text
        texts = []
        while not self.take("close", "}"):
            token = self.peek()
            if token is None or token.kind in ("open", "close"):
                raise Unreadable("a subscript")
            self.at += 1
            texts.append(token.text)
        return " ".join(texts)

    def _letter(self, token: Token) -> Node:
        name = token.text
        if self.take("operator", "_"):
            name += f"_{self._subscript()}"
        while self.take("prime"):
            name += "'"
        if name in ("e", "i"):
            return Node("constant", (), name)
        power = self._power_of_call() if token.text in _CALLED else ""
        if self.is_next("open", "(") and not self.is_next("operator", "mod", offset=1):
            begin = self.at
            arguments = self.structure()
            is_simple = len(name) == 1 and _is_simple(arguments)
            if token.text in _CALLED or name.endswith("'") or is_simple or arguments.kind not in VALUES:
                parts = arguments.parts if arguments.kind == "tuple" else (arguments,)
                return Node("apply", parts, name + power)
            self.at = begin
        elif power:
            raise Unreadable("a power of a function")
        return Node("letter", (), name)

    def _power_of_call(self) -> str:
        """The ``^{-1}`` of an inverse function before its bracket."""
        begin = self.at
        if self.take("operator", "^") and self.take("open", "{") and self.take("operator", "-"):
            number = self.take("number", "1")
            if number and self.take("close", "}") and self.is_next("open", "("):
                return "^-1"
        self.at = begin
        return ""

    def _function(self, name: str) -> Node:
        base = None
        power: Node | None = None
        for _ in range(2):
            if name == "log" and base is None and self.take("operator", "_"):
                base = self.group()
            elif power is None and self.take("operator", "^"):
                power = self._signed(self._exponent)
        arguments = self._arguments()
        is_inverse = power == Node("negative", (Node("number", (), "1"),))
        if is_inverse and name[:3] in ("sin", "cos", "tan", "cot", "sec", "csc"):
            name, power = f"{name}^-1", None
        if is_inverse and power is not None:
            raise Unreadable("an inverse or one over it")
        node = Node("call", (*arguments, *((base,) if base else ())), f"{name}_" if base else name)
        if power is None:
            return node
        # The power's digits stay where the text has them.
        return Node("power", (node, power))

    def _arguments(self) -> tuple[Node, ...]:
        """What a function is applied to: a bracket, or factors side by side up to the next sign."""
        if self.is_next("open", "(", "[", "\\{"):
            inside = self.structure()
            if self.is_next("operator", "^"):
                raise Unreadable("a power of the function or of its argument")
            return inside.parts if inside.kind in ("tuple", "set", "square") else (inside,)
        if self.is_next("bar"):
            return (self.power(),)
        node = self.group() if self.is_next("open", "{") else self.power()
        while (token := self.peek()) is not None and token.kind in ("letter", "constant", "command", "open"):
            if token.text in ("pmod", "\\{") or (token.kind == "open" and token.text != "("):
                break
            factor = self._beside(node)
            if factor is None:
                break
            node = factor
        if self.is_next("operator", "/"):
            raise Unreadable("what the function is applied to")
        return (node,)

    def _command(self, name: str) -> Node:
        if name == "frac":
            return Node("quotient", (self.group(), self.group()))
        if name == "binom":
            if self.is_next("open", "("):
                return Node("binom", self.structure().parts)
            return Node("binom", (self.group(), self.group()))
        if name == "sqrt":
            index: tuple[Node, ...] = ()
            if self.take("open", "["):
                index = (self.sum(),)
                self.need("close", "]")
            return Node("root", (self.group(), *index))
        if name in ("angle", "triangle"):
            letters = []
            while (letter := self.take("letter")) is not None:
                letters.append(letter.text + (f"_{self._subscript()}" if self.take("operator", "_") else ""))
            return Node("letter", (), f"{name} {''.join(letters)}")
        raise Unreadable(f"\\{name}")


def _is_simple(node: Node) -> bool:
    """A number or a letter, signed or not: a(2) is a value of a, and a(b+2) a product."""
    return node.kind in ("number", "letter") or (node.kind == "negative" and _is_simple(node.parts[0]))


def _times(left: Node, right: Node) -> Node:
    return Node("product", (*(left.parts if left.kind == "product" else (left,)), right))
