from __future__ import annotations

import asyncio

import pytest
import torch

from trimtab.errors import RewardError
from trimtab.rewards.adapters import FunctionReward, reward_from_file
from trimtab.types import Prompt, RewardResult, Sample

from .toy import sample


def values(reward, samples):
    """The values of the samples."""
    return [result.value for result in reward.score(samples)]


def test_trl_strings_and_columns():
    """R31: TRL's f(prompts, completions, **columns): strings, one list per column, None abstains."""
    seen = {}

    def f(prompts, completions, answer, **kwargs):
        seen.update(kwargs, prompts=prompts, completions=completions)
        return [None if a is None else float(c == a) for c, a in zip(completions, answer, strict=True)]

    rows = [
        sample("4", "2+2", answer="4", level=1),
        sample("5", "2+2", answer="4"),
        sample("6", "x", answer=None),
    ]
    assert values(FunctionReward(f), rows) == [1.0, 0.0, None]
    assert seen["prompts"] == ["2+2", "2+2", "x"]
    assert seen["completions"] == ["4", "5", "6"]
    assert seen["level"] == [1, None, None]
    assert seen["completion_ids"] == [[], [], []]
    assert seen["trainer_state"].global_step == 0
    assert seen["log_metric"]("a", 1.0) is None
    assert seen["log_extra"]("a", [1]) is None


def test_trl_conversational():
    """R31: rows given as messages are passed as messages, and completions as lists of one message."""

    def f(completions, prompts):
        return [
            len(p) + 10 * (c[0]["role"] == "assistant") + len(c[0]["content"])
            for p, c in zip(prompts, completions, strict=True)
        ]

    user = {"role": "user", "content": "hi"}
    by_flag = Sample(Prompt("0", (user,), is_conversational=True), "abc")
    by_turns = Sample(Prompt("1", ({"role": "system", "content": "s"}, user)), "abc")
    assert values(FunctionReward(f), [by_flag]) == [14.0]
    assert values(FunctionReward(f), [by_turns]) == [15.0]
    plain = Sample(Prompt("2", (user,)), "abc")
    assert values(FunctionReward(f, options={"conversational": True}), [plain]) == [14.0]

    def g(completions):
        return [len(c) for c in completions]

    assert values(FunctionReward(g, options={"conversational": False}), [by_turns]) == [3.0]


def test_the_functions_copy_of_a_message_is_its_own():
    """R31: a function that changes what it is given does not change the prompt."""

    def f(prompts, completions):
        prompts[0][0]["content"] = "changed"
        return [0.0]

    prompt = Prompt("0", ({"role": "user", "content": "hi"},), is_conversational=True)
    FunctionReward(f).score([Sample(prompt, "a")])
    assert prompt.text == "hi"


def test_async_functions_also_inside_a_running_loop():
    """R31: async reward functions run, with and without an event loop around them."""

    async def f(completions, **kwargs):
        await asyncio.sleep(0)
        return [float(len(c)) for c in completions]

    async def inside():
        return values(FunctionReward(f), [sample("ab")])

    assert values(FunctionReward(f), [sample("ab")]) == [2.0]
    assert asyncio.run(inside()) == [2.0]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda completions: [1.0][5], "IndexError"),
        (lambda completions: [1.0], "returned 1 values for 2 completions"),
        (lambda completions: 1.0, "returned a float"),
        (lambda completions: "ab", "returned a str"),
        (lambda completions: None, "returned a NoneType"),
        (lambda completions, missing: [1.0, 1.0], "needs 'missing', which is not a column"),
        (lambda completions: [float("nan"), "x"], "not a"),
    ],
)
def test_failures_abstain_with_the_reason(function, words):
    """R19: an exception, a wrong length, a missing column or a non-number abstains; nothing becomes 0."""
    results = FunctionReward(function, "mine").score([sample("a"), sample("b")])
    assert [result.value for result in results] == [None, None]
    assert all("reward mine" in result.error.lower() and words in result.error for result in results)


def test_an_async_exception_abstains():
    """R19: also where the function is async."""

    async def f(completions):
        raise OSError("no net")

    assert "OSError: no net" in FunctionReward(f).score([sample("a")])[0].error


def test_tensors_are_lists():
    """R31: a tensor with one value per completion is accepted."""
    assert values(FunctionReward(lambda completions: torch.tensor([1.0, 2.0])), [sample("a")] * 2) == [
        1.0,
        2.0,
    ]


def test_options_are_keyword_arguments():
    """R31: options of the recipe reach the function, and beat a column of the same name."""
    reward = FunctionReward(lambda completions, scale=1.0: [scale] * len(completions), options={"scale": 3.0})
    assert values(reward, [sample("a", scale=7)]) == [3.0]


def test_step_reaches_trainer_state():
    """R31: trainer_state.global_step is the step that the trainer told."""
    reward = FunctionReward(lambda completions, trainer_state: [trainer_state.global_step])
    reward.set_step(12)
    assert values(reward, [sample("a")]) == [12.0]


