"""Code that is run against tests: 1 when every case passes, in a sandbox that pays for nothing else.

What is expected stays in this process: the sandbox is given inputs and returns values or output, and they are
compared here, by plain types. A solution that exits, hangs, forges or floods has no result, and that is a
failed case. A sandbox that does not start is the machine's fault: the reward abstains.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.errors import RewardError
from trimtab.rewards.base import abstain_all
from trimtab.rewards.sandbox import Limits, RunResult, SandboxPool, choose_level
from trimtab.types import Prompt, RewardResult, Sample

_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[ \t]*([\w+-]*)[^\n]*$", re.MULTILINE)
_PYTHON = {"", "python", "py", "python3"}
_MAX_CODE = 200_000  # characters
_MAX_CASES = 200


class CodeReward:
    """Runs the code of a completion against the row's ``tests`` (and ``hidden_tests``).

    A case is ``{"input": stdin, "output": stdout}`` or ``{"fn": name, "args": [...], "expected": value}``.
    The value is 1 when all cases pass, else 0; with ``partial`` the share that passes. Parts: ``visible``
    and ``hidden``.
    """

    name = "code"

    def __init__(self, pool: SandboxPool, column: str = "tests", *, partial: bool = False) -> None:
        self.pool, self.column, self.partial = pool, column, partial

    def score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Return one result per sample, in order."""
        results: list[RewardResult | None] = [None] * len(samples)
        jobs: list[tuple[int, list[Mapping[str, Any]], int]] = []
        told: list[Mapping[str, Any]] = []
        for row, sample in enumerate(samples):
            try:
                cases, visible = self._cases(sample)
            except RewardError as error:
                results[row] = RewardResult(None, error=str(error))
                continue
            code = extract_code(sample.completion)
            if code is None:
                results[row] = RewardResult(0.0, {"visible": 0.0})
                continue
            jobs.append((row, cases, visible))
            told.append({"code": code, "cases": [_question(case) for case in cases]})
        for (row, cases, visible), outcome in zip(jobs, self._run_all(told), strict=True):
            results[row] = self._judge(cases, visible, outcome)
        return [result if result is not None else abstain_all(1, "not run")[0] for result in results]

    def gold_completion(self, prompt: Prompt) -> str | None:
        """The row's ``solution`` in a fence; None where it has none. Its last block where it is fenced."""
        given = prompt.columns.get("solution")
        code = extract_code(given) if isinstance(given, str) else None
        if code is None:
            return None if given is None else str(given)
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", code)), default=0))
        return f"{fence}python\n{code}\n{fence}"

    def _run_all(self, jobs: Sequence[Mapping[str, Any]]) -> list[RunResult]:
        """One result per job; the same code with the same cases is run once. A group often repeats itself."""
        keys = [json.dumps(job, sort_keys=True) for job in jobs]
        different = dict(zip(keys, jobs, strict=True))
        outcomes = dict(zip(different, self.pool.run_all(list(different.values())), strict=True))
        return [outcomes[key] for key in keys]

    def _cases(self, sample: Sample) -> tuple[list[Mapping[str, Any]], int]:
        columns = sample.prompt.columns
        visible = check_cases(columns.get(self.column), self.column, sample.prompt.id)
        hidden: list[Mapping[str, Any]] = []
        if columns.get(f"hidden_{self.column}") is not None:
            hidden = check_cases(columns[f"hidden_{self.column}"], f"hidden_{self.column}", sample.prompt.id)
        return [*visible, *hidden], len(visible)

    def _judge(self, cases: Sequence[Mapping[str, Any]], visible: int, outcome: RunResult) -> RewardResult:
        if outcome.fault is not None:
            return RewardResult(None, error=f"reward code: the sandbox failed ({outcome.fault})")
        passed = [passes(case, outcome.replies.get(index)) for index, case in enumerate(cases)]
        parts = {"visible": sum(passed[:visible]) / visible}
        if visible < len(cases):
            parts["hidden"] = sum(passed[visible:]) / (len(cases) - visible)
        share = sum(passed) / len(cases)
        return RewardResult(share if self.partial else float(all(passed)), parts)


def code_reward(
    column: str = "tests",
    partial: bool = False,
    sandbox: str = "auto",
    workers: int = 2,
    seconds_per_case: float = 6.0,
    memory_mib: int = 512,
) -> CodeReward:
    """A ``CodeReward`` in the strongest sandbox of this machine, or the one that is named.

    Raises:
        RewardError: this machine cannot isolate, or a limit makes no sense.
    """
    if not (seconds_per_case > 0 and memory_mib >= 64 and workers >= 1):
        raise RewardError(
            f"Reward code: seconds_per_case = {seconds_per_case}, memory_mib = {memory_mib} and "
            f"workers = {workers} must be above 0, at least 64, and at least 1."
        )
    limits = Limits(
        seconds_per_case=float(seconds_per_case), seconds=5.0 * seconds_per_case, memory_mib=int(memory_mib)
    )
    return CodeReward(SandboxPool(choose_level(sandbox), limits, workers), column, partial=partial)


