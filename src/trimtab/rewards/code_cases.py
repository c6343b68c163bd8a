"""One test of a row, in the forms that data sets have: a call of a function, or a program with its input.

A test becomes ``{"input", "output"}`` or ``{"fn", "args", "kwargs", "expected"}``; ``fn`` None is the one
function that the solution defines. ``near`` is a tolerance of its own, ``readings`` are other arguments that
a text may stand for, ``or_expected`` another value that is right.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.errors import RewardError, nearest
from trimtab.rewards.code_values import EXACT, Near, encode_value

Case = dict[str, Any]
FUNCTION_KEYS = ("fn", "fn_name", "func_name", "function", "function_name", "method", "method_name")
_MAX_TOLERANCE = 1e18
_MAX_TEXT = 10_000  # characters of a call
_NAME = re.compile(r"[A-Za-z_][\w.()]*")
ASSERT_KEYS = ("assert", "assertion", "assert_case", "test", "test_case", "test_code", "code")
_KIND_KEYS = ("testtype", "test_type", "type", "kind")
_INPUT_KEYS = ("input", "stdin", "inputs", "args", "arguments")
_OUTPUT_KEYS = ("output", "expected", "expected_output", "stdout", "outputs", "result", "answer")
_CALLS = ("function_call", "functional", "function", "call", "call_based", "method", "method_call")
_TALKS = ("stdin_stdout", "stdin", "stdio", "standard_input", "program", "io")
CHECKERS = (
    *("checker", "custom_checker", "generated_checker", "checker_code", "special_judge", "spj"),
    "interactor",
)
_ABSOLUTE = ("tolerance", "atol", "abs_tol", "epsilon", "eps")
_RELATIVE = ("rtol", "rel_tol")


def read_case(given: Mapping[str, Any], function: str | None = None, entry: str | None = None) -> Case:
    """A test of a row; ``function`` is the one that its row names for all of them, ``entry`` its entry point.

    A text that may be read by a program or be a call (``add(1, 2)``) becomes the one, with the other as
    ``as_call``.

    Raises:
        RewardError: what is wrong, without the row.
    """
    said = {key: value for key, value in given.items() if value is not None}
    refuse_checkers(said)
    about = said.get("metadata")
    own = function_of(said, (*FUNCTION_KEYS, "entry_point"))
    own = own or (function_of(about) if isinstance(about, Mapping) else None)
    kind = _kind_of(said)
    near = read_tolerance(said)
    more = {"near": near} if near else {}
    spelled, name = _spelled_out(said, may_be_named=kind is True or bool(own or function or entry))
    if name is not None and (kind is True or "input" not in said or own or function or entry):
        return _call(spelled, given, own or (name if name != "_" else function or entry)) | more
    calls = kind if kind is not None else _looks_like_call(said, own or function)
    if calls:
        return _call(said, given, own or function) | more
    case = _talk(said) | more
    return case | (
        {"as_call": _call(spelled, given, name) | more} if name is not None and kind is None else {}
    )


def refuse_checkers(said: Mapping[str, Any]) -> None:
    """Raise where a program of its own decides what is right.

    Raises:
        RewardError: without the row.
    """
    refused = next((key for key in CHECKERS if said.get(key) not in (None, "", False)), None)
    if refused is not None:
        raise RewardError(f"has a '{refused}', which cannot be run here")


def function_of(said: Mapping[str, Any], keys: Sequence[str] = FUNCTION_KEYS) -> str | None:
    """The function that a mapping names under one of ``keys``; None where it names none."""
    found = (said[key] for key in keys if isinstance(said.get(key), str))
    return next((name for name in found if _NAME.fullmatch(name)), None)


def read_tolerance(said: Mapping[str, Any]) -> Near | None:
    """The relative and absolute tolerance that a test or row gives; None where it gives none.

    Raises:
        RewardError: it is no number from 0.
    """
    bounds: list[float] = []
    for keys in (_RELATIVE, _ABSOLUTE):
        key = next((key for key in keys if said.get(key) is not None), None)
        value = 0.0 if key is None else said[key]
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (is_number and 0 <= value < _MAX_TOLERANCE):
            shown = repr(value)[:40] if isinstance(value, (str, float)) else f"a {type(value).__name__}"
            raise RewardError(f"has {key} = {shown}, which is no tolerance: write a number from 0")
        bounds.append(float(value))
    if not any(bounds):
        return None
    return max(bounds[0], EXACT[0]), max(bounds[1], EXACT[1])


def is_assertion(given: Mapping[str, Any]) -> str | None:
    """The Python of a test that is an assertion in a mapping, else None."""
    said = {key: value for key, value in given.items() if value not in (None, "")}
    if any(key in said for key in _INPUT_KEYS):
        return None
    found = next((said[key] for key in ASSERT_KEYS if isinstance(said.get(key), str)), None)
    return found if found is not None and "assert" in found else None


def parse_value(text: str) -> Any:
    """A value written as JSON, else as a Python literal, else the text itself."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
    return text


def _kind_of(said: Case) -> bool | None:
    """Whether a test says that it is a call; None where it does not say what it is."""
    kind = next((said[key] for key in _KIND_KEYS if isinstance(said.get(key), str)), None)
    if not kind:
        return None
    word = kind.strip().lower().replace("-", "_").replace(" ", "_")
    if word not in (*_CALLS, *_TALKS):
        raise RewardError(f"is of the type '{kind}', which is not known{nearest(word, (*_CALLS, *_TALKS))}")
    return word in _CALLS


