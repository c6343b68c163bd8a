"""Code that is run against tests: 1 when every case passes, in a sandbox that pays for nothing else.

What is expected stays out of the solution's sandbox: that one is given inputs and returns values or output,
and they are compared in this process, by plain types; tests that are programs are run in a sandbox of their
own (``code_exam.py``). A solution that exits, hangs, forges or floods has no result, and that is a failed
case. A sandbox that does not start is the machine's fault: the reward abstains, and so it does for a row
whose tests cannot be read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from trimtab.errors import RewardError
from trimtab.rewards.base import abstain_all, describe
from trimtab.rewards.code_blocks import defines, extract_code, only_function
from trimtab.rewards.code_cases import Case
from trimtab.rewards.code_exam import Examiner, ExamResult, wanted_of
from trimtab.rewards.code_formats import Tests, read_tests
from trimtab.rewards.code_imports import missing_imports
from trimtab.rewards.code_readings import other_readings
from trimtab.rewards.code_values import EXACT, decode_value, encode_value, is_same, is_same_output
from trimtab.rewards.sandbox import Limits, RunResult, SandboxPool, choose_level
from trimtab.types import Prompt, RewardResult, Sample


@dataclass(frozen=True, slots=True)
class _Job:
    """One solution with its tests."""

    code: str
    cases: tuple[Case, ...]  # the visible ones first
    num_visible: int
    tests: tuple[Tests, Tests]


class CodeReward:
    """Runs the code of a completion against the row's ``tests`` (and ``hidden_tests``).

    The forms of tests are those of ``code_formats.py``. The value is 1 when all pass, else 0; with
    ``partial`` the share that passes. Parts: ``visible`` and ``hidden``.
    """

    name = "code"

    def __init__(self, pool: SandboxPool, column: str = "tests", *, partial: bool = False) -> None:
        self.pool, self.column, self.partial = pool, column, partial

    def score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Return one result per sample, in order."""
        results: list[RewardResult | None] = [None] * len(samples)
        jobs: dict[int, _Job] = {}
        known: dict[int, tuple[Tests, Tests]] = {}  # of a prompt: a group shares it
        for row, sample in enumerate(samples):
            try:
                if id(sample.prompt) not in known:
                    known[id(sample.prompt)] = self._tests(sample.prompt)
                found = self._job(sample, known[id(sample.prompt)])
            except RewardError as error:
                results[row] = RewardResult(None, error=str(error))
                continue
            except Exception as error:  # a row may hold anything: it costs no other one its score
                told = f"reward code: row {sample.prompt.id} cannot be read: {describe(error)}"
                results[row] = RewardResult(None, error=told)
                continue
            if found is None:
                results[row] = RewardResult(0.0, {"visible": 0.0})
            else:
                jobs[row] = found
        for row, result in zip(jobs, self._judge_all(list(jobs.values())), strict=True):
            results[row] = result
            if result.error is not None:
                told = f"reward code: row {samples[row].prompt.id}: {result.error}"
                results[row] = RewardResult(None, error=told)
        return [result if result is not None else abstain_all(1, "not run")[0] for result in results]

    def gold_completion(self, prompt: Prompt) -> str | None:
        """The row's own solution in a fence; None where it has none. Its last block where it is fenced.

        It is ``solution``, HumanEval's ``canonical_solution`` after its prompt, or MBPP's ``code``.
        """
        columns = prompt.columns
        given = columns.get("solution", columns.get("canonical_solution"))
        if given is None and "test_list" in columns:
            given = columns.get("code")
        if given is None:
            return None
        code = extract_code(given, _wanted(columns)) if isinstance(given, str) else None
        if code is None:
            return str(given)
        code = _whole(code, prompt)
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", code)), default=0))
        return f"{fence}python\n{code}\n{fence}"

    @cached_property
    def _examiner(self) -> Examiner:
        return Examiner(self.pool)

    def _tests(self, prompt: Prompt) -> tuple[Tests, Tests]:
        return read_tests(prompt.columns, self.column, prompt.id, _prompt_code(prompt))

    def _job(self, sample: Sample, tests: tuple[Tests, Tests]) -> _Job | None:
        """What is to be run; None where the completion holds no code."""
        prompt, (visible, hidden) = sample.prompt, tests
        cases = tuple(_as_meant(case, sample.completion) for case in (*visible.cases, *hidden.cases))
        names = [case["fn"] for case in cases if case.get("fn")]
        for script in (visible.script, hidden.script):
            names += wanted_of(script) if script is not None else ()
        calls_one = any("fn" in case and case["fn"] is None for case in cases)
        code = extract_code(sample.completion, names or (_told_names(sample.completion) if calls_one else ()))
        if code is None:
            return None
        code = _whole(code, prompt)
        code = (missing_imports(code) if names or calls_one else "") + code
        if calls_one:
            name = only_function(code, prompt.text)
            if name is None:
                return None
            cases = tuple(case | {"fn": name} if case.get("fn", "") is None else case for case in cases)
        return _Job(code, cases, len(visible.cases), tests)

    def _judge_all(self, jobs: Sequence[_Job]) -> list[RewardResult]:
        with_cases = [job for job in jobs if job.cases]
        passed = dict(zip(map(id, with_cases), self._try_cases(with_cases), strict=True))
        scripts = {
            (script, job.code): None
            for job in jobs
            for script in (job.tests[0].script, job.tests[1].script)
            if script is not None and not isinstance(passed.get(id(job)), str)
        }
        exams = dict(zip(scripts, self._examiner.run_all(list(scripts)) if scripts else (), strict=True))
        return [self._judge(job, passed.get(id(job), []), exams) for job in jobs]

    def _judge(self, job: _Job, passed: list[bool] | str, exams: Mapping[Any, ExamResult]) -> RewardResult:
        if isinstance(passed, str):
            return RewardResult(None, error=passed)
        shares: list[list[bool]] = [passed[: job.num_visible], passed[job.num_visible :]]
        for which in (0, 1):
            exam = exams.get((job.tests[which].script, job.code))
            if exam is not None and exam.fault is not None:
                return RewardResult(None, error=f"its tests cannot be run: {exam.fault}")
            shares[which] += exam.verdicts if exam is not None else ()
        every = [*shares[0], *shares[1]]
        names = ("visible", "hidden")
        parts = {
            name: sum(share) / len(share) for name, share in zip(names, shares, strict=True) if len(share)
        }
        value = sum(every) / len(every) if self.partial else float(all(every))
        return RewardResult(value, parts)

    def _try_cases(self, jobs: Sequence[_Job]) -> list[list[bool] | str]:
        """Which cases pass, or the fault of the machine; what fails is tried in its other readings."""
        found = self._run_cases([(job.code, job.cases) for job in jobs])
        again = [
            (number, reading)
            for number, (job, (passed, replies)) in enumerate(zip(jobs, found, strict=True))
            if not isinstance(passed, str) and not all(passed)
            for reading in other_readings(job.cases, replies)
        ]
        others = self._run_cases([(jobs[number].code, cases) for number, cases in again])
        verdicts = [passed for passed, _ in found]
        for (number, _), (passed, _) in zip(again, others, strict=True):
            if not isinstance(passed, str) and sum(passed) > sum(verdicts[number]):  # type: ignore[arg-type]
                verdicts[number] = passed
        return verdicts

    def _run_cases(
        self, jobs: Sequence[tuple[str, Sequence[Case]]]
    ) -> list[tuple[list[bool] | str, Mapping[int, Mapping[str, Any]]]]:
        told = [{"code": code, "cases": [_question(case) for case in cases]} for code, cases in jobs]
        return [
            (
                f"the sandbox failed ({outcome.fault})"
                if outcome.fault is not None
                else [passes(case, outcome.replies.get(index)) for index, case in enumerate(cases)],
                outcome.replies,
            )
            for (_, cases), outcome in zip(jobs, self._run_all(told), strict=True)
        ]

    def _run_all(self, jobs: Sequence[Mapping[str, Any]]) -> list[RunResult]:
        """One result per job; the same code with the same cases is run once. A group often repeats itself."""
        keys = [json.dumps(job, sort_keys=True) for job in jobs]
        different = dict(zip(keys, jobs, strict=True))
        outcomes = dict(zip(different, self.pool.run_all(list(different.values())), strict=True))
        return [outcomes[key] for key in keys]


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


