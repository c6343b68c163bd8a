"""The weighted sum of several rewards, with abstention."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from trimtab.config import ConstraintConfig
from trimtab.errors import RewardError
from trimtab.rewards.base import MAX_REWARD, Reward, call_reward, check_result
from trimtab.types import RewardResult, Sample

OPEN = 0.5  # smallest value of a gate that lets the other components count


class CombinedReward:
    """``value`` = Σ weight · value; ``parts`` = every component's own value, and its parts as ``name/part``.

    A component that fails (an error, an exception, a value that is not a finite number) makes the sample
    abstain with the reason. One that does not apply (None without an error) is left out of the sum; when all
    are left out the sample abstains. ``clip`` bounds the sum to ± clip, before anything normalises it.

    ``gates`` are the components (by number) that are not added: where one is below 0.5 the completion is
    worth the least of what is compared with it, and 0 at most, so that no other component can buy what it
    forbids (R24): see ``_behind_gates``. All gates and no sum: 1 when they are open.

    ``constraints`` are not added either: ``value`` is the plain reward, so that figures of different steps
    and models can be compared while the weights move. Each must say a number in 0..1; its violation is 1
    less that number (``violations``), and the trainer charges for it (``trainers/shaping.py``).

    Example:
        >>> from trimtab.rewards.rules import length, list_format
        >>> from trimtab.types import Prompt
        >>> both = CombinedReward([(length(1, 10), 0.5), (list_format(), 2.0)])
        >>> both.score([Sample(Prompt("0", ({"role": "user", "content": "hi"},)), "hello")])[0].value
        0.5
    """

    name = "total"

    def __init__(
        self,
        components: Sequence[tuple[Reward, float]],
        clip: float | None = None,
        gates: Collection[int] = (),
        constraints: Mapping[int, ConstraintConfig] | None = None,
    ) -> None:
        if not components:
            raise RewardError("No reward is configured: name at least one in rl.rewards, such as 'sales'.")
        if clip is not None and not clip > 0:
            raise RewardError(f"rl.reward_clip = {clip} must be above 0.")
        self.components = tuple(components)
        self.names = _unique([reward.name for reward, _ in components])
        self.clip = clip
        self.gates = frozenset(gates)
        self.constraints = {self.names[number]: one for number, one in (constraints or {}).items()}
        outside = self.gates | set(constraints or {})
        self.added = {
            name: components[number][1] for number, name in enumerate(self.names) if number not in outside
        }
        self.num_errors = 0  # samples that abstained because a component failed, since the start

    def score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Return one result per sample, in order; never raises because of a component."""
        columns = [call_reward(reward, samples) for reward, _ in self.components]
        results = [self._combine([column[row] for column in columns]) for row in range(len(samples))]
        if any(result.is_closed for result in results):
            results = _behind_gates(samples, results)
        results = [self._clipped(result) for result in results]
        self.num_errors += sum(result.error is not None for result in results)
        return results

    def is_closed(self, parts: Mapping[str, float]) -> bool:
        """Whether a gate is closed for the completion with these ``parts``."""
        return any(parts.get(self.names[number], 1.0) < OPEN for number in self.gates)

    def violations(self, parts: Mapping[str, float]) -> dict[str, float]:
        """How much the completion with these ``parts`` violates each constraint that applies, in 0..1."""
        return {name: 1.0 - parts[name] for name in self.constraints if name in parts}

    def set_step(self, step: int) -> None:
        """Tell components that ask for the training step (TRL's ``trainer_state``) which one it is."""
        for reward, _ in self.components:
            tell = getattr(reward, "set_step", None)
            if tell is not None:
                tell(step)

    def _combine(self, results: Sequence[RewardResult]) -> RewardResult:
        total: float | None = None if self.added else 1.0
        parts: dict[str, float] = {}
        errors: list[str] = []
        for number, (name, given) in enumerate(zip(self.names, results, strict=True)):
            weight = self.components[number][1]
            # A component may be a user's own class: its values are checked like any other.
            bounds = (0.0, 1.0) if name in self.constraints else (-MAX_REWARD, MAX_REWARD)
            result = given if given.value is None else check_result(given.value, name, *bounds)
            parts |= {f"{name}/{part}": value for part, value in given.parts.items()}
            error = given.error or result.error
            if error:
                errors.append(error)
            elif result.value is not None:
                parts[name] = result.value
                if name in self.added:
                    total = (total or 0.0) + weight * result.value
        if errors:
            return RewardResult(None, parts, "; ".join(errors))
        if is_closed := self.is_closed(parts):
            total = total or 0.0
        checked = check_result(total, self.name)
        return RewardResult(checked.value, parts, checked.error, is_closed)

    def _clipped(self, result: RewardResult) -> RewardResult:
        if result.value is None or self.clip is None:
            return result
        return replace(result, value=max(-self.clip, min(self.clip, result.value)))


def _behind_gates(samples: Sequence[Sample], results: Sequence[RewardResult]) -> list[RewardResult]:
    """Give each closed completion the least of its prompt's completions in this call, and 0 at most.

    What it would have earned itself counts too: to close a gate never pays. Where no completion of the
    prompt has its gates open, the open ones of the whole call count; where there are none, only 0 and what
    the prompt's completions would have earned.
    """
    groups: dict[int, list[int]] = {}
    for row, sample in enumerate(samples):
        groups.setdefault(id(sample.prompt), []).append(row)
    opened = {row for row, result in enumerate(results) if not result.is_closed and result.value is not None}
    found = list(results)
    for rows in groups.values():
        closed = [row for row in rows if results[row].is_closed and results[row].value is not None]
        if not closed:
            continue
        others = rows if opened.intersection(rows) else [*rows, *opened]
        least = min([0.0, *(value for row in others if (value := results[row].value) is not None)])
        for row in closed:
            found[row] = replace(results[row], value=least)
    return found


def _unique(names: Sequence[str]) -> list[str]:
    """Number the second and later uses of a name: regex, regex_2."""
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return unique
