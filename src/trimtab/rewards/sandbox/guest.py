"""What runs inside the sandbox, one interpreter for each solution, started with ``-I -S``.

Importing is most of what a start costs, so of ``json`` it takes the core alone, which is written in C. It
takes one job on stdin (JSON) and answers on stdout, a line per case (nonce, number, JSON), then ends. Every
case runs in a process of its own, forked from here; what comes back is a value or the captured output, never
a judgement: what is expected is not known in here. Nothing that this process says can be trusted, since the
solution runs under the same user. A job that has a ``program`` (``talk_*.py``) is handed to it instead: it
uses what is defined here, and goes on reading and answering lines.
"""

from __future__ import annotations

import _json
import os
import select
import sys
import time

TYPE_CHECKING = False  # importing typing would cost as much as the rest
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

_CHUNK = 65536
_MAX_DEPTH = 40
_SIGKILL = 9
_LONG_BITS = 12_000
_NUMBERS = {float("inf"): "Infinity", float("-inf"): "-Infinity"}
_DICTS = {("collections", "OrderedDict"): "ordered", ("collections", "Counter"): "counter"}
_MOMENTS = ("datetime.date", "datetime.datetime", "datetime.time", "datetime.timedelta")
_text = _json.encode_basestring_ascii


class _Plain:
    """How ``json.loads`` reads; the C core asks for it in this form."""

    strict, object_hook, object_pairs_hook = True, None, None
    parse_float, parse_int = float, int
    parse_constant = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}.__getitem__


def main() -> None:
    """Announce readiness, read one job, answer case by case."""
    jobs, replies = os.dup(0), os.dup(1)
    nothing = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    _write(replies, b"ready\n")
    job = _parse(_read_line(jobs))
    if "program" in job:
        names = dict(globals(), job=job, requests=jobs, replies=replies)
        exec(compile("".join(job["program"]), "talk.py", "exec"), names)
        os._exit(0)
    os.close(jobs)
    for index, case in enumerate(job["cases"]):
        said = _run_case(job, case, replies).partition(b"\n")[0]
        _write(replies, job["nonce"].encode() + b" %d " % index + said + b"\n")
    os._exit(0)


def _run_case(job: dict[str, Any], case: dict[str, Any], replies: int) -> bytes:
    """Fork, let the child run the case, and wait for what it says; at the end of its time it is killed."""
    answer, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(answer)
            os.close(replies)
            os.setsid()
            (_call if "fn" in case else _talk)(job["code"], case, say)
        except BaseException as error:
            _say(say, "error", _text(_describe(error)))
        finally:
            os._exit(0)
    os.close(say)
    found = _collect(answer, job["seconds_per_case"], job["max_output"])
    os.close(answer)
    for target in (-pid, pid):
        _quietly(os.kill, target, _SIGKILL)
    _quietly(os.waitpid, pid, 0)
    return found


def _collect(answer: int, seconds: float, limit: int) -> bytes:
    """The line that the child wrote, within time and size."""
    end, parts, size = time.monotonic() + seconds, [], 0
    while True:
        left = end - time.monotonic()
        if left <= 0 or not select.select([answer], [], [], left)[0]:
            return b'{"error": "timeout"}'
        part = os.read(answer, _CHUNK)
        if not part:
            break
        parts.append(part)
        size += len(part)
        if size > limit:
            return b'{"error": "too much output"}'
        if part.endswith(b"\n"):  # processes that it left behind may hold the pipe open
            break
    return b"".join(parts)


def _call(code: str, case: dict[str, Any], say: int) -> None:
    """Run the solution as a module and call one of its functions."""
    module = type(sys)("solution")
    sys.modules["solution"] = module
    exec(compile(code, "solution.py", "exec"), module.__dict__)
    function = _find(module.__dict__, case["fn"])
    if function is None:
        _say(say, "error", _text("there is no function " + case["fn"]))
        return
    kwargs = {name: _value(given) for name, given in case.get("kwargs", {}).items()}
    _say(say, "value", _plain(function(*map(_value, case["args"]), **kwargs), 0))


def _find(names: dict[str, Any], wanted: str) -> Any:
    """A function of the solution, or of a ``Solution()`` of it."""
    found = names.get(wanted)
    if found is None and isinstance(names.get("Solution"), type):
        found = getattr(names["Solution"](), wanted, None)
    return found


def _talk(code: str, case: dict[str, Any], say: int) -> None:
    """Run the solution as a script: the input on its stdin, its stdout in a file in memory."""
    source, sink = _memory_file(case["input"].encode()), _memory_file(b"")
    os.dup2(source, 0)
    os.dup2(sink, 1)
    sys.stdin = os.fdopen(os.dup(0), encoding="utf-8")
    sys.stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
    module = type(sys)("__main__")
    sys.modules["__main__"] = module
    error = None
    try:
        exec(compile(code, "solution.py", "exec"), module.__dict__)
    except SystemExit as end:
        error = None if end.code in (None, 0) else f"exit code {end.code}"
    if "threading" in sys.modules:  # a script ends with its last thread
        sys.modules["threading"]._shutdown()
    _quietly(sys.stdout.flush)
    if error is not None:
        _say(say, "error", _text(error))
        return
    size = os.fstat(sink).st_size
    _say(say, "output", _text(os.pread(sink, size, 0).decode("utf-8", "replace")))


