"""A talk's program in the sandbox of the tests: it holds what is expected, and never sees the solution.

It runs with the names of ``guest.py``. Every exam is a process of its own, forked from here. Names that the
tests do not define stand for the solution's: using one asks the other sandbox. What comes back is made of
plain types, or it is an object that is known by its number only; comparing such a one never asks the
solution, so nothing that it says of itself is believed.
"""

from __future__ import annotations

import builtins
import os
import sys
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from trimtab.rewards.sandbox.guest import (
        _list,
        _parse,
        _plain,
        _quietly,
        _read_line,
        _text,
        _value,
        _write,
    )

    job: dict[str, Any] = {}
    requests, replies = 0, 1

_functions: list[object] = []
_raised: list[BaseException] = []  # errors of the solution, which say nothing of the tests
_asked = [0]


class _Gone(BaseException):
    """The solution's sandbox has ended, or said nothing in time."""


class _Refused(BaseException):
    """The tests do what cannot be told to the solution."""


class _Theirs:
    """Something of the solution: ``_target`` is how the other side finds it."""

    def __init__(self, target: str) -> None:
        object.__setattr__(self, "_target", target)

    def __call__(self, *given: Any, **kwargs: Any) -> Any:
        return _ask("call", self, given, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return _ask("get", self, (name,))

    def __setattr__(self, name: str, value: Any) -> None:
        _ask("set", self, (name, value))

    def __getitem__(self, key: Any) -> Any:
        return _ask("item", self, (key,))

    def __setitem__(self, key: Any, value: Any) -> None:
        _ask("put", self, (key, value))

    def __iter__(self) -> Any:
        return iter(_ask("items", self))

    def __next__(self) -> Any:
        return _ask("next", self)

    def __len__(self) -> int:
        return int(_ask("len", self))

    def __str__(self) -> str:
        return str(_ask("text", self))

    def __repr__(self) -> str:
        return str(_ask("shown", self))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Theirs) and _target(self) == _target(other)

    def __hash__(self) -> int:
        return hash(_target(self))

    def __bool__(self) -> bool:
        raise TypeError("an object of the solution is neither true nor false")


def _named(name: str) -> str:
    return f'{{"name": {_text(name)}}}'


def _target(theirs: Any) -> str:
    return str(object.__getattribute__(theirs, "_target"))


def _ask(action: str, theirs: _Theirs, given: Any = (), kwargs: Any = None) -> Any:
    _asked[0] += 1
    told = _list(_plain(item, 0, _tell) for item in given)
    named = ", ".join(_text(key) + ": " + _plain(item, 0, _tell) for key, item in (kwargs or {}).items())
    _send(f'{{"do": "{action}", "target": {_target(theirs)}, "args": {told}, "kwargs": {{{named}}}}}')
    while True:
        said = _parse(_read_line(requests))
        if "function" in said:
            _send(_call_ours(said))
            continue
        if "gone" in said:
            raise _Gone
        if "error" in said:
            error = _error(said["error"], said["text"])
            _raised.append(error)
            raise error
        for item, new in zip(given, said.get("changed") or ()):  # noqa: B905
            _follow(item, new)
        return _value(said["value"], _read)


def _tell(value: Any) -> str:
    """How the other side is told what has no plain form."""
    if type(value) is _Theirs:
        return _target(value)
    name = getattr(value, "__name__", None)
    if isinstance(name, str) and getattr(builtins, name, None) is value:
        return f'{{"builtin": {_text(name)}}}'
    if not callable(value):
        raise _Refused("they give the solution a " + type(value).__name__ + ", which cannot be sent")
    _functions.append(value)
    return f'{{"function": {len(_functions) - 1}}}'


def _read(tag: str, held: Any) -> Any:
    if tag != "object" or type(held) is not int:
        raise ValueError("a value of an unknown form")
    return _Theirs(f'{{"object": {held}}}')


