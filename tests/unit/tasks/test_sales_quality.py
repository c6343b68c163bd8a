"""The judge of the win rate: sees content, not the form that the rule reward pays for."""

from __future__ import annotations

import ast
import random
from pathlib import Path

from trimtab.tasks import sales
from trimtab.tasks.sales.compose import FLAWS, Style, compose_answer, draw_style
from trimtab.tasks.sales.quality import find_product, find_situation, judge, quality

PROMPT = "你好，云帆CRM多少钱一个账号？"
GOOD = "云帆CRM按账号计价，每个账号每月89元，没有隐藏费用。按年付再送一个月，账号可以随时加减。"
STUFFED = "您好！感谢，理解明白。\n1. 优势 价值 效果 节省\n2. **试用** 演示 预约 联系？\n- 欢迎了解。"


def test_good_answer_beats_each_named_failing() -> None:
    """Issue 2, item 10: each way of being worse costs quality."""
    worse = {
        "stuffed with R23 words": STUFFED,
        "other product": GOOD.replace("云帆CRM", "薪巢人事"),
        "wrong price": GOOD.replace("89", "59"),
        "off topic": "云帆CRM的合同12个月起签，可以提前解约，剩余费用按月退。可以开专票，范本我发您。",
        "pushy": GOOD + "名额只剩最后两个，赶紧定。",
        "repeated": "云帆CRM按账号计价，每个账号每月89元。" * 4,
        "garbled": GOOD[::-1],
        "unfinished": GOOD[:-1],
        "English": "CloudSail CRM costs 89 yuan per seat and month.",
        "empty": "",
    }
    scores = {name: quality(PROMPT, text) for name, text in worse.items()}
    assert quality(PROMPT, GOOD) > 0.6
    assert all(score < quality(PROMPT, GOOD) for score in scores.values()), scores
    assert scores["stuffed with R23 words"] < 0.15


def test_each_part_sees_its_own_failing() -> None:
    """Issue 2, item 10: product, facts and fluency are judged apart, so none can hide behind another."""
    once = "云帆CRM按账号计价，每个账号每月89元。"
    assert judge(PROMPT, GOOD).product == 1.0
    assert judge(PROMPT, GOOD.replace("云帆CRM", "我们的产品")).product == 0.3
    assert judge(PROMPT, GOOD.replace("云帆CRM", "薪巢人事")).product == 0.0
    assert judge(PROMPT, GOOD + "薪巢人事也不错。").product == 0.4
    assert judge(PROMPT, GOOD.replace("89", "59")).facts < 0.3 < 0.7 < judge(PROMPT, GOOD).facts
    assert judge(PROMPT, once * 4).fluency < 0.2 < 0.7 < judge(PROMPT, GOOD).fluency


def test_judge_finds_product_and_situation_of_every_generated_prompt() -> None:
    """R20: train and hidden wordings are both recognised from the prompt's text alone."""
    for split in ("train", "hidden"):
        for request in sales.generate_requests(80, 21, split):
            assert find_product(request.prompt) is request.product
            assert find_situation(request.prompt, request.language) == request.situation, request.prompt


def test_quality_orders_flaws_on_average() -> None:
    """R4: an answer without a flaw scores above every kind of flawed answer on average."""
    rng = random.Random(3)
    requests = sales.generate_requests(25, 5)

    def mean(flaw: str) -> float:
        texts = [(r.prompt, compose_answer(rng, r, flaw, draw_style(rng)).text) for r in requests]
        return sum(quality(*pair) for pair in texts) / len(texts)

    means = {flaw: mean(flaw) for flaw in FLAWS}
    assert means["none"] > 0.7 and all(means["none"] > means[flaw] + 0.1 for flaw in FLAWS if flaw != "none")


def test_form_alone_hardly_moves_quality() -> None:
    """R23: the same content with every element and a list is judged nearly alike."""
    request = sales.generate_requests(1, seed=8)[0]
    plain = Style("plain", False, frozenset(), 3)
    dressed = Style("numbered", True, frozenset({"greeting", "empathy", "question", "cta"}), 3)
    values = [
        quality(request.prompt, compose_answer(random.Random(seed), request, "none", style).text)
        for style in (plain, dressed)
        for seed in range(30)
    ]
    assert abs(sum(values[:30]) - sum(values[30:])) / 30 < 0.06


def test_values_stay_in_range_and_seldom_tie() -> None:
    """Issue 2, item 10: a score in [0, 1] for any text; different answers to one prompt seldom tie."""
    rng = random.Random(6)
    request = sales.generate_requests(1, seed=2)[0]
    answers = [compose_answer(rng, request, "none", draw_style(rng)).text for _ in range(40)]
    values = [quality(request.prompt, text) for text in [*answers, "", "。", "?" * 50, "\n\n", "abc"]]
    assert all(0.0 <= value <= 1.0 for value in values)
    pairs = [(a, b) for i, a in enumerate(values[:40]) for b in values[:i]]
    assert sum(abs(a - b) < 1e-9 for a, b in pairs) / len(pairs) < 0.05
    assert judge("随便问问", "好的。").product == 0.5


def test_judge_imports_no_reward() -> None:
    """R27: the judge of the win rate shares nothing with the training reward."""
    for path in Path(sales.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [name for name in names if "rewards" in name or name.startswith("torch")], path