def _memory_file(content: bytes) -> int:
    file = os.memfd_create("case")
    os.write(file, content)
    os.lseek(file, 0, os.SEEK_SET)
    return file


def _plain(value: Any, depth: int, other: Any = None) -> str:
    """JSON of plain types. What derives from one is told by what it holds, not by what it says of itself.

    ``other`` tells what else there is; without it that is an error.
    """
    kind = type(value)
    if depth > _MAX_DEPTH:
        raise ValueError("the result is nested too deeply")
    if value is None or kind is bool:
        return {None: "null", True: "true", False: "false"}[value]
    if issubclass(kind, int):
        is_long = int.bit_length(value) > _LONG_BITS  # a limit holds for more digits, but not for these
        return '{"long": "' + hex(int(value)) + '"}' if is_long else int.__repr__(value)
    if issubclass(kind, float):
        return "NaN" if float.__ne__(value, value) else _NUMBERS.get(float(value)) or float.__repr__(value)
    if issubclass(kind, str):
        return _text(str.__str__(value))
    if issubclass(kind, list):
        return _list(_plain(item, depth + 1, other) for item in list.__iter__(value))
    if issubclass(kind, tuple):
        return _tagged("tuple", tuple.__iter__(value), depth, other)
    if issubclass(kind, dict):
        tag = _DICTS.get((kind.__module__, kind.__name__), "dict")
        return _tagged(tag, map(list, dict.items(value)), depth, other)
    if issubclass(kind, (set, frozenset)):
        base = set if issubclass(kind, set) else frozenset
        return _tagged("set", base.__iter__(value), depth, other)
    if issubclass(kind, (bytes, bytearray)):
        return '{"bytes": ' + _text(bytes(value).decode("latin-1")) + "}"
    if issubclass(kind, complex):
        return '{"complex": ' + _list(_plain(part, depth) for part in (value.real, value.imag)) + "}"
    name = kind.__module__ + "." + kind.__name__
    if name == "collections.deque":
        return _tagged("deque", iter(value), depth, other)
    if name in ("fractions.Fraction", "decimal.Decimal"):
        return '{"number": ' + _list(map(_text, (name, str(value)))) + "}"
    if name in _MOMENTS:
        parts = (value.days, value.seconds, value.microseconds) if name == "datetime.timedelta" else ()
        said = ",".join(map(str, parts)) if parts else value.isoformat()
        return '{"moment": ' + _list(map(_text, (name, said))) + "}"
    if other is not None:
        return str(other(value))
    raise TypeError("the result has a value of type " + kind.__name__)


def _tagged(tag: str, items: Iterable[Any], depth: int, other: Any) -> str:
    return '{"' + tag + '": ' + _list(_plain(item, depth + 1, other) for item in items) + "}"


def _value(given: Any, other: Any = None) -> Any:
    """What ``_plain`` was given; ``other`` reads what it does not know."""
    if isinstance(given, list):
        return [_value(item, other) for item in given]
    if not isinstance(given, dict):
        return given
    ((tag, held),) = given.items()
    if tag in ("dict", "ordered", "counter"):
        pairs = {_value(key, other): _value(item, other) for key, item in held}
        return pairs if tag == "dict" else _special(tag, pairs)
    if tag in ("tuple", "set"):
        return {"tuple": tuple, "set": set}[tag](_value(item, other) for item in held)
    if tag == "bytes":
        return held.encode("latin-1")
    if tag == "long":
        return int(held, 16)
    if tag == "complex":
        return complex(*held)
    if tag == "deque":
        return _special(tag, _value(held, other))
    if tag == "number":
        return _special(held[0], held[1])
    if tag == "moment" and held[0] in _MOMENTS:
        kind = getattr(__import__("datetime"), held[0].partition(".")[2])
        is_long = held[0] == "datetime.timedelta"
        return kind(*map(int, held[1].split(","))) if is_long else kind.fromisoformat(held[1])
    if other is None:
        raise ValueError("an argument has no plain form")
    return other(tag, held)


def _special(tag: str, held: Any) -> Any:
    """A value of the standard library; its module is imported only now."""
    kinds = {
        "ordered": "collections.OrderedDict",
        "counter": "collections.Counter",
        "deque": "collections.deque",
        "fractions.Fraction": "fractions.Fraction",
        "decimal.Decimal": "decimal.Decimal",
    }
    module, _, name = kinds[tag].partition(".")
    return getattr(__import__(module), name)(held)


def _list(items: Iterable[str]) -> str:
    return "[" + ", ".join(items) + "]"


def _quietly(function: Callable[..., object], *arguments: int) -> None:
    try:
        function(*arguments)
    except (OSError, ValueError):
        return


def _describe(error: BaseException) -> str:
    try:
        return str(type(error).__name__ + ": " + str(error))[:300]
    except BaseException:
        return "an error that cannot be shown"


def _say(pipe: int, name: str, content: str) -> None:
    _write(pipe, f'{{"{name}": {content}}}\n'.encode())
    os.close(pipe)


def _write(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]


def _read_line(file: int) -> bytes:
    """A line, or what there is until the end. Nothing may have been sent behind it."""
    parts = []
    while part := os.read(file, _CHUNK):
        parts.append(part)
        if part.endswith(b"\n"):
            break
    return b"".join(parts)


def _parse(line: bytes) -> Any:
    scanner: Any = _json.make_scanner
    return scanner(_Plain)(line.decode(), 0)[0]


if __name__ == "__main__":
    main()
