"""A node of the tree of a final answer, and a place among its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.rewards.math_tokens import Token, Unreadable

MAX_DEPTH = 24  # of brackets in brackets


@dataclass(frozen=True, slots=True)
class Node:
    """A kind, its own text, and its parts.

    Kinds of values: number, letter, constant, sum, product, quotient, power, negative, pm, mixed, factorial,
    percent, scaled, call (a known function), apply (another one), root, abs, floor, ceil, binom, based,
    quantity, measure (a quantity whose unit may also be a variable: 5 m).
    Of more: list, tuple, half, square, set, angle, relation, modulo, builder, cup, cap, minus, field, empty,
    matrix, row, ratio, word.
    """

    kind: str
    parts: tuple[Node, ...] = ()
    text: str = ""

    def walk(self) -> list[Node]:
        """This node and all below it."""
        return [self, *(below for part in self.parts for below in part.walk())]


class TokenReader:
    """The tokens and the place among them."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = [t for i, t in enumerate(tokens) if not _is_idle_gap(tokens, i)]
        self.at = self.depth = 0
        self.no_bar = False  # a bar ends what is read, instead of beginning an absolute value

    def peek(self, offset: int = 0) -> Token | None:
        """The token ``offset`` places on; None behind the last."""
        return self.tokens[self.at + offset] if self.at + offset < len(self.tokens) else None

    def is_next(self, kind: str, *texts: str, offset: int = 0) -> bool:
        """Whether a token of this kind (and one of these texts) comes there."""
        token = self.peek(offset)
        return token is not None and token.kind == kind and (not texts or token.text in texts)

    def take(self, kind: str, *texts: str) -> Token | None:
        """Step over the next token if it is such a one, and return it."""
        if not self.is_next(kind, *texts):
            return None
        self.at += 1
        return self.tokens[self.at - 1]

    def need(self, kind: str, *texts: str) -> Token:
        """The same; raises ``Unreadable`` where it is another."""
        token = self.take(kind, *texts)
        if token is None:
            raise Unreadable(f"{kind} {' or '.join(texts)} is missing")
        return token


def _is_idle_gap(tokens: Sequence[Token], index: int) -> bool:
    """A wide space beside a comma or a word says nothing; between two values it might separate."""
    if tokens[index].kind != "gap":
        return False
    beside = [tokens[i].kind for i in (index - 1, index + 1) if 0 <= i < len(tokens)]
    return len(beside) < 2 or any(kind in ("comma", "join", "word", "gap", "relation") for kind in beside)
