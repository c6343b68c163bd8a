"""A talk's program in the sandbox of the solution: its functions and objects, used from outside step by step.

It runs with the names of ``guest.py``. Requests and answers are lines that take turns. A request names a
function, or an object that was answered before; an answer is a value, an object's number, or an error's
names. What comes in are arguments; what is expected of the results stays where the tests run.
"""

from __future__ import annotations

import builtins
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from trimtab.rewards.sandbox.guest import (
        _describe,
        _find,
        _list,
        _parse,
        _plain,
        _read_line,
        _text,
        _value,
        _write,
    )

    job: dict[str, Any] = {}
    requests, replies = 0, 1

_MAX_ITEMS = 100_000
_objects: list[object] = []
_module = type(sys)("solution")


def _serve() -> None:
    sys.modules["solution"] = _module
    try:
        for text in (job["preamble"], job["code"]):
            exec(compile(text, "solution.py", "exec"), _module.__dict__)
    except BaseException as error:
        _answer(_failure(error))
        return
    _answer('{"value": null}')
    while line := _read_line(requests):
        _answer(_attempt(_parse(line)))


def _answer(said: str) -> None:
    _write(replies, job["nonce"].encode() + b" " + said.encode() + b"\n")


def _attempt(request: dict[str, Any]) -> str:
    try:
        return _do(request)
    except BaseException as error:
        return _failure(error)


def _do(request: dict[str, Any]) -> str:
    target = _value(request["target"], _object)
    given = [_value(item, _object) for item in request["args"]]
    kwargs = {name: _value(item, _object) for name, item in request["kwargs"].items()}
    action = request["do"]
    if action != "call":
        return '{"value": ' + _plain(_ACTIONS[action](target, *given), 0, _keep) + "}"
    before = [_plain(item, 0, _keep) for item in given]
    found = _plain(target(*given, **kwargs), 0, _keep)
    after = [_plain(item, 0, _keep) for item in given]
    changed = _list(
        new if new != old and isinstance(item, (list, dict, set, bytearray)) else "null"
        for item, old, new in zip(given, before, after)  # noqa: B905
    )
    return '{"value": ' + found + ', "changed": ' + changed + "}"


def _items(target: Any) -> list[Any]:
    found: list[Any] = []
    for item in target:
        found.append(item)
        if len(found) > _MAX_ITEMS:
            raise ValueError("more items than can be taken")
    return found


_ACTIONS: dict[str, Any] = {
    "get": getattr,
    "set": setattr,
    "item": lambda target, key: target[key],
    "put": lambda target, key, value: target.__setitem__(key, value),
    "items": _items,
    "next": next,
    "len": len,
    "text": str,
    "shown": repr,
}


def _keep(value: Any) -> str:
    """An object of the solution, by its number; the same one has the same number."""
    for number, known in enumerate(_objects):
        if known is value:
            return f'{{"object": {number}}}'
    _objects.append(value)
    return f'{{"object": {len(_objects) - 1}}}'


def _object(tag: str, held: Any) -> Any:
    if tag == "object":
        return _objects[held]
    if tag == "function":
        return _theirs(held)
    if tag == "builtin":
        return getattr(builtins, held)
    found = _find(_module.__dict__, held)
    if found is None:
        raise NameError("name '" + held + "' is not defined")
    return found


def _theirs(number: int) -> Any:
    """A function of the tests that is an argument: when it is called, the tests are asked."""

    def call(*given: Any) -> Any:
        told = _list(_plain(item, 0, _keep) for item in given)
        _answer(f'{{"function": {number}, "args": {told}}}')
        said = _parse(_read_line(requests))
        if "error" in said:
            raise ValueError(str(said["error"]))
        return _value(said["value"], _object)

    return call


def _failure(error: BaseException) -> str:
    names = [kind.__name__ for kind in type(error).__mro__]
    return '{"error": ' + _list(map(_text, names)) + ', "text": ' + _text(_describe(error)) + "}"


_serve()
os._exit(0)
