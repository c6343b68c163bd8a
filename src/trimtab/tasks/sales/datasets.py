"""The four data sets of the sales task, each a pure function of its seed.

Train sets never ask about a held-out situation × product pair and never use a held-out wording; the hidden
prompts use only those, and one that still resembles a training prompt is left out.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path

from trimtab.errors import DataError
from trimtab.tasks.sales.compose import (
    ELEMENTS,
    FLAWS,
    Answer,
    compose_answer,
    draw_flaw,
    draw_style,
)
from trimtab.tasks.sales.content import SITUATIONS
from trimtab.tasks.sales.prompts import Request, generate_request
from trimtab.tasks.sales.quality import quality

ENGLISH_SHARE = 0.12
MARGIN = 0.06  # least difference of quality within a preference pair
MAX_RESEMBLANCE = 0.5  # Jaccard of character 4-grams between a hidden and any training prompt
HIDDEN_PATH = Path("data/sales/hidden_prompts.json")


def generate_requests(count: int, seed: int, split: str = "train") -> list[Request]:
    """Draw ``count`` requests with distinct prompts; ``split`` as in :func:`generate_request`."""
    rng = random.Random(f"requests-{split}-{seed}")
    found: dict[str, Request] = {}
    while len(found) < count:
        language = "en" if rng.random() < ENGLISH_SHARE else "zh"
        request = generate_request(rng, language, split)
        found.setdefault(request.prompt, request)
    return list(found.values())


def generate_sft(count: int = 3000, seed: int = 1) -> list[dict[str, str]]:
    """A team's past answers, good and bad mixed: rows of ``prompt`` and ``completion``."""
    rng = random.Random(f"sft-{seed}")
    rows = []
    for request in generate_requests(count, seed):
        answer = compose_answer(rng, request, draw_flaw(rng), draw_style(rng))
        rows.append({"prompt": request.prompt, "completion": answer.text})
    return rows


def generate_preferences(count: int = 2000, seed: int = 2) -> list[dict[str, str]]:
    """Pairs that differ in quality but not, on average, in form: ``prompt, chosen, rejected, reason``.

    Of each pair only the quality decides the side. A pair is kept when it brings the counts of "chosen is
    longer" and "chosen has more of the form" back towards one half, so that form predicts nothing.
    """
    rng = random.Random(f"preferences-{seed}")
    rows: list[dict[str, str]] = []
    lean_length = lean_form = 0
    requests = iter(generate_requests(count * 4, seed))
    while len(rows) < count:
        request = next(requests)
        pair = _ranked_pair(rng, request)
        if pair is None:
            continue
        chosen, rejected = pair
        longer = _sign(len(chosen.text) - len(rejected.text))
        richer = _sign(form_count(chosen) - form_count(rejected))
        if lean_length * longer > 0 or lean_form * richer > 20:
            continue
        lean_length, lean_form = lean_length + longer, lean_form + richer
        flaw = rejected.flaw
        reason = "fewer useful points" if flaw == "none" else f"{flaw}: {FLAWS[flaw]}"
        row = {"prompt": request.prompt, "chosen": chosen.text, "rejected": rejected.text}
        rows.append(row | {"reason": reason})
    return rows


def generate_good_answers(count: int, seed: int) -> list[dict[str, str]]:
    """Sound answers, every situation in turn: rows of ``prompt`` and ``completion``.

    An audit measures on these. Were the situations drawn, a text that answers two of them would earn now a
    tenth and now a third of what honest answers do.
    """
    rng = random.Random(f"good-{seed}")
    requests = generate_requests(count * 4, seed)
    by_situation = [[r for r in requests if r.situation == situation] for situation in SITUATIONS]
    in_turn = [request for turn in zip_longest(*by_situation) for request in turn if request is not None]
    return [
        {"prompt": request.prompt, "completion": compose_answer(rng, request, "none", draw_style(rng)).text}
        for request in in_turn[:count]
    ]


def form_count(answer: Answer) -> int:
    """How many marks of form an answer carries: elements, a layout other than plain, bold."""
    style = answer.style
    return len(style.elements & set(ELEMENTS)) + 2 * (style.layout != "plain") + style.is_bold


def generate_train_prompts(count: int = 400, seed: int = 3) -> list[str]:
    """Prompts for reinforcement learning (R3)."""
    return [request.prompt for request in generate_requests(count, seed)]


def generate_hidden_prompts(train: Iterable[str], count: int = 200, seed: int = 4) -> list[str]:
    """Prompts of held-out pairs and wordings, none of them close to one of ``train`` or to each other."""
    seen = [_shingles(prompt) for prompt in set(train)]
    found: list[str] = []
    for request in generate_requests(count * 3, seed, "hidden"):
        shingles = _shingles(request.prompt)
        if all(len(shingles & other) <= MAX_RESEMBLANCE * len(shingles | other) for other in seen):
            found.append(request.prompt)
            seen.append(shingles)
        if len(found) == count:
            return found
    raise DataError(f"only {len(found)} of {count} hidden prompts differ enough; ask for fewer of them.")


def hidden_prompts(path: str | Path = HIDDEN_PATH) -> list[str]:
    """Read the committed hidden prompts; DataError when the file is missing or not a list of strings."""
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"the hidden prompts {path} cannot be read ({error}); "
            "write them with: python -m trimtab.tasks.sales.generate --out data"
        ) from None
    if not isinstance(rows, list) or not all(isinstance(row, str) for row in rows):
        raise DataError(f"the hidden prompts {path} must be a JSON list of strings.")
    return rows


def _ranked_pair(rng: random.Random, request: Request) -> tuple[Answer, Answer] | None:
    """Two answers with the better one first, or None when their quality is too close."""
    answers = [compose_answer(rng, request, flaw, draw_style(rng)) for flaw in ("none", _draw_worse(rng))]
    scores = [quality(request.prompt, answer.text) for answer in answers]
    if abs(scores[0] - scores[1]) < MARGIN:
        return None
    return (answers[0], answers[1]) if scores[0] > scores[1] else (answers[1], answers[0])


def _draw_worse(rng: random.Random) -> str:
    """Draw any flaw, and now and then none, where only the number of useful points differs."""
    plain = [flaw for flaw in FLAWS if flaw not in ("none", "thin")]
    return rng.choice([*plain, "thin", "thin", "none", "none", "none", "none"])


def _shingles(text: str) -> frozenset[str]:
    return frozenset(text[i : i + 4] for i in range(max(len(text) - 3, 1)))


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)
