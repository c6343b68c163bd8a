from __future__ import annotations

import datetime
import random
import re

import pytest

from trimtab.errors import DataError
from trimtab.rewards.sales_logic import sales_logic_reward
from trimtab.tasks import load_task
from trimtab.tasks.sales_logic.problems import (
    GENERATORS,
    LEVELS,
    add_working_days,
    delivery_date,
    discount_total,
    plan_selection,
)
from trimtab.types import Prompt, Sample


def graded(form, answer, *texts, question="?"):
    """The values of texts as answers."""
    row = Prompt("0", ({"role": "user", "content": question},), {"form": form, "answer": answer})
    return [result.value for result in sales_logic_reward().score([Sample(row, text) for text in texts])]


def numbers(text):
    return [int(n) for n in re.findall(r"\d+", text)]


def draws(generator, level, count=200):
    return [generator(random.Random(seed), level) for seed in range(count)]


def test_totals_are_right():
    """R19: computed here again, in another way, from the words of the problem."""
    for problem in draws(discount_total, 2):
        text = problem.en.replace("%", "")
        price, count, percent, cut, threshold, fee, free = numbers(text)
        total = price * count * (1 - percent / 100)
        total -= cut if total >= threshold else 0
        total += fee if total < free else 0
        assert float(problem.answer) == pytest.approx(total, abs=0.005)
        assert re.fullmatch(r"\d+\.\d\d", problem.answer)
    for problem in draws(discount_total, 0):
        price, count, percent = numbers(problem.en.replace("%", ""))
        assert float(problem.answer) == pytest.approx(price * count * (1 - percent / 100))


def test_a_discount_in_chinese_is_what_is_left():
    """R19: 打8折 is 20 % off, 打8.5折 is 15 % off."""
    for problem in draws(discount_total, 1):
        left = float(re.search(r"打([\d.]+)折", problem.zh).group(1))
        percent = int(re.search(r"at (\d+)% off", problem.en).group(1))
        assert left * 10 == pytest.approx(100 - percent)


def test_dates_are_right():
    """R19: hand-computed dates, and working days against a count of weekdays."""
    friday = datetime.date(2026, 3, 6)
    assert str(add_working_days(friday, 1)) == "2026-03-09"
    assert str(add_working_days(friday, 5)) == "2026-03-13"
    assert str(add_working_days(datetime.date(2026, 3, 7), 1)) == "2026-03-09"
    for problem in draws(delivery_date, 1):
        start, days = re.search(r"of (\S+) .* arrives (\d+) working", problem.en).groups()
        first, last = datetime.date.fromisoformat(start), datetime.date.fromisoformat(problem.answer)
        between = [first + datetime.timedelta(days=n) for n in range(1, (last - first).days + 1)]
        assert sum(day.weekday() < 5 for day in between) == int(days)
        assert last.weekday() < 5


def test_plans_are_right():
    """R19: the answer is the one cheapest plan that may be used."""
    for problem in draws(plan_selection, 2):
        users = int(re.search(r"has (\d+) users", problem.en).group(1))
        costs = {}
        for label, words in re.findall(r"plan ([A-D]) ([^;?]*?)(?=;|\. Which)", problem.en):
            base = re.match(r"(\d+) yuan(?! per)", words)
            each, limit = re.search(r"(\d+) yuan per", words), re.search(r"at most (\d+)", words)
            if users <= int(limit.group(1)):
                costs[label] = (int(base.group(1)) if base else 0) + users * int(each.group(1))
        best = min(costs.values())
        assert [label for label, cost in costs.items() if cost == best] == [problem.answer]


@pytest.mark.parametrize("level", LEVELS)
def test_gold_scores_one_and_others_score_nothing(level):
    """R19: every gold answer scores 1 alone, in a sentence and in tags; the neighbour's answer scores 0."""
    task = load_task(f"sales_logic?level={level}")
    reward = task.reward()
    for prompt in task.prompts("train", 150, 1) + task.prompts("hidden", 60, 1):
        gold = prompt.columns["answer"]
        right = [gold, f"<answer>{gold}</answer>", f"The answer is {gold}.", f"答案是{gold}。"]
        assert [r.value for r in reward.score([Sample(prompt, t) for t in right])] == [1.0] * 4, prompt
        wrong = [f"{gold} or {gold[:-1]}7", f"not {gold}", prompt.text, "", f"{gold}9", f"X{gold}"]
        assert [r.value for r in reward.score([Sample(prompt, t) for t in wrong])] == [0.0] * 6, prompt


def test_spellings_of_an_answer():
    """R19: 272 is 272.00; a date and a plan in Chinese words; nothing that hedges or lists."""
    assert graded("money", "272.00", "272", "272元", "共272.00元", "272.01", "272%", "27200") == [
        1,
        1,
        1,
        0,
        0,
        0,
    ]
    assert graded("date", "2026-03-09", "2026年3月9日", "2026-3-9", "3月9日", "2026-03-09 2026-03-10") == [
        1,
        1,
        0,
        0,
    ]
    assert graded("date", "2026-03-09", "2026-02-31") == [0]
    assert graded("plan", "B", "方案B", "Plan B", "B。", "A B", "AB", "A或B", "方案A、方案B") == [
        1,
        1,
        1,
        0,
        0,
        0,
        0,
    ]


def test_a_row_without_columns_abstains():
    """R19: what cannot be graded is left out, not 0."""
    row = Prompt("7", ({"role": "user", "content": "?"},), {"answer": "1", "form": "colour"})
    result = sales_logic_reward().score([Sample(row, "1")])[0]
    assert result.value is None
    assert "colour" in result.error
    assert sales_logic_reward().score([Sample(Prompt("7", row.messages), "1")])[0].value is None


@pytest.mark.parametrize("kind", [*GENERATORS, "all"])
def test_splits_are_disjoint_whatever_the_seeds(kind):
    """R20: a problem is in one split, in both languages and for every seed and order of the plans."""
    task = load_task(f"sales_logic?kind={kind}")
    texts = [{p.text for s in range(3) for p in task.prompts(split, 300, s)} for split in ("train", "hidden")]
    assert texts[0]
    assert texts[1]
    assert not texts[0] & texts[1]


def test_the_key_is_the_content():
    """R20: language is not part of the key, and the order of the plans is not either."""
    problem = plan_selection(random.Random(5), 1)
    assert problem.key.startswith("plan_selection:")
    assert len({generator(random.Random(3), 0).key for generator in GENERATORS.values()}) == 3


@pytest.mark.parametrize(
    "source", ["sales_logic?kind=plan", "sales_logic?level=7", "sales_logic?language=de"]
)
def test_errors_are_one_sentence(source):
    """R25: a value that is not there is told."""
    with pytest.raises(DataError, match="is not known"):
        load_task(source)
