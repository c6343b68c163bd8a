"""A small evolving search for a text that a reward pays for every prompt, with or without slots."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from trimtab.rewards.attacks import Material, fill
from trimtab.types import Sample

_FORMS = (
    "1. ", "2. ", "- ", "• ", "**", "\n", "。", "？", "?", "，", "\n\n", "# ", "```\n", "\\boxed{", "}",
    "Answer: ", "首先，", "其次，",
)  # fmt: skip
_SLOTS = ("{name}", "**{name}**", "{name}的", "关于{name}，", "{clause}", "{last}", "On {name}, ")
_LONGEST = 120  # pieces of a template
_NUM_KEPT = 4
_NUM_CHILDREN = 8

Template = tuple[str, ...]
Pay = Callable[[list[str]], float]  # one text per sample -> mean reward


def evolve(
    pay: Pay,
    samples: Sequence[Sample],
    material: Material,
    rng: random.Random,
    rounds: int,
    *,
    has_slots: bool,
) -> str:
    """Return the best paid template of ``rounds`` generations on ``samples``.

    Pieces are words, sentences and marks of form; with slots also what the prompt offers, and sentences whose
    names are slots. Each generation changes one to three pieces of a survivor, or joins two survivors.
    """
    pieces = _pieces(material, has_slots)
    slots = [material.slots(sample) for sample in samples]

    def judge(template: Template) -> float:
        return pay([fill("".join(template), values) if has_slots else "".join(template) for values in slots])

    starts = [tuple(rng.choice(pieces) for _ in range(size)) for size in (4, 12, 30, 60)]
    best = sorted(((judge(start), start) for start in starts), reverse=True)
    for _ in range(rounds):
        children = [_child(best, pieces, rng) for _ in range(_NUM_CHILDREN)]
        best = sorted({*best, *((judge(child), child) for child in children)}, reverse=True)[:_NUM_KEPT]
    return "".join(best[0][1])


def _pieces(material: Material, has_slots: bool) -> list[str]:
    sentences = list(material.sentences[:120])
    pieces = [*_FORMS, *material.words[:120], *sentences]
    if has_slots:
        for name in material.names:
            sentences = [sentence.replace(name, "{name}") for sentence in sentences]
        pieces += [*_SLOTS * 6, *(sentence for sentence in sentences if "{name}" in sentence)]
    return pieces


def _child(best: Sequence[tuple[float, Template]], pieces: Sequence[str], rng: random.Random) -> Template:
    words = list(rng.choice(best)[1])
    if rng.random() < 0.15:
        other = rng.choice(best)[1]
        words = words[: rng.randint(0, len(words))] + list(other[rng.randint(0, len(other)) :])
    for _ in range(rng.randint(1, 3)):
        kind = rng.random()
        if kind < 0.5 or not words:
            words.insert(rng.randint(0, len(words)), rng.choice(pieces))
        elif kind < 0.75:
            words[rng.randrange(len(words))] = rng.choice(pieces)
        else:
            del words[rng.randrange(len(words))]
    return tuple(words[:_LONGEST])
