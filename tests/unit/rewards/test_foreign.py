"""Files written for TRL, verl and OpenRLHF run unmodified; the values are worked out by hand (R31)."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from trimtab.config import RewardSpec
from trimtab.rewards import build_reward, reward_from_file
from trimtab.types import Prompt, RewardResult, Sample

FOLDER = Path(__file__).parent / "foreign"


def rows(*completions: str, messages: bool = False, **columns: list[Any]) -> list[Sample]:
    """One sample per completion, with one value of each column."""
    user = ({"role": "user", "content": "What is 2+2?"},)
    return [
        Sample(
            Prompt(str(i), user, {k: v[i] for k, v in columns.items()}, is_conversational=messages),
            text,
            tuple(range(i + 1)),
        )
        for i, text in enumerate(completions)
    ]


def score(name: str, samples: list[Sample]) -> list[RewardResult]:
    return reward_from_file(f"{FOLDER}/{name}").score(samples)


def values(name: str, samples: list[Sample]) -> list[float | None]:
    results = score(name, samples)
    assert not [r.error for r in results if r.error]
    return [r.value for r in results]


def test_trl_functions() -> None:
    """R31: strings, token ids, columns, None, state: what TRL passes is what the functions get."""
    assert values("trl_plain.py:reward_len", rows("a", "abc")) == [1.0, 3.0]
    assert values("trl_plain.py:reward_ids", rows("a", "abc")) == [1.0, 2.0]
    boxed = rows(r"so \boxed{4}", "4", ground_truth=["4", "4"])
    assert values("trl_plain.py:against_ground_truth", boxed) == [1.0, 0.0]
    kinds = rows("4", "5", "4", task=["math", "math", "code"])
    assert values("trl_plain.py:math_only", kinds) == [1.0, -1.0, None]
    assert values("trl_plain.py:please", rows("please", "no")) == [1.0, 0.0]


def test_trl_conversational() -> None:
    """R31: rows given as messages make completions lists of one message."""
    texts = ("<think>2+2</think><answer>4</answer>", "4")
    assert values("trl_plain.py:format_reward", rows(*texts, messages=True)) == [1.0, 0.0]


def test_trl_state_and_logs() -> None:
    """R31: trainer_state.global_step is the step; log_extra and log_metric become parts, but texts."""
    reward = reward_from_file(f"{FOLDER}/trl_plain.py:later_is_stricter")
    assert [r.value for r in reward.score(rows("abc"))] == [1.0]
    reward.set_step(10)
    assert [r.value for r in reward.score(rows("abc"))] == [0.0]
    logged = score("trl_plain.py:with_logs", rows("4", "55", answer=["4", "5"]))
    assert [r.value for r in logged] == [1.0, 0.0]
    assert logged[0].parts == {"length": 1.0, "accuracy": 0.5}
    assert logged[1].parts == {"length": 2.0, "accuracy": 0.5}


def test_trl_async() -> None:
    """R31: coroutine functions and objects with an asynchronous call."""
    assert values("trl_async.py:slow_length", rows("a", "abc")) == [1.0, 3.0]
    assert values("trl_async.py:remote", rows("a", "")) == [0.5, None]


def test_several_at_once() -> None:
    """R31, R19: TRL's list of functions is rl.rewards; a row that one leaves out counts for the others."""
    names = ("trl_plain.py:math_only", "trl_plain.py:reward_len", "trl_async.py:slow_length")
    reward = build_reward(
        [RewardSpec(name=f"{FOLDER}/{name}", weight=w) for name, w in zip(names, (1, 2, 3), strict=True)]
    )
    assert [r.value for r in reward.score(rows("4", "44", task=["math", "code"]))] == [1 + 2 + 3, 4 + 6]


@pytest.mark.peer
def test_what_trl_itself_passes(tmp_path: Path) -> None:
    """R31: the arguments of the installed TRL's reward call are those that a function gets here."""
    found = find_spec("trl")
    if found is None or found.origin is None:
        pytest.skip("TRL is not installed")
    source = (Path(found.origin).parent / "trainer" / "grpo_trainer.py").read_text()
    assert (
        "prompts=prompts, completions=completions, completion_ids=completion_ids_list, **reward_kwargs"
        in source
    )
    theirs = set(re.findall(r'(?<!row_)reward_kwargs\["(\w+)"\]', source))
    assert {"trainer_state", "log_extra", "log_metric"} <= theirs
    (tmp_path / "see.py").write_text(
        "def see(**kwargs):\n    see.keys = set(kwargs)\n    return [0.0] * len(kwargs['completions'])\n"
    )
    reward = reward_from_file(f"{tmp_path}/see.py:see")
    reward.score(rows("a", level=[1], prompt=["p"], completion=["c"]))
    ours = reward.function.keys  # type: ignore[attr-defined]
    # Environments are TRL's own sampling loop, which is not here.
    assert ours == (theirs - {"environments"}) | {"prompts", "completions", "completion_ids", "level"}


def test_verl_functions() -> None:
    """R31: compute_score with and without extra_info, a float or a dict, per row or batched, also async."""
    gold = {"reward_model": [{"ground_truth": "4", "style": "rule"}] * 3, "data_source": ["openai/gsm8k"] * 3}
    assert values("verl_plain.py:compute_score", rows("#### 4", "#### 5", "4", **gold)) == [1.0, 0.1, 0.0]
    info = [{"split": "train", "index": i} for i in (7, 8)]
    told = rows("4", "5", ground_truth=["4", "4"], extra_info=info)
    found = score("verl_plain.py:with_dict", told)
    assert [r.value for r in found] == [1.0, -1.0]
    assert found[1].parts == {"acc": 0.0, "index": 8.0}
    assert values("verl_plain.py:short", told) == [1.0, 0.0]
    assert values("verl_plain.py:judged", told) == [1.0, 1.0]
    batch = score("verl_plain.py:batched", told)
    assert [(r.value, r.parts) for r in batch] == [(1.0, {"index": 7.0}), (0.0, {"index": 8.0})]


def test_a_verl_row_that_fails_costs_one_row() -> None:
    """R19: an exception on one row abstains there, with the reason, and not on the next."""
    mixed = rows("#### 4", "#### 4", ground_truth=["4", "4"], data_source=["openai/gsm8k", "other"])
    first, second = score("verl_plain.py:compute_score", mixed)
    assert first.value == 1.0
    assert second.value is None and "NotImplementedError" in str(second.error)


def test_openrlhf_functions() -> None:
    """R31: tensors, lists, and dicts whose scores and extra_logs become parts; queries hold the prompt."""
    gold = rows("4", "5", label=["4", "4"])
    found = score("openrlhf_plain.py:reward_func", gold)
    assert [(r.value, r.parts) for r in found] == [
        (1.0, {"scores": 0.5, "length": 9.0}),
        (0.0, {"scores": 0.0, "length": 9.0}),
    ]
    assert values("openrlhf_plain.py:tensor_func", gold) == [13.0, 13.0]
    assert values("openrlhf_plain.py:list_func", gold) == [1.0, 0.0]
