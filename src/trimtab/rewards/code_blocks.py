"""Which part of a completion is the solution: the block that defines what is asked for, as models write it.

Everything here reads text line by line: what a model wrote is neither parsed nor compiled in this process.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

MAX_CODE = 200_000  # characters
_MAX_NAMES = 100  # that are looked for, so that a text of nothing but functions takes no longer
_PYTHON = re.compile(r"\{?\.?(?:i?python|py)[\d.]*(?![\w+-])", re.IGNORECASE)
# Blocks with these words hold something else: what is printed, what is typed, other languages.
_OTHER = frozenset(
    re.findall(
        r"\S+",
        "json jsonl bash sh shell zsh console terminal text txt plaintext plain output stdout stdin input "
        "result results pycon doctest c cpp c++ csharp c# java javascript js jsx typescript ts tsx html css "
        "xml yaml yml toml ini sql go golang rust ruby rb php perl kotlin swift scala r matlab julia haskell "
        "lua markdown md diff latex tex mermaid dockerfile makefile cmd powershell csv log none traceback",
    )
)
_MARK = re.compile(r"`{3,}|~{3,}")
_ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)])\s+")
_QUOTE = re.compile(r"^(?:[ \t]*>)+ ?")
_TAG_END = r"(?:[ \t]*(?:</?\w+>|<\|\w+\|>|\[/\w+\]))*[ \t]*$"
# A block on one line, and code that begins on the line of its fence.
_ONE_LINE = re.compile(
    r"^(?:[^`]*[\s:])?```(?:(?:python|py)3?\s)?\s*((?:def|class|import|from)\s[^`]+)```\s*$"
)
_ON_FENCE = re.compile(r"(\S*?)\s*((?:def|class|import|from)\s.*)")
_THOUGHT_END = re.compile(r"(?<![\"'])(?<![^`]`)</(think|thinking|reasoning|thought)>", re.IGNORECASE)
_THOUGHT = re.compile(r"\s*<(think|thinking|reasoning|thought)>", re.IGNORECASE)
_WRAPPED = re.compile(
    r"\s*[<\[](answer|code|solution|python)[>\]]\s*\n?(.*?)[<\[]/\1[>\]]\s*", re.DOTALL | re.IGNORECASE
)
_WORDS = re.compile(r"[A-Z][\w'’,]*(?: [\w'’,`()./+*-]+){2,}[:.!]?(?:\s|$)")
_CODE_LINE = re.compile(r"(?:def|class|import|from|async def|@)\b|@\w|[A-Za-z_]\w* *=[^=]|for |while |if ")
_READS = re.compile(r"\binput\s*\(|\bstdin\b|\bopen\s*\(\s*0|\bfileinput\b|\bos\.read\s*\(\s*0")
_PRINTS = re.compile(r"\bprint\s*\(|\bstdout\b")
_STRINGS = re.compile(r"'''|\"\"\"|#[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|\\.", re.DOTALL)
_FUNCTION = re.compile(r"^(?:async[ \t]+)?def[ \t]+(\w+)", re.MULTILINE)
_METHOD = re.compile(r"^[ \t]+(?:async[ \t]+)?def[ \t]+([A-Za-z]\w*)[ \t]*\([ \t]*self\b", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: the first word of its info string, in lower case, and its text."""

    word: str
    text: str

    @property
    def is_python(self) -> bool:
        """Whether it says that it is Python."""
        return _PYTHON.match(self.word) is not None

    @property
    def is_other(self) -> bool:
        """Whether it says that it is something else; a word that is not known says nothing."""
        return self.word in _OTHER


@dataclass(frozen=True, slots=True)
class _Opening:
    before: str
    mark: str
    info: str


