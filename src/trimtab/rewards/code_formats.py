"""The tests of a row, recognised by their shape: lists of cases, asserts, columns of inputs and outputs.

What a row says in a form that is not known is refused with a sentence; nothing of it is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.errors import RewardError
from trimtab.rewards.code_cases import (
    Case,
    bare_name,
    function_of,
    is_assertion,
    parse_value,
    read_case,
    read_tolerance,
    refuse_checkers,
)
from trimtab.rewards.code_exam import Script, make_script

MAX_CASES = 1000
_MAX_SENTENCE = 500  # characters
_LISTS = ("test_list", "assert_case", "asserts", "assertions", "assert_list", "unit_tests")
_NESTED = (
    *("test_cases", "testcases", "tests", "cases", "input_output", "ground_truth"),
    *("public_test_cases", "private_test_cases", "public_tests", "private_tests", "generated_tests"),
)
_PAIRS = (("inputs", "outputs"), ("input", "output"), ("inputs", "expected_outputs"), ("inputs", "targets"))
_SETUPS = ("test_imports", "imports", "import_prefix", "test_setup_code", "setup_code", "setup")
# Columns that are read where the row has no column of the reward's name; then what else there is, as hidden.
_VISIBLE = (
    *("test_list", "test", "input_output", "verification_info", "public_tests", "public_test_cases"),
    *("test_cases", "testcases", "unit_tests", "asserts", "assertions", "assert_case", "test_code"),
    *("official_tests", "examples"),
    *("reward_model", "ground_truth"),
)
_HIDDEN = ("challenge_test_list", "private_tests", "private_test_cases", "generated_tests")
_STARTER = re.compile(r"^[ \t]*(?:async[ \t]+)?def[ \t]+(\w+)", re.MULTILINE)
_LANGUAGES = ("python", "python3", "py", "py3")
# Of a row; its language may also be one that people speak.
_OTHER_LANGUAGES = frozenset(
    re.findall(
        r"\S+",
        "c cpp c++ cs csharp c# java javascript js typescript ts go golang rust ruby php perl kotlin swift "
        "scala lua julia haskell bash sh r racket d elixir ocaml dart sql matlab",
    )
)
_ADVICE = (
    'write a list of {"input": …, "output": …}, {"fn": …, "args": […], "expected": …} or "assert f(1) == 2"'
)


@dataclass(frozen=True, slots=True)
class Tests:
    """The tests of one column: cases that are compared here, and a script that is run."""

    cases: tuple[Case, ...] = ()
    script: Script | None = None


@dataclass(frozen=True, slots=True)
class _Row:
    """What a row says beside its tests."""

    function: str | None  # the function that it names
    entry: str  # of check(candidate)
    prompt: str
    setup: tuple[str, ...]


def read_tests(columns: Mapping[str, Any], column: str, row: str, prompt: str = "") -> tuple[Tests, Tests]:
    """The visible and the hidden tests of a row.

    Raises:
        RewardError: there are none, or some are of no known form; the sentence names the row.
    """
    facts = _facts(columns, prompt)
    language = columns.get("language", columns.get("programming_language"))
    try:
        refuse_checkers(columns)
        if isinstance(language, str) and language.strip().lower() in _OTHER_LANGUAGES:
            raise RewardError(f"is for the language '{language}', and only Python is run")
    except RewardError as error:
        raise RewardError(f"Reward code: row {row} {error}.") from None
    name = column if _is_there(columns.get(column)) else None
    hidden = [f"hidden_{column}"]
    if name is None:
        name = next((key for key in _VISIBLE if _is_tests(key, columns.get(key))), None)
        hidden += _HIDDEN
    if name is None:
        name = next((key for key in _HIDDEN if _is_there(columns.get(key))), column)
    visible = _read_column(columns.get(name), name, row, facts)
    others = [key for key in hidden if key != name and _is_there(columns.get(key))]
    return visible, _joined(
        [_read_column(columns[key], key, row, facts, may_be_empty=True) for key in others]
    )


def _read_column(given: Any, name: str, row: str, facts: _Row, *, may_be_empty: bool = False) -> Tests:
    where = f"Reward code: the column '{name}' of row {row}"
    if not _is_there(given):
        raise RewardError(f"{where} has no tests: {_ADVICE}.")
    try:
        tests = _read(given, facts, 0)
    except RewardError as error:
        said = " ".join(str(error).split())[:_MAX_SENTENCE].rstrip(".")  # it may quote what the row holds
        raise RewardError(f"{where}: {said}.") from None
    if len(tests.cases) > MAX_CASES:
        raise RewardError(f"{where} has {len(tests.cases)} tests: {MAX_CASES} are read at most.")
    if not tests.cases and tests.script is None and not may_be_empty:
        raise RewardError(f"{where} has no tests: {_ADVICE}.")
    return tests


def _read(given: Any, facts: _Row, depth: int) -> Tests:
    if depth > 4:
        raise RewardError("the tests are nested too deeply")
    if callable(to_list := getattr(given, "tolist", None)):
        given = to_list()
    if isinstance(given, str):
        return _read_text(given, facts, depth)
    if isinstance(given, Mapping):
        return _read_mapping(given, facts, depth)
    if isinstance(given, (list, tuple)):
        return _read_list(given, facts)
    raise RewardError(f"tests cannot be read from a {type(given).__name__}: {_ADVICE}")


def _read_text(text: str, facts: _Row, depth: int) -> Tests:
    """JSON, or a Python literal, or a program."""
    found = parse_value(text)
    if isinstance(found, (list, Mapping)):
        return _read(found, facts, depth + 1)
    if not re.search(r"\bassert|\bdef ", text):
        packed = re.fullmatch(r"[\w+/=\s-]{40,}", text) is not None
        why = " (they are packed, perhaps pickled, and pickles are never opened)" if packed else ""
        raise RewardError(f"the tests are a text that is neither JSON nor Python{why}: {_ADVICE}")
    return Tests(script=_script([text], facts))


def _read_list(given: Sequence[Any], facts: _Row) -> Tests:
    cases, texts = list[Case](), list[str]()
    for number, test in enumerate(given):
        try:
            if isinstance(test, str) and test.lstrip()[:1] in ("{", "["):
                test = parse_value(test)
            if isinstance(test, str):
                texts.append(test)
            elif isinstance(test, Mapping):
                text = is_assertion(test)
                if text is not None:
                    texts.append(text)
                else:
                    cases.append(read_case(test, facts.function, facts.entry))
            else:
                raise RewardError(f"is a {type(test).__name__}: {_ADVICE}")
        except RewardError as error:
            raise RewardError(f"test {number + 1} {error}") from None
    typed = [test for test in given if isinstance(test, Mapping) and "output" in test]
    if len(typed) == len(cases):
        cases = _unwrapped(cases)
    return Tests(tuple(cases), _script(texts, facts) if texts else None)


def _read_mapping(given: Mapping[str, Any], facts: _Row, depth: int) -> Tests:
    said = {key: value for key, value in given.items() if value is not None}
    language = said.get("language")
    if isinstance(language, str) and language.strip().lower() not in _LANGUAGES:
        raise RewardError(f"the tests are for the language '{language}', and only Python is run")
    facts = _facts(said, facts.prompt, facts)
    for first, second in _PAIRS:
        if isinstance(said.get(first), (list, tuple)) and isinstance(said.get(second), (list, tuple)):
            own = function_of(said)
            if first == "inputs" or own is None:
                return _read_pairs(said, (first, second), own or facts.function)
    found = [_read(said[key], facts, depth + 1) for key in (*_LISTS, *_NESTED) if _is_there(said.get(key))]
    if not found and isinstance(said.get("test"), str):
        found = [_read_text(said["test"], facts, depth + 1)]
    return _joined(found) if found else _read_list([given], facts)


def _read_pairs(said: Mapping[str, Any], pair: tuple[str, str], function: str | None) -> Tests:
    """Inputs and outputs side by side, as APPS, TACO and CodeContests have them."""
    given, wanted = (said[key] for key in pair)
    if len(given) != len(wanted):
        raise RewardError(f"there are {len(given)} {pair[0]} and {len(wanted)} {pair[1]}")
    near = read_tolerance(said)
    cases = []
    for number, (one, other) in enumerate(zip(given, wanted, strict=True)):
        try:
            case = read_case({"input": one, "output": other} | _kind(said), function)
        except RewardError as error:
            raise RewardError(f"test {number + 1} {error}") from None
        if "fn" in case and other is None:
            case["expected"] = None
        cases.append(case | ({"near": near} if near else {}))
    return Tests(tuple(_unwrapped(cases)))


def _unwrapped(cases: Sequence[Case]) -> list[Case]:
    """Some data sets put every value that a function returns into a list of one: then either is right."""
    values = [case.get("expected") for case in cases]
    if not all(isinstance(value, (list, tuple)) and len(value) == 1 for value in values):
        return list(cases)
    return [case | {"or_expected": case["expected"][0]} for case in cases]


def _kind(said: Mapping[str, Any]) -> dict[str, Any]:
    return {key: said[key] for key in ("testtype", "type") if isinstance(said.get(key), str)}


def _script(texts: Sequence[str], facts: _Row) -> Script:
    try:
        return make_script(texts, facts.setup, facts.entry, facts.prompt)
    except RewardError as error:
        raise RewardError(f"the tests cannot be run: {error}") from None


def _joined(found: Sequence[Tests]) -> Tests:
    scripts = [tests.script for tests in found if tests.script is not None]
    script = scripts[0] if scripts else None
    for other in scripts[1:]:
        assert script is not None
        chunks, setup = (*script.chunks, *other.chunks), (*script.setup, *other.setup)
        script = Script(chunks, tuple(dict.fromkeys(setup)), script.entry, script.preamble)
    return Tests(tuple(case for tests in found for case in tests.cases), script)


def _facts(columns: Mapping[str, Any], prompt: str, before: _Row | None = None) -> _Row:
    """The function, the entry point and the setup that a row, or a mapping of tests, names."""
    function = function_of(columns) or function_of(_mapping(columns.get("metadata")))
    entry = function_of(columns, ("entry_point", "entry_func"))
    starter = columns.get("starter_code")
    if function is None and isinstance(starter, str):
        function = next(iter(reversed(_STARTER.findall(starter))), None)
    setup: list[str] = []
    for key in _SETUPS:
        value = columns.get(key)
        if isinstance(value, (list, tuple)):
            setup += [text for text in value if isinstance(text, str)]
        elif isinstance(value, str):
            setup.append(value)
    setup = [text for text in setup if text.strip()]
    if before is not None:
        function, entry = function or before.function, entry or before.entry
        setup = [*before.setup, *setup]
    return _Row(function, bare_name(entry or function) or "", prompt, tuple(setup))


def _mapping(value: Any) -> Mapping[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, Mapping) else {}


def _is_there(given: Any) -> bool:
    if given is None or (hasattr(given, "__len__") and len(given) == 0):
        return False
    return not isinstance(given, str) or bool(given.strip())


def _is_tests(name: str, given: Any) -> bool:
    """Whether a column with a common name holds tests: others use the same names for other things."""
    if not _is_there(given):
        return False
    if name == "reward_model":
        return isinstance(given, Mapping) and _is_tests("ground_truth", given.get("ground_truth"))
    if name in ("ground_truth", "test") and isinstance(given, str):
        return re.search(r"\bassert\b|\bassert[A-Z]|\binputs\b|\boutputs\b|\"fn|_case", given) is not None
    return True
