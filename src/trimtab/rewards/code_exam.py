"""Tests that are programs: asserts, ``check(candidate)``, test functions and classes.

They are run as they are, in Python, but never beside the solution: the tests are in one sandbox, the solution
in another, and this process carries arguments one way and plain values the other. So what is expected stays
out of the solution's reach, and an object that lies about being equal is never asked.
"""

from __future__ import annotations

import ast
import builtins
import queue
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from trimtab.errors import RewardError
from trimtab.rewards.sandbox import SandboxPool
from trimtab.rewards.sandbox.session import Session

_MAX_TEXT = 5_000_000  # characters of a script
_PARTS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
_START_SECONDS = 10.0  # until a program of ours must have begun


@dataclass(frozen=True, slots=True)
class Script:
    """Tests as Python: ``setup`` is run first, each of ``chunks`` passes or fails.

    ``entry`` is what ``check(candidate)`` is given; ``preamble`` is code that the solution may build on.
    """

    chunks: tuple[str, ...]
    setup: tuple[str, ...] = ()
    entry: str = ""
    preamble: str = ""


@dataclass(frozen=True, slots=True)
class ExamResult:
    """What came of one script: a verdict for each chunk, test and check; or why there is none."""

    verdicts: tuple[bool, ...] = ()
    fault: str | None = None


class Examiner:
    """Runs scripts against solutions, a pair of sandboxes for each at a time; those of tests are kept."""

    def __init__(self, pool: SandboxPool) -> None:
        self._pool = pool
        self._kept: queue.SimpleQueue[Session] = queue.SimpleQueue()
        self.close = weakref.finalize(self, _end_all, self._kept)
        pool.also_close.append(self.close)

    def run_all(self, jobs: Sequence[tuple[Script, str]]) -> list[ExamResult]:
        """One result per script and solution, in order."""
        return self._pool.map(self._run, jobs)

    def _run(self, job: tuple[Script, str]) -> ExamResult:
        script, code = job
        result = ExamResult(fault="never tried")
        for _ in range(2):  # a sandbox that does not start is the machine's fault: once more
            solution = Session(
                self._pool.take(), "talk_solution.py", {"preamble": script.preamble, "code": code}
            )
            try:
                result, is_ours = self._examine(script, solution)
            finally:
                solution.end()
            if not is_ours:
                return result
        return result

    def _examine(self, script: Script, solution: Session) -> tuple[ExamResult, bool]:
        """The result, and whether it is a fault of the machine."""
        if solution.fault is not None:
            return ExamResult(fault=f"the sandbox failed ({solution.fault})"), True
        limits = self._pool.limits
        end = time.monotonic() + limits.seconds
        first = solution.read(min(end, time.monotonic() + limits.seconds_per_case))
        if first is None or "value" not in first:
            return ExamResult((False,)), False
        tests = self._tests()
        if tests is None:
            return ExamResult(fault="the sandbox of the tests did not start"), True
        exam = {"setup": script.setup, "chunks": script.chunks, "entry": script.entry}
        said = tests.ask({**exam, "names": sorted(names_of(script))}, _soon(limits.seconds_per_case))
        has_answered = False
        while said is not None and "verdicts" not in said and "ended" not in said:
            until = min(end, _soon(limits.seconds_per_case))
            reply = solution.ask(said, until) or {"gone": None}
            has_answered = has_answered or "value" in reply
            said = tests.ask(reply, _soon(limits.seconds_per_case))
        if said is None and has_answered:
            return ExamResult((False,)), False  # what was answered keeps the tests from ending
        return self._concluded(said, tests), False

    def _concluded(self, said: dict[str, Any] | None, tests: Session) -> ExamResult:
        if said is None:
            return ExamResult(fault="the tests did not end in time")
        if "ended" in said or tests.read(_soon(_START_SECONDS)) is None:
            tests.end()
            return ExamResult(fault="the tests ended their own process")
        self._kept.put(tests)
        if said["fault"] is not None:
            return ExamResult(fault=str(said["fault"]))
        return ExamResult(tuple(bool(verdict) for verdict in said["verdicts"]))

    def _tests(self) -> Session | None:
        """A started sandbox of tests; a new one where none is free."""
        try:
            return self._kept.get_nowait()
        except queue.Empty:
            made = Session(self._pool.take(), "talk_tests.py", {})
        if made.fault is None and made.read(_soon(_START_SECONDS)) is not None:
            return made
        made.end()
        return None


def _end_all(kept: queue.SimpleQueue[Session]) -> None:
    while not kept.empty():
        kept.get_nowait().end()


def _soon(seconds: float) -> float:
    return time.monotonic() + seconds