def passes(case: Mapping[str, Any], reply: Mapping[str, Any] | None) -> bool:
    """Whether what came out is what is expected; no reply, or an error, is not."""
    if reply is None or "error" in reply:
        return False
    near = case.get("near")
    if "fn" not in case:
        output = reply.get("output")
        return isinstance(output, str) and is_same_output(case["output"], output, near)
    if "value" not in reply:
        return False
    found, right = decode_value(reply["value"]), [case["expected"]]
    right += [case["or_expected"]] if "or_expected" in case else []
    return any(is_same(expected, found, near or EXACT) for expected in right)


def _question(case: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a case that enters the sandbox."""
    if "fn" not in case:
        return {"input": case["input"]}
    told = {"fn": case["fn"], "args": [encode_value(item) for item in case["args"]]}
    named = {name: encode_value(item) for name, item in case.get("kwargs", {}).items()}
    return told | ({"kwargs": named} if named else {})


def _as_meant(case: Case, completion: str) -> Case:
    """A text such as ``add(1, 2)`` is a call where the completion defines that function, else it is read."""
    other = case.get("as_call")
    return other if other is not None and defines(completion, other["fn"]) else case


def _wanted(columns: Mapping[str, Any]) -> list[str]:
    entry = columns.get("entry_point")
    return [entry] if isinstance(entry, str) else []


def _told_names(completion: str) -> list[str]:
    """What a completion defines, where its row does not say what is asked for."""
    return re.findall(r"^[ \t>]*(?:async[ \t]+)?def[ \t]+(\w+)", completion, re.MULTILINE)


def _prompt_code(prompt: Prompt) -> str:
    """The code that a prompt begins, as HumanEval's do: all of it, or its block."""
    text = prompt.text
    if "```" not in text:
        return text
    return extract_code(text, _wanted(prompt.columns)) or text


def _whole(code: str, prompt: Prompt) -> str:
    """The prompt's code before a completion that only goes on with it."""
    names = _wanted(prompt.columns)
    begun = _prompt_code(prompt)
    if not names or defines(code, names[0]) or not defines(begun, names[0]):
        return code
    first, *rest = code.strip("\n").split("\n")
    if not all(line[:1] in ("", " ", "\t") for line in rest):
        return code
    if first[:1] not in (" ", "\t"):  # whoever wrote it stripped the whole text
        first = f"    {first}"
    return "\n".join([begun.rstrip(), first, *rest])
