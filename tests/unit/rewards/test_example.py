from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

from trimtab.config import RewardSpec
from trimtab.evals.judges import build_judge
from trimtab.rewards import build_reward
from trimtab.rewards.user_file import load_from_file

from .toy import sample

FILE = Path(__file__).parents[3] / "examples" / "custom_reward.py"


def test_the_example_is_true():
    """R31: the values in the example's docstrings are what its functions return."""
    load_from_file(f"{FILE}:is_brief")
    module = importlib.import_module(load_from_file(f"{FILE}:is_brief").__module__)
    outcome = doctest.testmod(module)
    assert outcome.attempted >= 4
    assert outcome.failed == 0


def test_the_example_runs_as_reward_and_judge():
    """R31: every function of the example works under the name that its text gives."""
    specs = [
        RewardSpec(name=f"{FILE}:names_the_customer"),
        RewardSpec(name=f"{FILE}:is_brief", options={"limit": 2}),
        RewardSpec(name=f"{FILE}:asks_a_service"),
    ]
    named, unnamed = build_reward(specs).score([sample("王您好", "我姓王"), sample("您好", "多少钱")])
    assert named.value == 1.0 + 0.5 + 1.0
    assert unnamed.value == 1.0 + 1.0
    prompt = sample("", "多少钱").prompt
    assert build_judge(f"{FILE}:quality", rewards=specs).compare(prompt, "99？", "99") == 1.0


@pytest.mark.parametrize(
    "module",
    [
        "rewards.base",
        "rewards.sales",
        "rewards.rules",
        "rewards.combine",
        "rewards.final_number",
        "rewards.registry",
        "rewards.user_file",
        "evals.pass_at_k",
        "evals.diversity",
        "evals.judges",
        "evals.verdict",
        "evals.report",
        "tasks.arithmetic",
        "tasks.registry",
    ],
)
def test_docstring_examples(module):
    """Style: the examples in docstrings are true."""
    outcome = doctest.testmod(importlib.import_module(f"trimtab.{module}"))
    assert outcome.failed == 0
