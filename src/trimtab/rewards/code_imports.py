"""Names that a ``class Solution`` may use without importing them, as on the site where that form is from.

Only names that the code uses and does not define or import are brought; read line by line, as in
``code_blocks.py``.
"""

from __future__ import annotations

import re

_FROM = {
    "typing": "Any Callable DefaultDict Deque Dict FrozenSet Generator Iterable Iterator List Literal "
    "Mapping NamedTuple Optional Sequence Set Tuple Type TypeVar Union",
    "collections": "Counter OrderedDict defaultdict deque namedtuple",
    "heapq": "heapify heappop heappush heappushpop heapreplace nlargest nsmallest",
    "bisect": "bisect_left bisect_right insort",
    "functools": "cache cmp_to_key lru_cache reduce",
    "itertools": "accumulate chain combinations groupby pairwise permutations product zip_longest",
    "math": "ceil comb factorial floor gcd inf isqrt lcm sqrt",
    "string": "ascii_lowercase ascii_uppercase",
}
_MODULES = [
    "bisect",
    "collections",
    "copy",
    "functools",
    "heapq",
    "itertools",
    "math",
    "operator",
    "random",
    "re",
    "string",
]
_SOURCE = {name: module for module, names in _FROM.items() for name in names.split()}
_STRINGS = re.compile(
    r"'''.*?'''|\"\"\".*?\"\"\"|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|#[^\n]*", re.DOTALL
)


def missing_imports(code: str) -> str:
    """Import lines for what a ``class Solution`` uses; empty for other code.

    Example:
        >>> missing_imports("class Solution:\\n    def f(self, x: List[int]): return math.inf\\n")
        'import math\\nfrom typing import List\\n'
    """
    if not re.search(r"^class[ \t]+Solution\b", code, re.MULTILINE) or "__future__" in code:
        return ""
    bare = _STRINGS.sub("''", code)
    used = set(re.findall(r"(?<![\w.])[A-Za-z_]\w*", bare))
    inside = re.sub(r"->[^:>\n]*:", ":", bare)
    bound = set(re.findall(r"(?:^|[ \t,;(])([A-Za-z_]\w*)[ \t]*(?:=(?!=)|:(?!:))", inside, re.MULTILINE))
    bound |= set(re.findall(r"\b(?:def|class|as|for)[ \t]+([A-Za-z_]\w*)", bare))
    for line in re.findall(r"^[ \t]*(?:from[ \t]+\S+[ \t]+)?import[ \t]+(.*)$", bare, re.MULTILINE):
        bound |= set(re.findall(r"\w+", line))
    stars = re.findall(r"^[ \t]*from[ \t]+(\w+)[ \t]+import[ \t]+\*", bare, re.MULTILINE)
    lines = [
        f"import {name}" for name in _MODULES if re.search(rf"(?<![\w.]){name}\.", bare) and name not in bound
    ]
    lines += [
        f"from {_SOURCE[name]} import {name}"
        for name in sorted(used - bound)
        if name in _SOURCE and _SOURCE[name] not in stars
    ]
    return "".join(f"{line}\n" for line in lines)