def extract_code(completion: str, names: Sequence[str] = ()) -> str | None:
    """The solution in a completion; None: nothing to run. Without a fence it is the whole text.

    Args:
        completion: what the model wrote; thoughts before ``</think>`` are no answer.
        names: functions or classes that are asked for; the last block that defines one is taken. Without
            names (a program) it is the last one that reads its input, else that prints, else the last one.

    A block that is not closed is no answer.

    Example:
        >>> extract_code("Here:\\n```python\\nprint(1)\\n```\\nDone.")
        'print(1)\\n'
    """
    answer = _without_thoughts(completion.replace("\r\n", "\n"))
    found = None if answer is None else _blocks(answer)
    if answer is None or found is None:
        return None
    wrapped = _WRAPPED.fullmatch(answer)
    code = _chosen(found, names) if found else _unfenced(wrapped[2] if wrapped else answer)
    return code if code is not None and code.strip() and len(code) <= MAX_CODE and "\0" not in code else None


def defines(code: str, *names: str) -> bool:
    """Whether ``code`` seems to define one of ``names``, at its top or as a method.

    Example:
        >>> defines("class Solution:\\n    def add(self, a, b): ...", "add"), defines("add(1)", "add")
        (True, False)
    """
    word = f"(?:{'|'.join(map(re.escape, names))})"
    top = rf"^(?:(?:async[ \t]+)?def|class)[ \t]+{word}\b|^{word}[ \t]*(?::[^=\n]*)?=(?!=)"
    method = rf"^[ \t]+(?:async[ \t]+)?def[ \t]+{word}\b"
    brought = rf"^(?:from[ \t]+\S+[ \t]+)?import[ \t].*\b{word}\b"
    if re.search(f"{top}|{brought}", code, re.MULTILINE):
        return True
    return re.search(r"^class[ \t]", code, re.MULTILINE) is not None and bool(
        re.search(method, code, re.MULTILINE)
    )


def only_function(code: str, prompt: str = "") -> str | None:
    """The function that a solution is asked for, where its row does not name one.

    A method where there is a ``class Solution``, else a function at the top: the last one that the prompt
    names, else the last one.
    """
    names: list[str] = [name for name in _FUNCTION.findall(code) if name != "main"]
    if re.search(r"^class[ \t]+Solution\b", code, re.MULTILINE):
        names = [name for name in _METHOD.findall(code) if not name.startswith("_")] or names
    names = names[-_MAX_NAMES:]
    found = [name for name in names if re.search(rf"\b{re.escape(name)}\b", prompt)] or names
    return found[-1] if found else None


def _without_thoughts(text: str) -> str | None:
    """What comes after the thoughts; None where they do not end."""
    while True:
        begun = _THOUGHT.match(text)
        end = _THOUGHT_END.search(text, begun.end() if begun else 0)
        if end is None:
            return None if begun else text
        # Without a beginning: the template may have opened the thoughts, so that only their end is here.
        if begun is None and re.search(rf"<{end[1]}>", text[: end.start()], re.IGNORECASE):
            return text
        text = text[end.end() :]


def _blocks(text: str) -> list[Block] | None:
    """The closed blocks in order; None where the last one is not closed."""
    lines, found, at = text.split("\n"), list[Block](), 0
    while at < len(lines):
        one_line = _ONE_LINE.match(lines[at])
        if one_line is not None:
            found.append(Block("python", one_line[1] + "\n"))
            at += 1
            continue
        quote = _QUOTE.match(lines[at])
        opening = _opening(lines[at][quote.end() :] if quote else lines[at])
        at += 1
        if opening is None:
            continue
        body = [_QUOTE.sub("", line) for line in lines[at:]] if quote else lines[at:]
        length, last = _length(body, opening.mark)
        if length is None:
            return None
        inside = [*body[:length], *([last] if last else [])]
        found.append(_block(opening.info, inside, is_indented=bool(opening.before)))
        at += length + 1
    return found


def _block(info: str, lines: Sequence[str], *, is_indented: bool) -> Block:
    """A block from its info string and its lines; some have a line of the other's."""
    begun = _ON_FENCE.fullmatch(info)
    if begun is not None:
        info, lines = begun[1], [begun[2], *lines]
    if not info and lines and _PYTHON.fullmatch(lines[0].strip()):
        info, lines = lines[0].strip(), lines[1:]
    return Block(info.split(" ")[0].lower(), _dedented(lines, is_indented and begun is None))