def extract_code(completion: str) -> str | None:
    """The last fenced Python block, or the whole text where there is no fence; None: nothing to run.

    A block that is not closed is no answer.

    Example:
        >>> extract_code("Here:\\n```python\\nprint(1)\\n```\\nDone.")
        'print(1)\\n'
    """
    blocks, opened = list[str](), None
    for fence in _FENCE.finditer(completion):
        if opened is None:
            opened = fence
        elif fence.group(1)[0] == opened.group(1)[0] and len(fence.group(1)) >= len(opened.group(1)):
            if fence.group(2):
                continue  # only a bare fence closes
            if opened.group(2).lower() in _PYTHON:
                blocks.append(completion[opened.end() + 1 : fence.start()])
            opened = None
    if opened is not None:
        return None
    code = blocks[-1] if blocks else ("" if _FENCE.search(completion) else completion)
    return code if code.strip() and len(code) <= _MAX_CODE and "\0" not in code else None


def check_cases(given: Any, column: str, row: str) -> list[Mapping[str, Any]]:
    """The cases of a row, checked.

    Raises:
        RewardError: there are none, or one is neither of the two forms.
    """
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            given = None
    if not isinstance(given, (list, tuple)) or not 0 < len(given) <= _MAX_CASES:
        raise RewardError(
            f"Reward code needs the column '{column}' of row {row} to be a list of 1 to {_MAX_CASES} tests."
        )
    for case in given:
        talks = isinstance(case, Mapping) and isinstance(case.get("input"), str)
        calls = isinstance(case, Mapping) and isinstance(case.get("fn"), str)
        is_whole = (talks and isinstance(case.get("output"), str)) or (
            calls and isinstance(case.get("args"), (list, tuple)) and "expected" in case
        )
        if not is_whole:
            raise RewardError(
                f'Reward code: a test of row {row} is neither {{"input": …, "output": …}} nor '
                '{"fn": …, "args": […], "expected": …}.'
            )
    return list(given)


def _question(case: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a case that enters the sandbox."""
    if "fn" in case:
        return {"fn": case["fn"], "args": list(case["args"])}
    return {"input": case["input"]}


def passes(case: Mapping[str, Any], reply: Mapping[str, Any] | None) -> bool:
    """Whether what came out is what is expected; no reply, or an error, is not."""
    if reply is None or "error" in reply:
        return False
    if "fn" in case:
        return "value" in reply and is_same(case["expected"], _decode(reply["value"]))
    output = reply.get("output")
    return isinstance(output, str) and _lines(output) == _lines(case["output"])


def _lines(text: str) -> list[str]:
    """Lines without white space at their ends, and without empty ones at the end of the text."""
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


class _Set(list[Any]):
    """The members of a set, in no order."""


def _decode(value: Any, depth: int = 0) -> Any:
    """A value as the guest writes it: dicts and sets are wrapped, so that neither can be mistaken."""
    if depth > 50:
        return math.nan  # equals nothing
    if isinstance(value, list):
        return [_decode(item, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"set"} and isinstance(value["set"], list):
        return _Set(_decode(item, depth + 1) for item in value["set"])
    pairs = value.get("dict")
    if set(value) != {"dict"} or not isinstance(pairs, list):
        return math.nan
    found = {}
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2) or type(pair[0]) not in (str, int):
            return math.nan
        found[str(pair[0])] = _decode(pair[1], depth + 1)  # JSON has no other keys than texts
    return found


def is_same(expected: Any, found: Any) -> bool:
    """Equality of plain values: booleans are no numbers, floats within 1e-9, tuples lists, sets unordered.

    Example:
        >>> is_same([1, 2.0], [1, 2]), is_same(1, True), is_same(0.3, 0.1 + 0.2)
        (True, False, True)
    """
    if isinstance(expected, bool) or isinstance(found, bool) or expected is None or found is None:
        return type(expected) is type(found) and expected == found
    if isinstance(expected, (int, float)) and isinstance(found, (int, float)):
        if isinstance(expected, int) and isinstance(found, int):
            return expected == found
        try:
            return math.isclose(expected, found, rel_tol=1e-9, abs_tol=1e-12)
        except OverflowError:
            return False
    if isinstance(expected, str) or isinstance(found, str):
        return isinstance(expected, str) and isinstance(found, str) and expected == found
    if isinstance(expected, (list, tuple)) and isinstance(found, list):
        if len(expected) != len(found):
            return False
        if isinstance(found, _Set):
            return _is_permutation(list(expected), list(found))
        return all(is_same(one, other) for one, other in zip(expected, found, strict=True))
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        return set(expected) == set(found) and all(
            is_same(value, found[key]) for key, value in expected.items()
        )
    return False


def _is_permutation(expected: list[Any], found: list[Any]) -> bool:
    for item in expected:
        place = next((at for at, other in enumerate(found) if is_same(item, other)), None)
        if place is None:
            return False
        del found[place]
    return not found
