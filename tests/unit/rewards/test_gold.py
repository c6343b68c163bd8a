"""Gold answers must earn full marks before a run starts."""

from __future__ import annotations

import pytest

from trimtab.config import RewardSpec
from trimtab.errors import DataError
from trimtab.rewards.combine import CombinedReward
from trimtab.rewards.gold import check_gold, refuse_bad_gold
from trimtab.rewards.registry import build_reward
from trimtab.rewards.rules import exact_match, length
from trimtab.types import Prompt


def row(number: int, **columns: object) -> Prompt:
    return Prompt(str(number), ({"role": "user", "content": f"q{number}"},), columns)


def reward_of(*names: str) -> CombinedReward:
    return build_reward([RewardSpec(name=name) for name in names])


def test_rows_that_fail_are_named_with_gold_and_reason() -> None:
    """Threats: file, row, gold and reason; a row without a gold answer is one that fails."""
    rows = [row(0, answer="4"), row(1, answer="about 5"), row(2)]
    with pytest.raises(DataError) as caught:
        refuse_bad_gold(reward_of("final_number"), rows, "sums.jsonl")
    said = str(caught.value)
    assert "2 gold answers of sums.jsonl do not earn 1 (3 rows)" in said
    assert "row 1, final_number, gold 'about 5': Reward final_number: 'answer' of row 1" in said
    assert "row 2, final_number, gold '': Reward final_number needs the column 'answer'" in said
    assert "rl.gold_rows = 0" in said


def test_good_rows_pass_and_rewards_without_gold_are_not_asked() -> None:
    """Threats: exact match, final number and length: only the first two have a gold answer."""
    rows = [row(i, answer=str(i)) for i in range(3)]
    report = check_gold(reward_of("exact_match", "arithmetic", "length"), rows)
    assert (report.failures, report.rewards) == ((), ("exact_match", "arithmetic"))
    refuse_bad_gold(reward_of("length"), [row(0)], "x")


def test_mathematics_by_its_own_worker() -> None:
    """Threats: gold answers go through the comparison that training uses; one that cannot win fails."""
    pytest.importorskip("sympy")
    golds = ["42", r"\frac{1}{2}", "3 cm", "1 or 2", r"\{1,2\}", "-5", "maybe"]
    report = check_gold(reward_of("math"), [row(i, answer=gold) for i, gold in enumerate(golds)])
    assert [(f.row, f.reason) for f in report.failures] == [("6", "it earns 0")]


def test_code_by_its_solution_column() -> None:
    """Threats: a `solution` must pass the row's tests, fenced or not; a row without one is not asked."""
    reward = reward_of_code()
    good, tests = "def f(x):\n    return 2 * x", [{"fn": "f", "args": [2], "expected": 4}]
    rows = [
        row(0, tests=tests, solution=good),
        row(1, tests=tests, solution=f"Like this:\n```python\n{good}\n```"),
        row(2, tests=tests, solution="def f(x):\n    return x"),
        row(3, tests=tests),
    ]
    assert [failure.row for failure in check_gold(reward, rows).failures] == ["2"]


def reward_of_code() -> CombinedReward:
    from trimtab.errors import RewardError

    try:
        return reward_of("code")
    except RewardError as error:
        pytest.skip(str(error))


def test_a_sample_of_many_rows_is_the_same_each_time_and_said() -> None:
    """Threats: bounded cost; which rows are drawn depends on the seed alone, and their number is told."""
    reward = CombinedReward([(exact_match(), 1.0), (length(), 1.0)])
    rows = [row(i, answer="a" if i % 2 else "") for i in range(100)]
    first, again = (check_gold(reward, rows, limit=10, seed=3) for _ in range(2))
    assert first == again
    assert (first.num_checked, first.scope) == (10, "10 of 100 rows, drawn at random")
    assert 0 < len(first.failures) < 10
    assert check_gold(reward, rows, limit=10, seed=4).failures != first.failures
    assert check_gold(reward, rows, limit=0).failures == ()
