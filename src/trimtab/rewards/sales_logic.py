"""The grader of ``task:sales_logic``: one final amount, date or plan, or nothing."""

from __future__ import annotations

import datetime
import re
from dataclasses import replace

from trimtab.errors import RewardError
from trimtab.rewards.final_number import final_number_reward
from trimtab.rewards.gold_column import column_of
from trimtab.rewards.one_answer import answers_of
from trimtab.rewards.rules import RuleReward
from trimtab.types import Sample

_ISO = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})", re.ASCII)
_ZH = re.compile(r"(\d{4})[ ]?年[ ]?(\d{1,2})[ ]?月[ ]?(\d{1,2})[ ]?[日号]", re.ASCII)
_PLAN = re.compile(r"(?:方案|plan|Plan)?[ ]?([A-Z])")
_TAGGED = re.compile(r"\s*<answer>([^<>]*)</answer>\s*", re.IGNORECASE)


def sales_logic_reward() -> RuleReward:
    """1 for the one right final answer to a problem of ``task:sales_logic``, else 0. Needs its columns.

    Money is graded as ``final_number``: one amount that the text commits to. A date is ``2026-03-01`` or
    2026年3月1日, a plan its letter; either alone, in a short sentence, or in ``<answer>`` tags.
    """
    money = final_number_reward("answer", "sales_logic")

    def rule(sample: Sample) -> bool:
        form, gold = column_of(sample, "form", "sales_logic"), column_of(sample, "answer", "sales_logic")
        if form == "money":
            tagged = _TAGGED.fullmatch(sample.completion)
            return bool(money.rule(replace(sample, completion=tagged.group(1)) if tagged else sample))
        if form not in ("date", "plan"):
            raise RewardError(f"Reward sales_logic: form = {form!r} of row {sample.prompt.id} is not known.")
        read = _date if form == "date" else _plan
        return any(read(answer) == gold for answer in answers_of(sample))

    return RuleReward("sales_logic", rule)


def _date(answer: str) -> str | None:
    """A date as ISO text, or None."""
    found = _ISO.fullmatch(answer.rstrip(".。")) or _ZH.fullmatch(answer.rstrip(".。"))
    if found is None:
        return None
    try:
        return str(datetime.date(*map(int, found.groups())))
    except ValueError:
        return None


def _plan(answer: str) -> str | None:
    found = _PLAN.fullmatch(answer.rstrip(".。"))
    return found.group(1) if found else None