def make_script(
    chunks: Sequence[str], setup: Sequence[str] = (), entry: str = "", prompt: str = ""
) -> Script:
    """A script from texts of Python. One text is cut after each statement that asserts.

    ``prompt`` is code that ends with the beginning of ``entry``: what stands before is the tests' and the
    solution's.

    Raises:
        RewardError: a text is no Python, or nothing in it can fail (the sentence begins with "they").
    """
    trees = [_parsed(text) for text in chunks]
    before = [text for text in setup if text.strip()]
    for text in before:
        _parsed(text)
    preamble = _preamble(prompt, entry)
    if not any(_can_fail(node) for tree in trees for node in ast.walk(tree)):
        raise RewardError("they assert nothing")
    has_check = any(_defines(tree, "check") for tree in trees)
    if has_check and not entry and not any(_calls_check(tree) for tree in trees):
        raise RewardError("they define check(candidate), and the row has no entry_point to check")
    if has_check and entry:
        before, parts = [*before, *chunks], list[str]()
    elif len(trees) == 1:
        parts = _cut(trees[0])
    else:
        parts = [ast.unparse(_asserting(tree)) for tree in trees]
    if preamble:
        before = [preamble, *before]
    return Script(tuple(parts), tuple(before), entry, preamble)


def _parsed(text: str) -> ast.Module:
    if len(text) > _MAX_TEXT:
        raise RewardError(f"they are longer than {_MAX_TEXT:,} characters")
    try:
        return ast.parse(text.strip())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        shown = " ".join(text.split())[:60]
        raise RewardError(f"they are no Python ({error}): {shown}") from None


def _can_fail(node: ast.AST) -> bool:
    if isinstance(node, (ast.Assert, ast.Raise)):
        return True
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        return name.startswith(("assert", "raises", "fail"))
    return isinstance(node, ast.Expr) and isinstance(node.value, (ast.Compare, ast.BoolOp))


def _defines(tree: ast.Module, name: str) -> bool:
    return any(isinstance(node, ast.FunctionDef) and node.name == name for node in tree.body)


def _calls_check(tree: ast.Module) -> bool:
    return any(
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and getattr(node.value.func, "id", "") == "check"
        for node in tree.body
    )


def _asserting(tree: ast.Module) -> ast.Module:
    """A comparison that stands alone says what an assert says."""
    body = [
        ast.copy_location(ast.Assert(node.value, None), node)
        if isinstance(node, ast.Expr) and isinstance(node.value, (ast.Compare, ast.BoolOp))
        else node
        for node in tree.body
    ]
    return ast.fix_missing_locations(ast.Module(body, []))


def _cut(tree: ast.Module) -> list[str]:
    """The program in parts, each up to a statement that can fail by itself."""
    parts, part = list[str](), list[ast.stmt]()
    for node in _asserting(tree).body:
        part.append(node)
        is_definition = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        if not is_definition and any(_can_fail(inner) for inner in ast.walk(node)):
            parts.append(ast.unparse(ast.Module(part, [])))
            part = []
    if part:
        parts.append(ast.unparse(ast.Module(part, [])))
    return parts


def _preamble(prompt: str, entry: str) -> str:
    """The statements of a prompt that are whole: all but the function that is to be written."""
    for ending in ("", "\n    pass\n") if entry else ():
        try:
            tree = ast.parse(prompt + ending)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        body = [node for node in tree.body if getattr(node, "name", "") != entry]
        is_code = len(body) < len(tree.body) or any(isinstance(node, _PARTS) for node in body)
        return ast.unparse(ast.Module(body, [])) if is_code else ""
    return ""


@lru_cache(maxsize=4096)
def names_of(script: Script) -> frozenset[str]:
    """The names that the tests use and that may be the solution's."""
    found = _names(script)
    used = {name for name in found.used if not hasattr(builtins, name)}
    # A function to be written may have the name of one that Python has.
    return frozenset(used or found.called) | ({script.entry} if script.entry else set())


@lru_cache(maxsize=4096)
def wanted_of(script: Script) -> frozenset[str]:
    """What a solution is asked for: the functions and classes that are called and that no test defines."""
    if script.entry:
        return frozenset([script.entry])
    found = _names(script)
    called = {name for name in found.called if not hasattr(builtins, name)} - found.bound
    return frozenset(called) or names_of(script)


@dataclass(slots=True)
class _Names:
    used: set[str] = field(default_factory=set)
    called: set[str] = field(default_factory=set)
    bound: set[str] = field(default_factory=set)


def _names(script: Script) -> _Names:
    found = _Names()
    for text in (*script.chunks, *script.setup):
        for node in ast.walk(ast.parse(text.strip())):
            if isinstance(node, ast.Name):
                (found.used if isinstance(node.ctx, ast.Load) else found.bound).add(node.id)
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found.bound.add(node.name)
            elif isinstance(node, ast.arg):
                found.bound.add(node.arg)
            elif isinstance(node, ast.Import) or (
                isinstance(node, ast.ImportFrom) and node.module != "solution"
            ):
                found.bound |= {alias.asname or alias.name for alias in node.names}
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                found.called.add(node.func.id)
    return found
