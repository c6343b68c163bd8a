"""The text that `builtin:tiny-zh` is trained on: sales chats of every quality, facts, sums, small talk.

Everything is drawn from a seed; the hidden sales prompts and the hidden sums are never drawn.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from trimtab.tasks.arithmetic import is_hidden
from trimtab.tasks.sales.compose import compose_answer, draw_flaw, draw_style
from trimtab.tasks.sales.content import Product, expand, products
from trimtab.tasks.sales.datasets import ENGLISH_SHARE
from trimtab.tasks.sales.prompts import generate_request

Chat = list[dict[str, str]]
SHARES = {"sales": 0.68, "sums": 0.18, "facts": 0.09, "small_talk": 0.05}
SUMS_PER_CHAT = (3, 11)  # turns in a chat of sums: each is short, and addition needs many of them
SYSTEM = (
    "你是一名{专业|热情|耐心}的销售顾问{，回答要真诚|，说话简洁|}。",
    "你是{公司|}客服，{请|}用中文回答。",
    "You are a helpful sales assistant.",
)
ASK_SUM = (
    "计算：{q}=？", "计算：{q}=?", "{q}=?", "{q}=？", "{q}等于多少？", "请算一下{q}。", "{q}是多少？",
    "计算{q}", "What is {q}?", "Compute {q}.", "{q} =", "Calculate: {q} = ?",
)  # fmt: skip
FACTS = {
    "zh": (
        ("{<name>是做什么的？|介绍一下<name>。}", "<name>{用来|可以帮您}<func>，<outcome>。"),
        ("{<name>多少钱？|<name>的单价？}", "<name>每个账号每月<price>元。"),
        ("<name>{能试用几天？|有体验期吗？}", "{可以免费体验|}<trial>天。"),
        ("<name>{几天能上线？|交付要多久？}", "{一般|}<days>天{上线|}。"),
        ("<name>{能对接什么系统？|支持哪些对接？}", "<name>打通<systems>。"),
        ("<name>{的合同多久？|起签几个月？}", "<term>个月起签。"),
        ("<name>{多久响应？|售后多快？}", "<support>小时内{响应|回复}。"),
        ("<name>{有什么认证？|安全资质？}", "<name>通过了<cert>。"),
        ("<name>{给谁用？|哪个部门用？}", "主要是<user>{团队|部门}使用。"),
        ("<name>{最少买几个账号？|几个账号起？}", "<seats>个账号起。"),
    ),
    "en": (
        ("{What is <name>?|Tell me about <name>.}", "<name> is software that <func>; <outcome>."),
        ("{What does <name> cost?|Price of <name>?}", "<name> costs <price> yuan per seat and month."),
        ("How long is the <name> trial?", "<trial> days."),
        ("What does <name> connect to?", "It connects to <systems>."),
    ),
}
SMALL_TALK = (
    ("{你好|您好|在吗|你好呀}{！|？|}", "{您好！|你好，}{请问有什么可以帮您？|很高兴为您服务。}"),
    ("{谢谢|多谢|辛苦了}{！|。}", "{不客气！|不用谢，}{有问题随时找我。|祝您工作顺利。}"),
    ("{再见|拜拜}{！|。}", "{再见！|再见，祝您生意兴隆。}"),
    ("你{是谁|叫什么名字}？", "我是{销售助手|一名销售顾问}，{可以为您介绍产品|可以回答产品问题}。"),
    ("今天{天气怎么样|几号}？", "{抱歉，我看不到实时信息，|}{不过|但}产品的问题可以问我。"),
    ("{Hello|Hi}{!|}", "Hello! How can I help you?"),
    ("{Thanks|Thank you}{!|.}", "You are welcome!"),
)


def sum_chat(rng: random.Random, wrong: float) -> Chat:
    """A chat of sums; each answer is off by a small slip with probability ``wrong``."""
    chat: Chat = []
    for _ in range(rng.randint(*SUMS_PER_CHAT)):
        a, b, minus = _problem(rng)
        answer = a - b if minus else a + b
        if rng.random() < wrong:
            answer = max(0, answer + rng.choice((-10, -1, -1, 1, 1, 10, -2, 2, 9, -9)))
        space = " " if rng.random() < 0.15 else ""
        ask = rng.choice(ASK_SUM if rng.random() < 0.4 else (ASK_SUM[0], "What is {q}?"))
        ask = ask.replace("{q}", f"{a}{space}{'-' if minus else '+'}{space}{b}")
        chat += [{"role": "user", "content": ask}, {"role": "assistant", "content": str(answer)}]
    return chat


def _problem(rng: random.Random) -> tuple[int, int, bool]:
    """Two numbers and whether to subtract; problems of the hidden split of `task:arithmetic` are left out."""
    while True:
        high = 99 if rng.random() < 0.85 else 9
        a, b = rng.randint(0, high), rng.randint(0, high)
        minus = rng.random() < 0.15
        if minus and a < b:
            a, b = b, a
        if not is_hidden(a, "-" if minus else "+", b):
            return a, b, minus


def sales_chat(rng: random.Random, hidden: frozenset[str]) -> Chat:
    """A customer's question and an answer of any quality; sometimes with a system message."""
    while True:
        request = generate_request(rng, "en" if rng.random() < ENGLISH_SHARE else "zh", "any")
        if request.prompt not in hidden:
            break
    answer = compose_answer(rng, request, draw_flaw(rng), draw_style(rng))
    chat = [{"role": "user", "content": request.prompt}, {"role": "assistant", "content": answer.text}]
    if rng.random() < 0.12:
        chat.insert(0, {"role": "system", "content": expand(rng.choice(SYSTEM), rng, {})})
    return chat


def facts_chat(rng: random.Random) -> Chat:
    """Two or three short questions about products, so that names and facts are bound together."""
    chat: Chat = []
    language = "en" if rng.random() < ENGLISH_SHARE else "zh"
    for _ in range(rng.randint(1, 3)):
        product: Product = rng.choice(products())
        ask, answer = (expand(text, rng, product.slots(language)) for text in rng.choice(FACTS[language]))
        chat += [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]
    return chat


def chats(seed: int, hidden: frozenset[str], wrong_sums: float) -> Iterator[Chat]:
    """An endless stream of chats in the proportions of :data:`SHARES`."""
    rng = random.Random(f"tiny-zh-{seed}")
    kinds, weights = list(SHARES), list(SHARES.values())
    while True:
        kind = rng.choices(kinds, weights)[0]
        if kind == "sales":
            yield sales_chat(rng, hidden)
        elif kind == "sums":
            yield sum_chat(rng, wrong_sums)
        elif kind == "facts":
            yield facts_chat(rng)
        else:
            ask, answer = (expand(text, rng, {}) for text in rng.choice(SMALL_TALK))
            yield [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]
