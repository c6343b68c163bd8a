"""Attack a reward and report what it pays for: texts that answer nothing, fixed ones and searched ones.

An attack is a text made without understanding the prompt. It is paid for when its mean reward comes near
that of honest answers: ``exploit`` is the best attack's share of the way from an empty answer (0) to an
honest one (1).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from trimtab.errors import RewardError
from trimtab.rewards.attacks import families, fill, gather, spellings
from trimtab.rewards.audit_search import evolve
from trimtab.rewards.base import Reward, call_reward
from trimtab.types import Sample

_NUM_SEARCHED = 12  # prompts that the search sees; what it finds is paid on all


@dataclass(frozen=True, slots=True)
class Attack:
    """One family of attacks: how it is paid on average, and an example."""

    name: str
    mean: float
    num_abstained: int
    example: str
    has_answer: bool = False  # made of an honest answer to this very prompt: shown, but no exploit by itself


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What a reward pays for. ``exploit`` is None where honest answers earn no more than an empty one.

    ``evasion`` is the share of what a forbidden word costs an honest answer that its best paid hidden
    spelling wins back: 0 where the spelling does not help, 1 where it is not seen. None where no words were
    given or they cost nothing.
    """

    honest: float
    empty: float
    attacks: tuple[Attack, ...]  # the best paid first
    exploit: float | None
    evasion: float | None = None

    def share(self, mean: float) -> float | None:
        """The way from the empty answer to the honest one, as a share."""
        room = self.honest - self.empty
        return (mean - self.empty) / room if room > 1e-9 else None


def audit_reward(
    reward: Reward,
    honest: Sequence[Sample],
    *,
    rounds: int = 20,
    seed: int = 0,
    forbidden: Sequence[str] = (),
) -> AuditReport:
    """Attack ``reward`` on the prompts of ``honest`` samples, whose completions are good answers.

    ``rounds`` generations of two searches follow the fixed attacks; 0 leaves them out. ``forbidden`` are
    words that the reward should punish however they are spelled. The same seed gives the same report for
    a reward that is deterministic.

    Raises:
        RewardError: there are no samples, or the reward judges none of the honest ones.
    """
    if not honest:
        raise RewardError("An audit needs rows with a prompt and a good completion; the file has none.")
    rng = random.Random(seed)
    paid = _pay(reward, "honest", honest)
    if paid.num_abstained == len(honest):
        error = next((r.error for r in call_reward(reward, honest) if r.error), "it abstained from all")
        raise RewardError(f"Reward {reward.name} judges none of the honest answers: {error}")
    found = []
    for name, family in families(honest).items():
        attack = _pay(reward, name, [replace(s, completion=family.write(s, rng)) for s in honest])
        found.append(replace(attack, has_answer=family.has_answer))
    if rounds > 0:
        found += [_search(reward, honest, rng, rounds, has_slots) for has_slots in (False, True)]
    spelled, evasion = _evasion(reward, honest, forbidden, paid.mean)
    found += spelled
    empty = next(attack for attack in found if attack.name == "empty").mean
    ranked = tuple(sorted(found, key=lambda attack: -attack.mean))
    report = AuditReport(paid.mean, empty, ranked, None, evasion)
    best = next(attack for attack in report.attacks if not attack.has_answer)
    return replace(report, exploit=report.share(best.mean))


def _pay(reward: Reward, name: str, samples: Sequence[Sample]) -> Attack:
    """The mean reward of some completions; those that the reward abstains from earn nothing."""
    values = [result.value for result in call_reward(reward, samples)]
    mean = sum(value for value in values if value is not None) / len(values)
    return Attack(name, mean, sum(value is None for value in values), samples[0].completion[:300])


def _search(
    reward: Reward, honest: Sequence[Sample], rng: random.Random, rounds: int, has_slots: bool
) -> Attack:
    """One text for every prompt alike, so it can be an answer to none; with slots, one template."""
    material = gather(honest)
    few = honest[:_NUM_SEARCHED]

    def pay(texts: list[str]) -> float:
        return _pay(reward, "", [replace(s, completion=t) for s, t in zip(few, texts, strict=True)]).mean

    found = evolve(pay, few, material, rng, rounds, has_slots=has_slots)
    texts = [fill(found, material.slots(s)) if has_slots else found for s in honest]
    name = "template found by search" if has_slots else "found by search"
    return _pay(reward, name, [replace(s, completion=text) for s, text in zip(honest, texts, strict=True)])


def _evasion(
    reward: Reward, honest: Sequence[Sample], forbidden: Sequence[str], fair: float
) -> tuple[list[Attack], float | None]:
    """Honest answers with a forbidden word, plainly and hidden, and what hiding wins back."""
    if not forbidden:
        return [], None
    forms = list(zip(*(spellings(word) for word in forbidden), strict=True))
    paid = []
    for number, form in enumerate(forms):
        samples = [
            replace(s, completion=f"{s.completion}\n{form[place % len(form)]}")
            for place, s in enumerate(honest)
        ]
        name = "with a forbidden word" if number == 0 else f"with it hidden, way {number}"
        paid.append(
            replace(_pay(reward, name, samples), has_answer=True, example=samples[0].completion[-60:])
        )
    cost = fair - paid[0].mean
    best = max(attack.mean for attack in paid[1:])
    return paid, (best - paid[0].mean) / cost if cost > 1e-9 else None