def _call_ours(said: Any) -> str:
    """The solution calls a function that a test gave it."""
    try:
        function: Any = _functions[said["function"]]
        return '{"value": ' + _plain(function(*(_value(g, _read) for g in said["args"])), 0, _tell) + "}"
    except Exception as error:
        return '{"error": ' + _text(type(error).__name__) + "}"


def _follow(item: Any, new: Any) -> None:
    """An argument that the solution changed in place is changed here."""
    if new is None:
        return
    found = _value(new, _read)
    if isinstance(item, (list, bytearray)):
        item[:] = found
    elif isinstance(item, (dict, set)):
        item.clear()
        item.update(found)


def _error(names: Any, text: str) -> BaseException:
    """An error of the solution as one of the same builtin class."""
    for name in names:
        kind = getattr(builtins, name, None)
        if isinstance(kind, type) and issubclass(kind, Exception):
            try:
                return kind(text.partition(": ")[2])
            except TypeError:
                continue
    return RuntimeError(text)


def _send(said: str) -> None:
    _write(replies, job["nonce"].encode() + b" " + said.encode() + b"\n")


def _examine(exam: Any) -> None:
    names: dict[str, Any] = {"__name__": "tests", "__builtins__": builtins}
    names.update((name, _Theirs(_named(name))) for name in exam["names"])
    _offer_modules()
    verdicts: list[str] = []
    fault = None
    for text in exam["setup"]:
        fault = fault or _run(text, names)[1]
    for text in exam["chunks"]:
        is_right, why = (False, fault) if fault else _run(text, names)
        fault = fault or why
        verdicts.append("true" if is_right else "false")
    if fault is None:
        for call in _calls(names, exam):
            is_right, why = _attempt(call)
            fault = fault or why
            verdicts.append("true" if is_right else "false")
    if fault is None and not _asked[0]:
        fault = "they use nothing of the solution"
    shown = "null" if fault is None else _text(fault)
    _send(f'{{"verdicts": {_list(verdicts)}, "fault": {shown}}}')


def _run(text: str, names: dict[str, Any]) -> Any:
    return _attempt(lambda: exec(compile(text, "tests.py", "exec"), names))


def _attempt(call: Any) -> tuple[bool, str | None]:
    """Whether it ended without an error, and what is wrong with the tests themselves."""
    try:
        call()
    except (ImportError, SyntaxError, _Refused) as error:
        is_theirs = any(error is known for known in _raised)
        return False, None if is_theirs else str(error)
    except BaseException:
        return False, None
    return True, None


def _calls(names: dict[str, Any], exam: Any) -> list[Any]:
    """What is to be called when the tests have been read: check(candidate), test functions and classes."""
    check = names.get("check")
    if exam["entry"] and callable(check) and not isinstance(check, _Theirs):
        candidate = _Theirs(_named(exam["entry"]))
        return [lambda: check(candidate)]
    found: list[Any] = []
    for name, value in list(names.items()):
        if isinstance(value, _Theirs) or not callable(value):
            continue
        if isinstance(value, type):
            found += _methods(value)
        elif name.startswith("test"):
            found += _with_parameters(value, lambda *given, function=value: function(*given))
    return found


def _methods(kind: Any) -> list[Any]:
    """The test methods of a class, of unittest or plain, each on an object of its own."""
    is_case = "unittest" in sys.modules and issubclass(kind, sys.modules["unittest"].TestCase)
    if not is_case and not kind.__name__.startswith("Test"):
        return []
    found: list[Any] = []
    for name in dir(kind):
        if name.startswith("test") and callable(getattr(kind, name)):

            def call(*given: Any, name: str = name) -> None:
                made = kind(name) if is_case else kind()
                for before in ("setUpClass", "setUp", "setup_method"):
                    getattr(made, before, lambda: None)()
                getattr(made, name)(*given)

            found += _with_parameters(getattr(kind, name), call)
    return found


def _with_parameters(function: Any, call: Any) -> list[Any]:
    rows = getattr(function, "parameters", None)
    if rows is None:
        return [call]
    return [lambda row=row: call(*(row if isinstance(row, (tuple, list)) else (row,))) for row in rows]