def _opening(line: str) -> _Opening | None:
    """A fence that opens a block: alone, in a list item, or after words; the first of the line decides."""
    mark = _MARK.search(line)
    if mark is None:
        return None
    before, info = line[: mark.start()], line[mark.end() :].strip()
    if "`" in info and mark[0][0] == "`":
        return None
    if before.strip() and not _ITEM.fullmatch(before):
        is_word = re.fullmatch(r"[\w+.#{}-]*", info) is not None
        if not is_word or mark[0][0] != "`" or "`" in before:
            return None
    return _Opening(before, mark[0], info)


def _length(lines: Sequence[str], mark: str) -> tuple[int | None, str]:
    """How many lines a block has, and what stands before the fence on its last one.

    A fence inside a text of several lines, such as a docstring, closes nothing, unless nothing else does.
    """
    closing = re.compile(rf"^[ \t]*{re.escape(mark[0])}{{{len(mark)},}}{_TAG_END}")
    glued = re.compile(rf"^([^`~]*\S){re.escape(mark)}{_TAG_END}")
    first: tuple[int | None, str] = (None, "")
    inside = ""
    for number, line in enumerate(lines):
        end = glued.match(line)
        if closing.match(line) or (end and not inside):
            at = (number, end[1] if end else "")
            if not inside:
                return at
            first = at if first[0] is None else first
        inside = _still_inside(line, inside)
    return first


def _still_inside(line: str, inside: str) -> str:
    """The quotes of the text that is open at the end of a line, given those at its beginning."""
    at = 0
    while at < len(line):
        if inside:
            end = line.find(inside, at)
            if end < 0:
                return inside
            at, inside = end + 3, ""
            continue
        found = _STRINGS.search(line, at)
        if found is None:
            return ""
        at = found.end()
        if found.group() in ("'''", '"""'):
            inside = found.group()
    return inside


def _dedented(lines: Sequence[str], is_indented: bool) -> str:
    """The lines as a text, without the indentation that they have from their fence."""
    text = "".join(line + "\n" for line in lines)
    if not is_indented:
        return text
    text = textwrap.dedent(text)
    first = next((line for line in text.split("\n") if line.strip()), "")
    width = len(first) - len(first.lstrip())
    cut = (line[min(width, len(line) - len(line.lstrip())) :] for line in text.split("\n"))
    return "\n".join(cut)  # of a text whose lines at the margin are those of a string


def _chosen(found: Sequence[Block], names: Sequence[str]) -> str | None:
    """The block that is the solution, those that say Python first."""
    python = [block.text for block in found if block.is_python]
    unknown = [block.text for block in found if not block.is_python and not block.is_other]
    for texts in (python, unknown) if names else ():
        wanted = list(names)[-_MAX_NAMES:]
        defining = [text for text in texts if defines(text, *wanted)]
        if defining:
            return _with_parts(defining[-1], texts)
    texts = [block.text for block in found if not block.is_other]
    for says in () if names else (_READS, _PRINTS):
        telling = [text for group in (unknown, python) for text in group if says.search(text)]
        if telling:
            return _with_parts(telling[-1], texts)
    return texts[-1] if texts else None


def _with_parts(chosen: str, texts: Sequence[str]) -> str:
    """The chosen block, after earlier ones that hold functions it uses and lacks."""
    parts, words = list[str](), set(re.findall(r"\w+", chosen))
    for text in texts[: texts.index(chosen)]:
        own = words.intersection(re.findall(r"^(?:async def|def|class)[ \t]+(\w+)", text, re.MULTILINE))
        if any(not defines(chosen, name) for name in sorted(own)[:_MAX_NAMES]):
            parts.append(text)
    return "".join([*parts, chosen])


def _unfenced(text: str) -> str:
    """A text without fences: its code, without words that stand before or after it."""
    lines = text.split("\n")
    first = next((line for line in lines if line.strip()), "")
    start = next((at for at, line in enumerate(lines) if _CODE_LINE.match(line)), None)
    if start is None:
        return text
    begun = lines[start:] if _WORDS.match(first) or first.rstrip().endswith(":") else lines
    found, inside = list[str](), ""
    for line in begun:
        if not inside and found and _WORDS.match(line) and not _CODE_LINE.match(line):
            break
        inside = _still_inside(line, inside)
        found.append(line)
    return "\n".join(found)