def test_verl():
    """R31: verl's compute_score, row by row, as number or dict; the nested ground truth is found."""

    def compute_score(data_source, solution_str, ground_truth, extra_info=None):
        if solution_str == "bad":
            raise ValueError("no")
        right = float(solution_str == ground_truth)
        return {"score": right, "length": len(solution_str)} if extra_info else right

    gold = {"data_source": "x", "reward_model": {"ground_truth": "4", "style": "rule"}}
    rows = [
        sample("4", **gold),
        sample("5", **gold),
        sample("bad", **gold),
        sample("4", **gold, extra_info={"i": 1}),
    ]
    results = FunctionReward(compute_score).score(rows)
    assert [result.value for result in results] == [1.0, 0.0, None, 1.0]
    assert results[3].parts == {"length": 1.0}
    assert "ValueError" in results[2].error


def test_verl_dict_without_score_abstains():
    """R19: a dict without a score is an error, not 0."""
    reward = FunctionReward(lambda data_source, solution_str, ground_truth: {"acc": 1.0})
    result = reward.score([sample("a", ground_truth="a")])[0]
    assert result.value is None
    assert "without 'score'" in result.error


def test_openrlhf():
    """R31: OpenRLHF's reward_func: queries are whole texts; a tensor or a dict with rewards comes back."""

    def reward_func(queries, prompts, labels):
        found = [float(q == p + str(label)) for q, p, label in zip(queries, prompts, labels, strict=True)]
        return torch.tensor(found)

    rows = [sample("4", "2+2=", label="4"), sample("5", "2+2=", label="4")]
    assert values(FunctionReward(reward_func), rows) == [1.0, 0.0]

    def as_dict(queries, prompts, labels, **kwargs):
        return {"rewards": reward_func(queries, prompts, labels), "scores": None}

    assert values(FunctionReward(as_dict), rows) == [1.0, 0.0]
    assert values(FunctionReward(lambda queries: {"scores": [1.0]}), rows[:1]) == [None]


def test_unknown_signature_is_refused_at_once():
    """R31: a function of no known form is refused when it is loaded, not during training."""
    with pytest.raises(RewardError, match="no known form"):
        FunctionReward(lambda text: 1.0, "mine")


@pytest.fixture
def file(tmp_path):
    """A user's file, and a module beside it that it imports."""
    (tmp_path / "beside_it.py").write_text("BONUS = 0.5\n")
    path = tmp_path / "mine.py"
    path.write_text(
        "from beside_it import BONUS\n"
        "SIZE = 3\n"
        "def polite(prompts, completions, **kwargs):\n"
        "    return [BONUS + ('please' in c) for c in completions]\n"
        "class Long:\n"
        "    name = 'long'\n"
        "    def __init__(self, least=2):\n"
        "        self.least = least\n"
        "    def score(self, samples):\n"
        "        return [len(s.completion) >= self.least for s in samples]\n"
    )
    return path


def test_from_file(file):
    """R31: FILE.py:function runs unmodified, with imports beside it; a class with score does too."""
    reward = reward_from_file(f"{file}:polite")
    assert reward.name == "polite"
    assert values(reward, [sample("please"), sample("no")]) == [1.5, 0.5]
    long = reward_from_file(f"{file}:Long", {"least": 4})
    assert long.score([sample("abc")]) == [False]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("{}/mine.py:polit", "has no function 'polit' (did you mean 'polite'?)"),
        ("{}/mine.py", "does not say which function to use"),
        ("{}/mne.py:polite", "did you mean 'mine.py'?"),
        ("{}/nowhere/at_all.py:f", "There is no file"),
        ("{}/mine.py:SIZE", "is a int, which cannot be called"),
    ],
)
def test_missing_file_or_function(file, name, words):
    """R31: what is missing is one sentence with the nearest name."""
    with pytest.raises(RewardError) as caught:
        reward_from_file(name.format(file.parent))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("code", "words"), [("def f(:", "line 1"), ("import not_there", "ModuleNotFoundError")]
)
def test_a_file_that_does_not_run(tmp_path, code, words):
    """R31: a broken file is one sentence, not a traceback."""
    (tmp_path / "broken.py").write_text(code)
    with pytest.raises(RewardError, match="cannot be imported") as caught:
        reward_from_file(f"{tmp_path}/broken.py:f")
    assert words in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_a_file_in_utf_16(tmp_path, encoding):
    """bom-toml: as an editor on Windows saves it; the sentence says what to do."""
    (tmp_path / "wide.py").write_bytes("def f(completions): ...\n".encode(encoding))
    with pytest.raises(RewardError, match=r"wide\.py is .*UTF-16.*save it as UTF-8") as caught:
        reward_from_file(f"{tmp_path}/wide.py:f")
    assert "line None" not in str(caught.value)


def test_a_class_that_cannot_be_constructed(file):
    """R31: wrong options of a class are one sentence."""
    with pytest.raises(RewardError, match="cannot be constructed"):
        reward_from_file(f"{file}:Long", {"most": 4})


def test_nothing_to_score():
    """R31: the function is not called for no samples."""
    assert FunctionReward(lambda completions: 1 / 0).score([]) == []
    assert RewardResult(None).value is None