def _offer_modules() -> None:
    """``solution`` stands for the solution; of ``pytest`` there is what tests of functions use."""

    class Solution(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return _Theirs(_named(name))

    sys.modules["solution"] = Solution("solution")
    sys.modules["numpy"] = _numpy()
    pytest: Any = types.ModuleType("pytest")
    pytest.raises, pytest.approx, pytest.mark = _Raises, _approx, _Mark()
    sys.modules["pytest"] = pytest


def _numpy() -> Any:
    """What tests of plain functions use of numpy, which is not in the sandbox; all else of it is refused."""

    class Numpy(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            raise _Refused("they use numpy." + name + ", and numpy is not in the sandbox")

    def near(found: Any, expected: Any, rtol: float = 1e-5, atol: float = 1e-8, **_: Any) -> bool:
        if isinstance(found, (list, tuple)) and isinstance(expected, (list, tuple)):
            pairs = zip(found, expected)  # noqa: B905
            return len(found) == len(expected) and all(near(one, two, rtol, atol) for one, two in pairs)
        if found == expected:
            return True
        return bool(abs(found - expected) <= atol + rtol * abs(expected))

    def assert_near(found: Any, expected: Any, rtol: float = 1e-7, atol: float = 0.0, **_: Any) -> None:
        assert near(found, expected, rtol, atol)

    numpy: Any = Numpy("numpy")
    numpy.ndarray = type("ndarray", (), {})  # nothing that comes back is one
    numpy.generic, numpy.floating, numpy.integer = numpy.ndarray, numpy.ndarray, numpy.ndarray
    numpy.float64, numpy.float32, numpy.nan, numpy.inf = float, float, float("nan"), float("inf")
    numpy.isclose = numpy.allclose = near
    numpy.testing = Numpy("numpy.testing")
    numpy.testing.assert_allclose = assert_near
    sys.modules["numpy.testing"] = numpy.testing
    return numpy


class _Raises:
    def __init__(self, kind: Any, match: str | None = None) -> None:
        self.kind, self.match = kind, match

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: Any, error: Any, _: Any) -> bool:
        if kind is None:
            raise AssertionError("nothing was raised")
        if not issubclass(kind, self.kind):
            return False
        self.value = error
        if self.match is not None:
            import re

            return re.search(self.match, str(error)) is not None
        return True


def _approx(expected: Any, rel: float | None = None, abs: float | None = None) -> Any:
    import math

    class Near:
        def __eq__(self, found: object) -> bool:
            return _near(expected, found)

        __hash__ = None  # type: ignore[assignment]

    def _near(one: Any, other: Any) -> bool:
        if isinstance(one, dict):
            same = isinstance(other, dict) and set(one) == set(other)
            return same and all(_near(one[key], other[key]) for key in one)
        if isinstance(one, (list, tuple)):
            return (
                isinstance(other, type(one))
                and len(one) == len(other)
                and all(_near(a, b) for a, b in zip(one, other))  # noqa: B905
            )
        if isinstance(one, bool) or not isinstance(one, (int, float)) or not isinstance(other, (int, float)):
            return bool(one == other)
        near = rel if rel is not None else (1e-6 if abs is None else 0.0)
        return math.isclose(one, other, rel_tol=near, abs_tol=1e-12 if abs is None else abs)

    return Near()


class _Mark:
    def __getattr__(self, name: str) -> Any:
        if name != "parametrize":
            return lambda function: function

        def decorate(_: Any, rows: Any, **__: Any) -> Any:
            def keep(function: Any) -> Any:
                function.parameters = list(rows)
                return function

            return keep

        return decorate


def _main() -> None:
    """Exam after exam; a line that says so when one ended without a verdict."""
    _send('{"value": null}')
    while line := _read_line(requests):
        exam = _parse(line)
        pid = os.fork()
        if pid == 0:
            try:
                _examine(exam)
            finally:
                os._exit(0)
        _quietly(os.waitpid, pid, 0)
        _send('{"ended": null}')


_main()
