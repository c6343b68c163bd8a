"""The judge of the sales task: how good an answer is, apart from the form that the rule reward counts.

It knows the material that the generator writes from, works on any text, and imports nothing from
``trimtab.rewards``: the win rate must not be decided by what the policy was trained on.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from trimtab.tasks.sales.compose import compose_answer, draw_flaw, draw_style
from trimtab.tasks.sales.content import SITUATIONS, Product, content, fill, products
from trimtab.tasks.sales.prompts import generate_request

_UNITS = {
    "元": ("price",), "天": ("trial", "days"), "小时": ("support",), "个月": ("term",), "个账号": ("seats",),
    "yuan": ("price",), "days": ("trial", "days"), "day": ("trial",), "hours": ("support",),
    "months": ("term",), "seats": ("seats",),
}  # fmt: skip
_NUMBER = re.compile(r"(\d+)\s*(个账号|个月|小时|元|天|yuan|days|day|hours|months|seats)")
_CJK = re.compile(r"[\u4e00-\u9fff]")
_PUSH = (
    "赶紧", "马上付", "直接下单", "今天不", "现在不", "只剩", "后悔", "吃亏的", "先打款", "先交定金", "别再",
    "pay today", "sign today", "hurry", "regret", "stop thinking", "only two places",
)  # fmt: skip
_EMPTY = (
    "功能齐全", "值得信赖", "请您放心", "客户至上", "都挺好", "比较完善", "业内领先", "一直很不错",
    "选择了我们", "all kinds of features", "many features", "choose us", "trust us", "experienced",
    "very good",
)  # fmt: skip
_VAGUE = (
    "要看情况", "不太好说", "说不准", "以后再说", "到时候再看", "之后再定", "差不多", "不太清楚", "问问别人",
    "不用太在意", "不重要", "it depends", "not sure", "later", "probably", "more or less",
)  # fmt: skip
_PROMISE = ("保证赚钱", "100%", "绝对没问题", "什么都能做", "竞品很差", "没法比", "can ever go wrong")


@dataclass(frozen=True, slots=True)
class Judgement:
    """The parts of one quality score; each is in [0, 1] and higher is better."""

    product: float  # names the product that was asked about, and no other
    points: float  # says what this situation needs
    substance: float  # how much of the text is about this situation, saturating
    facts: float  # numbers, systems and outcome are this product's
    manners: float  # not pushy, empty, evasive or over-promising
    fluency: float  # not garbled, not repeated, finished

    @property
    def value(self) -> float:
        """The quality in [0, 1]: content, halved or worse without product or points, times the rest."""
        said = 0.20 * self.product + 0.40 * self.points + 0.25 * self.facts + 0.15 * self.substance
        gate = 0.4 + 0.6 * min(1.0, self.product, 2 * self.points)
        return said * gate * self.manners * self.fluency


def quality(prompt: str, response: str) -> float:
    """Return how well ``response`` answers the customer's ``prompt``, in [0, 1].

    Example:
        >>> quality("云帆CRM多少钱一个账号？", "云帆CRM按账号计价，每个账号每月89元，年付送一个月。") > 0.5
        True
    """
    return judge(prompt, response).value


def judge(prompt: str, response: str) -> Judgement:
    """Return the parts of the quality of ``response`` as an answer to ``prompt``."""
    language = "zh" if len(_CJK.findall(prompt)) * 4 > len(prompt) else "en"
    text = response.replace("*", "").strip()
    lowered = text.lower()
    product, situation = find_product(prompt), find_situation(prompt, language)
    fluency = _fluency(text, language)
    if (len(_CJK.findall(text)) * 4 > len(text)) != (language == "zh"):
        fluency *= 0.3  # answered in the other language
    return Judgement(
        product=_product(product, text),
        points=_points(product, situation, text, language),
        substance=_substance(product, situation, text, language),
        facts=_facts(product, text, language),
        manners=(
            0.65 ** _count(_PUSH, lowered)
            * 0.85 ** _count(_EMPTY, lowered)
            * 0.75 ** _count(_VAGUE, lowered)
            * 0.60 ** _count(_PROMISE, lowered)
        ),
        fluency=fluency,
    )


def find_product(prompt: str) -> Product | None:
    """Return the product that the prompt names, or None."""
    return next((p for p in products() if p.name in prompt or p.name_en in prompt), None)


def find_situation(prompt: str, language: str) -> str:
    """Return the situation whose known questions share most character pairs with the prompt."""
    pairs = _bigrams([prompt])
    return max(SITUATIONS, key=lambda key: max(len(ask & pairs) / len(ask) for ask in _asks(language)[key]))


@cache
def _asks(language: str) -> dict[str, list[frozenset[str]]]:
    """Character pairs of every question of every situation, one set per choice of alternatives."""
    rng = random.Random(0)
    found = {}
    for key, situation in content(language).situation.items():
        variants = set()
        for ask in situation.ask + situation.ask_hidden:
            for _ in range(8):
                chosen = re.sub(r"\{([^{}]*)\}", lambda m: rng.choice(m[1].split("|")), ask)
                variants.add(frozenset(_bigrams(re.split(r"<\w+>", chosen))))
        found[key] = sorted(variants, key=sorted)
    return found


def _bigrams(texts: Iterable[str]) -> set[str]:
    return {text[i : i + 2] for text in texts for i in range(len(text) - 1)}


def _count(phrases: tuple[str, ...], text: str) -> int:
    return sum(phrase in text for phrase in phrases)


def _product(product: Product | None, text: str) -> float:
    named = {p.id for p in products() if p.name in text or p.name_en in text}
    if product is None:
        return 0.5
    others = len(named - {product.id})
    if product.id not in named:
        return 0.3 if others == 0 else 0.0
    return 1.0 if others == 0 else 0.4


@cache
def _keys(product: Product | None, language: str) -> dict[str, list[list[str]]]:
    """The strings that show each point of each situation, filled with the product's facts."""
    slots = (product or products()[0]).slots(language)
    return {
        key: [[fill(k, slots).lower() for k in point.keys] for point in situation.point]
        for key, situation in content(language).situation.items()
    }


