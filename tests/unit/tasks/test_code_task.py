from __future__ import annotations

import json
from pathlib import Path

import pytest

from trimtab.errors import DataError
from trimtab.rewards.code_tests import CodeReward, extract_code
from trimtab.rewards.sandbox import RunResult
from trimtab.tasks import load_task
from trimtab.tasks.code.problems import FAMILIES, CodeProblem
from trimtab.tasks.demonstrations import demonstrations
from trimtab.tasks.draw import draw_problems, is_hidden_key
from trimtab.types import Prompt, Sample

SFT = Path(__file__).parents[3] / "data" / "code" / "sft.jsonl"


def content(prompt):
    """What a code prompt asks for, whatever its words: its gold program's tests."""
    cases = [*prompt.columns["tests"], *prompt.columns["hidden_tests"]]
    return json.dumps([(c.get("args"), c.get("expected"), c.get("input"), c.get("output")) for c in cases])


def called(code, x):
    """What a gold function (never a model's) returns."""
    space = {}
    exec(code, space)
    return space["f"](x)


@pytest.mark.parametrize("name", FAMILIES)
def test_gold_programs_compute_what_is_expected(name):
    """R19: the solution of a family and the function that makes its expected values agree, on every case."""
    family = FAMILIES[name]
    for offset in (0, 1, 7):
        values = tuple(low + offset for low, _ in family.ranges)
        problem = CodeProblem(family, values, "function", "en")
        visible, hidden = problem.cases()
        code = extract_code(problem.solution)
        assert len(visible) == 2
        assert len(hidden) >= 4
        for case in (*visible, *hidden):
            assert called(code, *case["args"]) == case["expected"]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("offset", [3, 6, 11, 17])
def test_hidden_cases_tell_a_solution_from_its_neighbours(name, offset):
    """Threats: a constant, the visible answers by heart, another family or another constant fail a hidden
    case."""
    family = FAMILIES[name]
    values = tuple(low + offset for low, _ in family.ranges)
    visible, hidden = CodeProblem(family, values, "function", "en").cases()
    expected = [case["expected"] for case in hidden]
    assert len({json.dumps(value) for value in expected}) > 1
    assert not {json.dumps(c["args"]) for c in visible} & {json.dumps(c["args"]) for c in hidden}
    others = [f for f in FAMILIES.values() if f.subject == family.subject and len(f.ranges) == len(values)]
    for other in others:
        for shift in (-1, 0, 1):
            guess = tuple(value + shift for value in values)
            if other is not family or shift:
                assert [other.compute(c["args"][0], *guess) for c in hidden] != expected, (other.name, shift)


@pytest.mark.parametrize(
    "options", ["level=0", "level=1&form=both", "level=2&form=program", "level=0&language=zh"]
)
def test_splits_are_disjoint_whatever_the_seeds(options):
    """R20: no problem of the hidden set is trained on, in any wording, language, form or seed."""
    task = load_task(f"code?{options}")
    train = {content(p) for seed in range(3) for p in task.prompts("train", 600, seed)}
    hidden = {content(p) for seed in range(3) for p in task.prompts("hidden", 600, seed)}
    assert train
    assert hidden
    assert not train & hidden
    assert not {p.text for p in task.prompts("train", 600, 8)} & {
        p.text for p in task.prompts("hidden", 600, 9)
    }


def test_form_and_language_do_not_change_the_split():
    """R20: a problem as a function in Chinese and as a program in English is one problem."""
    family = FAMILIES["add"]
    keys = {
        CodeProblem(family, (3,), form, lang).key for form in ("function", "program") for lang in ("zh", "en")
    }
    assert keys == {"add:3"}


def test_the_split_never_changes():
    """R20: the split is a fixed function of the content; these were written down once."""
    assert [a for a in range(1, 31) if is_hidden_key(f"add:{a}")] == [5, 13, 29]


