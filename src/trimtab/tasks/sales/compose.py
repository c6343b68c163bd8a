"""Answers of a sales team, good and bad, composed from independent fragments.

Form (greeting, empathy, question, value, call to action, layout, length) is drawn independently of the
flaw, so that how an answer looks says almost nothing about how good it is.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from trimtab.tasks.sales.content import SITUATIONS, content, expand, products
from trimtab.tasks.sales.prompts import Request

FLAWS = {
    "none": "answers this question with facts of this product",
    "thin": "says only one thing that this question needs",
    "off_topic": "answers another question",
    "wrong_product": "talks about another product",
    "wrong_facts": "gives facts that are not this product's",
    "generic": "could be said of any product",
    "vague": "avoids the question",
    "pushy": "presses the customer instead of answering",
    "repetitive": "says the same thing again",
    "overpromise": "promises what nobody can keep",
}
FLAW_WEIGHTS = {
    "none": 0.47, "thin": 0.10, "off_topic": 0.09, "wrong_product": 0.08, "wrong_facts": 0.04,
    "generic": 0.07, "vague": 0.05, "pushy": 0.04, "repetitive": 0.03, "overpromise": 0.03,
}  # fmt: skip
LAYOUTS = {"plain": 0.62, "lines": 0.12, "numbered": 0.12, "bullets": 0.14}
ELEMENTS = {"greeting": 0.40, "empathy": 0.35, "value": 0.30, "question": 0.38, "cta": 0.35}
BOLD = 0.25
_BLURRED = {
    "zh": {"name": "我们的产品", "func": "日常管理", "outcome": "效率提升不少", "trial": "几"},
    "en": {"name": "our product", "func": "helps with work", "outcome": "things improve", "trial": "few"},
}


@dataclass(frozen=True, slots=True)
class Style:
    """The form of one answer; everything in it is independent of the answer's flaw."""

    layout: str
    is_bold: bool
    elements: frozenset[str] = field(default_factory=frozenset)
    num_points: int = 2


@dataclass(frozen=True, slots=True)
class Answer:
    """One composed answer, its flaw (a key of :data:`FLAWS`) and its form."""

    text: str
    flaw: str
    style: Style


def draw_style(rng: random.Random) -> Style:
    """Draw a form: layout, bold, elements and one to four points."""
    layout = rng.choices(list(LAYOUTS), list(LAYOUTS.values()))[0]
    elements = frozenset(key for key, share in ELEMENTS.items() if rng.random() < share)
    low = 1 if layout == "plain" else 2
    return Style(layout, rng.random() < BOLD, elements, rng.choice((low, 2, 3, 4, 4)))


def draw_flaw(rng: random.Random) -> str:
    """Draw a flaw of the mixture that the SFT set holds."""
    return rng.choices(list(FLAW_WEIGHTS), list(FLAW_WEIGHTS.values()))[0]


def compose_answer(rng: random.Random, request: Request, flaw: str, style: Style) -> Answer:
    """Write one answer to the request with the given flaw and form."""
    slots = _answer_slots(rng, request, flaw)
    sentences = _body(rng, request, flaw, style.num_points, slots)
    texts = content(request.language)
    chosen = [key for key in ELEMENTS if key in style.elements]
    said = {key: expand(rng.choice(texts.style[key]), rng, slots) for key in chosen}
    text = _lay_out(rng, request, style, sentences, said)
    name = slots["name"]
    if style.is_bold and name in text:
        text = text.replace(name, f"**{name}**", 1)
    elif style.is_bold:
        text = text.replace(sentences[0], f"**{sentences[0]}**", 1)
    return Answer(text, flaw, style)


def _answer_slots(rng: random.Random, request: Request, flaw: str) -> dict[str, str]:
    """Slots of the answer: another product's facts, or blurred ones, where the flaw asks for them."""
    slots = dict(request.slots)
    if flaw in ("wrong_product", "wrong_facts"):
        other = rng.choice([p for p in products() if p is not request.product]).slots(request.language)
        slots |= other
        if flaw == "wrong_facts":
            slots["name"] = request.slots["name"]
    elif flaw in ("generic", "vague"):
        slots |= _BLURRED[request.language]
    return slots


def _body(rng: random.Random, request: Request, flaw: str, count: int, slots: dict[str, str]) -> list[str]:
    """The sentences that answer (or fail to answer), without closing punctuation."""
    texts = content(request.language)
    if flaw in ("generic", "vague"):
        templates = texts.flaw[flaw] + (texts.flaw["generic"] if flaw == "vague" else [])
        return [expand(t, rng, slots) for t in rng.sample(templates, min(max(count, 2), len(templates)))]
    situation = request.situation
    if flaw == "off_topic":
        situation = rng.choice([s for s in SITUATIONS if s != situation])
    points = [p.say for p in texts.situation[situation].point]
    if flaw == "none":
        return _named([expand(p, rng, slots) for p in rng.sample(points, max(count, 2))], request, rng, slots)
    if flaw == "thin":
        said = [points[rng.randrange(len(points))], *rng.sample(texts.flaw["generic"], count - 1)]
        return [expand(p, rng, slots) for p in said]
    if flaw == "repetitive":
        once = expand(rng.choice(points), rng, slots)
        return _named([once] * max(count, 2), request, rng, slots)
    if flaw in ("pushy", "overpromise"):
        bad = rng.sample(texts.flaw[flaw], 2 if flaw == "pushy" and count > 1 else 1)
        said = rng.sample(points, max(count - len(bad), 1)) + bad
        rng.shuffle(said)
        return [expand(p, rng, slots) for p in said]
    return _named([expand(p, rng, slots) for p in rng.sample(points, count)], request, rng, slots)


def _named(sentences: list[str], request: Request, rng: random.Random, slots: dict[str, str]) -> list[str]:
    """Put the product's name first when no sentence says it."""
    if any(slots["name"] in sentence for sentence in sentences):
        return sentences
    lead = expand(content(request.language).situation[request.situation].lead, rng, slots)
    comma = "，" if request.language == "zh" else ": "
    return [lead + comma + sentences[0], *sentences[1:]]


def _lay_out(
    rng: random.Random, request: Request, style: Style, sentences: Sequence[str], said: dict[str, str]
) -> str:
    """Join opening, body and ending in the style's layout."""
    zh = request.language == "zh"
    space, stop = ("", "。") if zh else (" ", ".")
    if not zh:
        sentences = [s[0].upper() + s[1:] for s in sentences]
    opening = space.join(said[key] for key in ("greeting", "empathy") if key in said)
    order = [key for key in ("value", "question", "cta") if key in said]
    rng.shuffle(order)
    ending = space.join(said[key] for key in order)
    body = _list(rng, style.layout, sentences, stop)
    if style.layout == "plain":
        separator = "；" if zh and rng.random() < 0.25 else stop
        body = (separator + space).join(sentences) + stop
        return space.join(part for part in (opening, body, ending) if part)
    if opening.endswith("，"):
        opening = opening[:-1] + "。"  # an empathy clause needs a full stop before a new line
    return "\n".join(part for part in (opening, body, ending) if part)


def _list(rng: random.Random, layout: str, sentences: Sequence[str], stop: str) -> str:
    """The body as lines, a numbered list or bullets; list items sometimes carry no full stop."""
    end = stop if layout == "lines" or rng.random() < 0.7 else ""
    mark = rng.choice(("- ", "• "))
    heads = {"numbered": "{}. ", "bullets": mark}
    return "\n".join(heads.get(layout, "").format(i) + s + end for i, s in enumerate(sentences, 1))
