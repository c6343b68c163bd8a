"""Generators of sales problems: a random stream and a level in, a problem with its one right answer out.

Prices are whole yuan, so a percentage makes whole cents: totals are computed in cents and are exact.
"""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable
from dataclasses import dataclass

LEVELS = (0, 1, 2)
_FORMATS = {
    "money": ("只回答金额，如 128.50。", "Answer with the amount alone, such as 128.50."),
    "date": ("只回答日期，如 2026-03-01。", "Answer with the date alone, such as 2026-03-01."),
    "plan": ("只回答方案的字母，如 A。", "Answer with the plan's letter alone, such as A."),
}
_WEEKDAYS = ("星期一", "星期二", "星期三", "星期四", "星期五", "星期六", "星期日")


@dataclass(frozen=True, slots=True)
class SalesProblem:
    """A problem in both languages. ``key`` is its content: the numbers, without wording and language."""

    kind: str  # a key of GENERATORS
    form: str  # money, date or plan: how the answer is read
    key: str
    zh: str
    en: str
    answer: str

    def text(self, language: str) -> str:
        """The prompt: the question, and the form of the answer."""
        zh, en = _FORMATS[self.form]
        return f"{self.zh}{zh}" if language == "zh" else f"{self.en} {en}"


def discount_total(rng: random.Random, level: int) -> SalesProblem:
    """Total price: units at a discount; from level 1 money off above a threshold, at level 2 delivery too."""
    price = rng.randint(5, 99 if level == 0 else 399) * 10  # yuan
    count = rng.randint(1, 5 if level == 0 else 20)
    percent = rng.choice([10, 20, 30, 50] if level == 0 else [5, 10, 15, 20, 25, 30, 40])
    total = price * count * (100 - percent)  # cents
    zh = f"单价 {price} 元，买 {count} 件，打{_tenths(percent)}折"
    en = f"The unit price is {price} yuan. A customer buys {count} at {percent}% off"
    key = f"discount_total:{price}:{count}:{percent}"
    if level >= 1:
        threshold, cut = rng.randint(2, 30) * 100, rng.randint(1, 9) * 10
        zh += f"，折后满 {threshold} 元再减 {cut} 元"
        en += f"; after the discount, {cut} yuan come off if it is {threshold} yuan or more"
        key += f":{threshold}:{cut}"
        total -= cut * 100 if total >= threshold * 100 else 0
    if level >= 2:
        fee, free = rng.randint(1, 6) * 5, rng.randint(3, 40) * 100
        zh += f"，最后不满 {free} 元收运费 {fee} 元"
        en += f"; then delivery costs {fee} yuan below {free} yuan"
        key += f":{fee}:{free}"
        total += fee * 100 if total < free * 100 else 0
    return SalesProblem(
        "discount_total", "money", key, f"{zh}。一共多少元？", f"{en}. What is the total?", _money(total)
    )


def delivery_date(rng: random.Random, level: int) -> SalesProblem:
    """Day of arrival: days after the order; from level 1 working days, at level 2 after a production time."""
    start = datetime.date(2026, 1, 1) + datetime.timedelta(days=rng.randrange(365))
    days = rng.randint(1, 9 if level == 0 else 15)
    key = f"delivery_date:{level}:{start}:{days}"
    shown = f"{start}（{_WEEKDAYS[start.weekday()]}）"
    english = f"{start} ({start:%A})"
    if level == 0:
        zh = f"{start} 下单，{days} 天后送达。哪天送达？"
        en = f"An order of {start} arrives {days} days later. On which date?"
        arrives = start + datetime.timedelta(days=days)
    elif level == 1:
        zh = f"{shown}下单，{days} 个工作日后送达，周六和周日不算。哪天送达？"
        en = f"An order of {english} arrives {days} working days later (Monday to Friday). On which date?"
        arrives = add_working_days(start, days)
    else:
        making = rng.randint(2, 20)
        key += f":{making}"
        zh = f"{shown}下单，生产 {making} 天（每天都算），再过 {days} 个工作日（周一到周五）送达。哪天送达？"
        en = (
            f"An order of {english} takes {making} days to make (every day counts), then {days} working days "
            "(Monday to Friday) to arrive. On which date?"
        )
        arrives = add_working_days(start + datetime.timedelta(days=making), days)
    return SalesProblem("delivery_date", "date", key, zh, en, str(arrives))


def plan_selection(rng: random.Random, level: int) -> SalesProblem:
    """The cheapest plan for a number of users: flat or per user, then both, at level 2 with a limit."""
    while True:
        users = rng.randint(3, 30 if level == 0 else 120)
        labels = "AB" if level == 0 else ("ABC" if level == 1 else "ABCD")
        plans = [_plan(rng, level) for _ in labels]
        costs = {
            label: base + each * users
            for label, (base, each, limit) in zip(labels, plans, strict=True)
            if limit is None or users <= limit
        }
        best = sorted(costs.values())[:2]
        if len(best) == 2 and best[0] < best[1]:
            break
    zh = "；".join(f"方案{x} {_plan_zh(*plan)}" for x, plan in zip(labels, plans, strict=True))
    en = "; ".join(f"plan {x} {_plan_en(*plan)}" for x, plan in zip(labels, plans, strict=True))
    answer = min(costs, key=lambda label: costs[label])
    return SalesProblem(
        "plan_selection",
        "plan",
        # The order of the plans is not part of the content.
        f"plan_selection:{users}:{sorted(map(str, plans))}",
        f"客户有 {users} 人。{zh}。哪个方案可用且最便宜？",
        f"A customer has {users} users. Per month: {en}. Which plan that can be used is the cheapest?",
        answer,
    )


GENERATORS: dict[str, Callable[[random.Random, int], SalesProblem]] = {
    "discount_total": discount_total,
    "delivery_date": delivery_date,
    "plan_selection": plan_selection,
}


def add_working_days(start: datetime.date, days: int) -> datetime.date:
    """The day that is ``days`` working days (Monday to Friday) after ``start``.

    Example:
        >>> add_working_days(datetime.date(2026, 1, 2), 1)  # a Friday
        datetime.date(2026, 1, 5)
    """
    while days:
        start += datetime.timedelta(days=1)
        days -= start.weekday() < 5
    return start


def _plan(rng: random.Random, level: int) -> tuple[int, int, int | None]:
    """Base price, price per user, and most users (None: no limit)."""
    base, each = rng.randint(0, 40) * 10, rng.randint(2, 40)
    if level == 0:
        return (0, each, None) if rng.random() < 0.5 else (base + 10, 0, None)
    return base, each, (rng.randint(1, 12) * 10 if level == 2 else None)


def _plan_zh(base: int, each: int, limit: int | None) -> str:
    parts = [f"每月 {base} 元" if base else "", f"每人 {each} 元" if each else ""]
    text = "加".join(part for part in parts if part)
    return f"{text}，最多 {limit} 人" if limit else text


def _plan_en(base: int, each: int, limit: int | None) -> str:
    parts = [f"{base} yuan" if base else "", f"{each} yuan per user" if each else ""]
    text = " plus ".join(part for part in parts if part)
    return f"{text}, for at most {limit} users" if limit else text


def _tenths(percent: int) -> str:
    """A discount as Chinese shops say it: 20 % off is 8 (tenths), 15 % off 8.5."""
    rest = 100 - percent
    return str(rest // 10) if rest % 10 == 0 else f"{rest // 10}.{rest % 10}"


def _money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"
