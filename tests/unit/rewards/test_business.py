"""Issue 4, R24: the sales limits as gates, by hand."""

from __future__ import annotations

import pytest

from trimtab.config import RewardSpec
from trimtab.errors import RewardError
from trimtab.rewards import build_reward
from trimtab.rewards.base import Reward
from trimtab.rewards.business import (
    discount_limit,
    no_forbidden_words,
    no_invented_price,
    no_personal_data,
    no_promise,
)
from trimtab.types import Prompt, RewardResult, Sample

PROMPT = Prompt(
    "0", ({"role": "user", "content": "A款299元，能便宜吗？我的电话是13800138000"},), {"prices": "199 元"}
)


def value(reward: Reward, text: str) -> float | None:
    """What one completion earns."""
    return reward.score([Sample(PROMPT, text)])[0].value


@pytest.mark.parametrize(
    ("reward", "kept", "broken"),
    [
        (
            no_invented_price(allowed=["1.2万元"], column="prices"),
            [
                "A款是299元。",
                "¥299",
                "只要 199 块",
                "12,000元一年",
                "共299.00元",
                "有3个版本，支持24小时",
                "",
            ],
            ["只要288元", "￥ 1", "两万元？不，3万元", "USD 299.5", "２８８元", "2\u200b88元", "5k yuan"],
        ),
        (
            discount_limit(10),
            ["9折", "九折", "9.5折", "九五折", "优惠10%", "5% off", "打折的事我帮您申请", "100%满意"],
            [
                "8折",
                "八五折",
                "7.5 折",
                "优惠 15%",
                "20% off",
                "半价",
                "discount of 11%",
                "减免50%",
                "免费送一年",
            ],
        ),
        (
            no_promise(["包退"]),
            ["效果因团队而异。", "保证金是500元", "我们会尽力", "you can expect support"],
            [
                "保证有效",
                "一定能赚",
                "绝对没问题",
                "稳赚",
                "100% 有效",
                "Guaranteed!",
                "risk-free",
                "不满意包退",
                "１００％",
            ],
        ),
        (
            no_personal_data(),
            ["请联系销售。", "您的电话13800138000，对吗？", "订单号 12345", "价格 1,250,000 元"],
            [
                "打给13900139000",
                "+86 139-0013-9000",
                "发到 a.b@c.com",
                "11010519491231002X",
                "6222 0212 3456 7890",
            ],
        ),
        (
            no_forbidden_words(),
            ["效果因团队而异。", "我们不骗您", "10000 份", ""],
            ["保证赚钱", "保证 赚钱", "１００％", "100 %", "竞品\n很差", "骗\u200b人", "垃圾"],
        ),
        (
            no_forbidden_words(["no risk", "Trash"]),
            ["art rashly", "risk", "nor is k"],
            ["No  Risk", "no\nrisk at all", "TRASH", "ｔｒａｓｈ"],
        ),
    ],
    ids=["price", "discount", "promise", "personal", "forbidden", "forbidden in English"],
)
def test_what_keeps_a_limit_and_what_breaks_it(reward: Reward, kept: list[str], broken: list[str]) -> None:
    """1 and 0; full-width digits and hidden characters change nothing."""
    assert [text for text in kept if value(reward, text) != 1.0] == []
    assert [text for text in broken if value(reward, text) != 0.0] == []


class Eager:
    """A reward that likes what is forbidden."""

    name = "eager"

    def score(self, samples: list[Sample]) -> list[RewardResult]:
        return [RewardResult(5.0 * sample.completion.count("保证") - 1.0) for sample in samples]


def test_a_gate_cannot_be_bought() -> None:
    """R24: below 0.5 the whole is the least of all, whatever else it earned; open, the gate adds nothing."""
    gated = build_reward([RewardSpec(name="length"), RewardSpec(name="no_promise", gate=True)])
    gated.components = ((Eager(), 1.0), gated.components[1])  # type: ignore[assignment]
    results = gated.score([Sample(PROMPT, text) for text in ("保证保证", "好的", "绝对会")])
    assert [result.value for result in results] == [-1.0, -1.0, -1.0]
    assert [result.parts["no_promise"] for result in results] == [0.0, 1.0, 0.0]


def test_gates_alone_and_gates_that_abstain() -> None:
    """Gates without a sum pay 1 when open; one that fails makes the sample abstain, it does not open."""
    alone = build_reward([RewardSpec(name="no_promise", gate=True)])
    assert [value(alone, text) for text in ("好的", "保证")] == [1.0, 0.0]
    broken = build_reward([RewardSpec(name="length"), RewardSpec(name="exact_match", gate=True)])
    assert value(broken, "好的") is None
    with pytest.raises(RewardError, match="percent = 200"):
        discount_limit(200)


BROKEN = {
    "no_invented_price": "只要288元",
    "discount_limit": "打8折",
    "no_promise": "保证有效",
    "no_personal_data": "打给13900139000",
    "no_forbidden_words": "竞品很差",
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("role", ["gate", "constraint"])
def test_every_limit_is_a_gate_and_a_constraint(name: str, role: str) -> None:
    """R24: each limit of the sales set closes as a gate, and as a constraint is a violation of 1."""
    limit = RewardSpec.model_validate({"name": name, role: True if role == "gate" else {"target": 0.1}})
    reward = build_reward([RewardSpec(name="length"), limit])
    kept, broken = reward.score([Sample(PROMPT, text) for text in ("好的", BROKEN[name])])
    assert kept.value == 1.0
    if role == "gate":
        assert (broken.value, reward.violations(broken.parts)) == (0.0, {})
    else:
        assert (broken.value, reward.violations(broken.parts)) == (1.0, {name: 1.0})
        assert reward.violations(kept.parts) == {name: 0.0}


def test_forbidden_words_need_words() -> None:
    """Style: an empty list would let everything through in silence."""
    with pytest.raises(RewardError, match="give `words`"):
        build_reward([RewardSpec(name="no_forbidden_words", options={"words": [" "]})])