def _looks_like_call(said: Case, name: str | None) -> bool:
    if name is not None or any(key in said for key in ("args", "kwargs", "arguments")):
        return True
    value = next((said[key] for key in _INPUT_KEYS if key in said), "")
    return not isinstance(value, str) and not _are_texts(value)


def _spelled_out(said: Case, *, may_be_named: bool) -> tuple[Case, str | None]:
    """A call that is written as a text, with arguments instead, and its function (``_``: not said)."""
    key = next((key for key in ("call", "expression", *_INPUT_KEYS) if isinstance(said.get(key), str)), None)
    found = None if key is None else _written_call(said[key], may_be_named=may_be_named)
    if key is None or found is None:
        return said, None
    name, args, kwargs = found
    rest = {word: value for word, value in said.items() if word != key}
    return {"was_text": True, **rest, "args": args, **({"kwargs": kwargs} if kwargs else {})}, name


def _written_call(text: str, *, may_be_named: bool) -> tuple[str, list[Any], dict[str, Any]] | None:
    """``add(1, b=2)`` or ``a = 1, b = 2`` as name, arguments and named arguments; None for another text."""
    if len(text) > _MAX_TEXT:
        return None
    for form in (text.strip(), f"_({' '.join(text.split())})" if may_be_named else ""):
        try:
            node = ast.parse(form, mode="eval").body
            if not isinstance(node, ast.Call) or any(word.arg is None for word in node.keywords):
                continue
            name = ast.unparse(node.func)
            kwargs = {str(word.arg): ast.literal_eval(word.value) for word in node.keywords}
            args = [ast.literal_eval(arg) for arg in node.args]
        except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
            continue
        if _NAME.fullmatch(name) and (name != "_" or kwargs):
            return name, args, kwargs
    return None


def _talk(said: Case) -> Case:
    given = next((said[key] for key in _INPUT_KEYS if key in said), None)
    wanted = next((said[key] for key in _OUTPUT_KEYS if key in said), None)
    texts = [_lines(value) for value in (given, wanted)]
    if texts[0] is None or texts[1] is None:
        what = "input" if texts[0] is None else "output"
        raise RewardError(
            f'has no {what}: write {{"input": …, "output": …}}, {{"fn": …, "args": […], "expected": …}} or '
            '"assert f(1) == 2"'
        )
    return {"input": texts[0], "output": texts[1]}


def _lines(value: Any) -> str | None:
    """What is read or printed: a text, a list of lines, or a number that stands for its text."""
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _MAX_TOLERANCE:
        return str(value)
    return "\n".join(value) if _are_texts(value) else None


def _are_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(item, str) for item in value)


def _call(said: Case, given: Mapping[str, Any], name: str | None) -> Case:
    key = next((key for key in ("args", "arguments", *_INPUT_KEYS) if key in said), None)
    kwargs = said.get("kwargs", {})
    if key is None and not kwargs and not any(word in given for word in ("args", "kwargs", *_INPUT_KEYS)):
        raise RewardError('calls a function without "args": write {"fn": …, "args": […], "expected": …}')
    if not isinstance(kwargs, Mapping):
        raise RewardError(f'has "kwargs" of type {type(kwargs).__name__}, where a mapping is needed')
    value = said[key] if key is not None else []
    args, readings, kwargs = _arguments(value, dict(kwargs), is_text_line=key not in ("args", "arguments"))
    out = next((word for word in _OUTPUT_KEYS if word in said), None)
    if out is None and not any(word in given for word in _OUTPUT_KEYS):
        raise RewardError('calls a function without "expected": write {"fn": …, "args": […], "expected": …}')
    expected = said[out] if out is not None else None
    case: Case = {"fn": bare_name(name), "args": args, "expected": expected}
    if (isinstance(value, str) or "was_text" in said) and isinstance(expected, str):
        case["expected"] = parse_value(expected)
    _check_values(case["args"], kwargs)
    return case | ({"kwargs": kwargs} if kwargs else {}) | ({"readings": readings} if readings else {})


def _arguments(
    value: Any, kwargs: Case, is_text_line: bool
) -> tuple[list[Any], list[list[Any]], dict[str, Any]]:
    """The arguments, other readings of them, and those that have names."""
    if isinstance(value, (list, tuple)):
        return list(value), [], kwargs
    if isinstance(value, Mapping):  # {"nums": [2, 7], "target": 9}
        return [], [], {**{str(key): item for key, item in value.items()}, **kwargs}
    if not isinstance(value, str):
        if not is_text_line:
            raise RewardError(f'has "args" of type {type(value).__name__}, where a list is needed')
        return [value], [], kwargs
    lines = [parse_value(line) for line in value.strip().split("\n")] if value.strip() else []
    whole = parse_value(value)
    if not is_text_line and isinstance(whole, (list, tuple)):
        return list(whole), [], kwargs
    if len(lines) == 1 and isinstance(whole, list):
        return lines, [whole], kwargs  # one argument that is a list, or a list of arguments
    if len(lines) > 1 and not isinstance(whole, str):
        return [whole], [lines], kwargs  # a value that is written over several lines
    return lines, [], kwargs


def _check_values(args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    try:
        encode_value([list(args), dict(kwargs)])
    except TypeError as error:
        raise RewardError(f"has a {error} among its arguments, which cannot be given to a solution") from None


def bare_name(name: str | None) -> str | None:
    """``Solution().method`` and ``Solution.method`` are called ``method``."""
    return None if not name else name.replace("()", "").rpartition(".")[2]