def _points(product: Product | None, situation: str, text: str, language: str) -> float:
    """Saturating count of this situation's points, lowered when another situation fits the text better."""
    lowered = text.lower()
    hits = {
        key: sum(any(k in lowered for k in keys) for keys in points)
        for key, points in _keys(product, language).items()
    }
    own, best = hits[situation], max(hits.values())
    if own == 0:
        return 0.0
    return float((1 - 0.5**own) * (own / best) ** 0.5)


@cache
def _material(product: Product | None, situation: str, language: str) -> frozenset[str]:
    """Character pairs of this situation's points, filled with the product's facts."""
    slots = (product or products()[0]).slots(language)
    said = [point.say for point in content(language).situation[situation].point]
    return frozenset(_bigrams(fill(part, slots) for text in said for part in re.split(r"[{|}]", text)))


def _substance(product: Product | None, situation: str, text: str, language: str) -> float:
    """Distinct character pairs of the situation's material in the text, saturating at a few sentences."""
    found = len(_bigrams([text]) & _material(product, situation, language))
    return 1 - math.exp(-found / (40 if language == "zh" else 80))


def _facts(product: Product | None, text: str, language: str) -> float:
    """Concrete facts: 0.5 when there are none, more for right ones, less for another product's."""
    if product is None:
        return 0.5
    right = wrong = 0
    for number, unit in set(_NUMBER.findall(text)):
        if int(number) in [getattr(product, name) for name in _UNITS[unit]]:
            right += 1
        else:
            wrong += 1
    for other in products():
        slots = other.slots(language)
        for key in ("outcome", "func", "systems", "cert"):
            if slots[key] in text and slots[key] != product.slots(language)[key]:
                wrong += 1
            elif slots[key] in text and other is product:
                right += 1
    return (0.5 + right) / (1 + right + 2 * wrong)


@cache
def _known_bigrams(language: str) -> frozenset[str]:
    """Character pairs of a fixed sample of composed answers."""
    rng = random.Random(7)
    texts = []
    for _ in range(3000):
        request = generate_request(rng, language, "any")
        texts.append(compose_answer(rng, request, draw_flaw(rng), draw_style(rng)).text.replace("*", ""))
    return frozenset(_bigrams(texts))


def _fluency(text: str, language: str) -> float:
    """Share of known character pairs, less what is repeated, less for an unfinished or very short text."""
    if len(text) < 2:
        return 0.0
    pairs = [text[i : i + 2] for i in range(len(text) - 1)]
    known = sum(pair in _known_bigrams(language) for pair in pairs) / len(pairs)
    span = 6 if language == "zh" else 16
    grams = [text[i : i + span] for i in range(max(len(text) - span + 1, 1))]
    fresh = len(set(grams)) / len(grams)
    ending = 1.0 if text[-1] in "。！？.!?" or "\n" in text else 0.8
    length = min(1.0, len(text) / (40 if language == "zh" else 80))
    return float(known**4 * fresh**2 * ending * length**0.5)
