"""Customer messages: a situation, a product and slots, worded by one of many templates."""

from __future__ import annotations

import random
from dataclasses import dataclass

from trimtab.tasks.sales.content import SITUATIONS, Product, content, expand, products

HELD_OUT_EVERY = 6  # one situation × product pair in six is asked about only in the hidden set


@dataclass(frozen=True, slots=True)
class Request:
    """One customer message and what it is about; ``slots`` holds the customer's and the product's facts."""

    prompt: str
    language: str
    situation: str
    product: Product
    slots: dict[str, str]


def is_held_out(situation: str, product: Product) -> bool:
    """Say whether this situation × product pair belongs to the hidden set."""
    row, column = SITUATIONS.index(situation), products().index(product)
    return (row * 7 + column * 5) % HELD_OUT_EVERY == 2


def customer_slots(rng: random.Random, language: str, product: Product, situation: str) -> dict[str, str]:
    """Draw the customer (industry, name, team size, rival) and join it with the product's facts."""
    lists = content(language).slots
    slots = {key: rng.choice(lists[key]) for key in ("ind", "surname", "title", "n", "rival")}
    name = slots["surname"] + slots["title"] if language == "zh" else f"{slots['title']} {slots['surname']}"
    topic = content(language).situation[situation].topic
    slots |= product.slots(language) | {"who": name, "topic": topic}
    slots["sys"] = rng.choice(product.systems if language == "zh" else product.systems_en)
    return slots


def generate_request(rng: random.Random, language: str, split: str = "train") -> Request:
    """Draw one request; ``split``: ``train``, ``hidden`` (held-out pairs and wordings) or ``any`` (both)."""
    while True:
        situation, product = rng.choice(SITUATIONS), rng.choice(products())
        if split == "any" or is_held_out(situation, product) == (split == "hidden"):
            break
    texts = content(language)
    asks = {
        "train": texts.situation[situation].ask,
        "hidden": texts.situation[situation].ask_hidden,
        "any": texts.situation[situation].ask + texts.situation[situation].ask_hidden,
    }[split]
    suffix = "_hidden" if split == "hidden" or (split == "any" and rng.random() < 0.25) else ""
    slots = customer_slots(rng, language, product, situation)
    opening, closing = rng.choice(texts.slots["open" + suffix]), rng.choice(texts.slots["close" + suffix])
    prompt = expand(opening + rng.choice(asks) + closing, rng, slots)
    if slots["who"] not in prompt:
        # The seller may only use a name that the customer gave.
        given = slots["surname"] in opening or "<surname>" in opening
        slots["who"] = slots["who"] if given else rng.choice(texts.style["who_default"])
    return Request(prompt, language, situation, product, slots)