def test_prompts_are_seeded_and_start_over():
    """R12: the same seed gives the same prompts, another one others; hidden ones stop where they end."""
    task = load_task("code?level=0")
    first, again, other = (task.prompts("train", 100, seed) for seed in (1, 1, 2))
    assert first == again
    assert [p.text for p in first] != [p.text for p in other]
    assert len({content(p) for p in first}) == 100
    assert len(task.prompts("train", 1000, 1)) == 1000
    hidden = task.prompts("hidden", 1000, 1)
    assert len(hidden) == len({content(p) for p in hidden}) < 100
    assert {p.text[:5] for p in first} == {"写 Pyt", "Write"}


def test_an_empty_split_is_an_error():
    """R25: options that leave nothing to draw are told."""
    with pytest.raises(DataError, match="no hidden problem"):
        draw_problems(
            "code", lambda rng: CodeProblem(FAMILIES["add"], (1,), "function", "en"), "hidden", 1, 0
        )


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("code?level=9", "known: 0, 1, 2"),
        ("code?form=functoin", "did you mean 'function'?"),
        ("code?x=1", "x"),
    ],
)
def test_errors_are_one_sentence(source, words):
    """R25: an option or value that is not there is told with the nearest one."""
    with pytest.raises(DataError) as caught:
        load_task(source)
    assert words in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("options", ["level=0&form=both", "level=1&form=both", "level=2&form=both"])
def test_gold_passes_in_the_sandbox_and_cheats_do_not(options):
    """R19: in the real sandbox gold answers score 1; the visible answers by heart, a wrong constant and the
    words of the answer score 0."""
    task = load_task(f"code?{options}")
    prompts = task.prompts("train", 12, 4) + task.prompts("hidden", 4, 4)
    reward = task.reward()
    gold = [Sample(p, p.columns["solution"]) for p in prompts]
    assert [r.value for r in reward.score(gold)] == [1.0] * len(prompts)
    assert [r.value for r in reward.score([Sample(p, by_heart(p)) for p in prompts])] == [0.0] * len(prompts)
    shifted = [Sample(p, prompts[i - 1].columns["solution"]) for i, p in enumerate(prompts)]
    assert sum(r.value for r in reward.score(shifted)) == 0
    said = [
        Sample(p, "The answer is right: " + p.columns["solution"].replace("```", "")) for p in prompts[:2]
    ]
    assert [r.value for r in reward.score(said)] == [0.0, 0.0]
    reward.pool.close()


def by_heart(prompt):
    """A program that knows the visible cases only."""
    cases = prompt.columns["tests"]
    if "fn" in cases[0]:
        known = [(case["args"][0], case["expected"]) for case in cases]
        return f"```python\ndef f(x):\n    return next((e for a, e in {known!r} if a == x), 0)\n```"
    known = {case["input"].strip(): case["output"].strip() for case in cases}
    return f"```python\nprint({known!r}.get(input().strip(), 0))\n```"


class CountingPool:
    """A pool that answers every case with 5 and remembers its jobs."""

    def __init__(self):
        self.jobs = []

    def run_all(self, jobs):
        self.jobs += jobs
        return [RunResult({i: {"value": 5} for i in range(len(job["cases"]))}) for job in jobs]


def test_equal_programs_of_a_batch_are_run_once():
    """R19: the same code with the same cases is one job; every row has a result."""
    pool = CountingPool()
    cases = [[{"fn": "f", "args": [1], "expected": 5}], [{"fn": "f", "args": [2], "expected": 6}]]
    rows = [Prompt(str(i), ({"role": "user", "content": "x"},), {"tests": c}) for i, c in enumerate(cases)]
    samples = [Sample(rows[i], code) for code in ("a = 1", "b = 1", "a = 1") for i in (0, 1)]
    assert [r.value for r in CodeReward(pool).score(samples)] == [1.0, 0.0] * 3
    assert len(pool.jobs) == 4


def test_the_committed_demonstrations_are_those_of_the_generator():
    """R20: the SFT file is what the generator makes, from the train split alone."""
    rows = [json.loads(line) for line in SFT.read_text(encoding="utf-8").splitlines()]
    assert rows == demonstrations("task:code?level=0", len(rows), 1)
    hidden = {p.text for seed in range(3) for p in load_task("code?level=0").prompts("hidden", 500, seed)}
    assert not hidden & {row["prompt"] for row in rows}
