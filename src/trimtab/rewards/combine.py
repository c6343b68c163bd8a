"""The weighted sum of several rewards, with abstention."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from trimtab.errors import RewardError
from trimtab.rewards.base import Reward, call_reward, check_result
from trimtab.types import RewardResult, Sample

OPEN = 0.5  # smallest value of a gate that lets the other components count


class CombinedReward:
    """``value`` = Σ weight · value; ``parts`` = every component's own value, and its parts as ``name/part``.

    A component that fails (an error, an exception, a value that is not a finite number) makes the sample
    abstain with the reason. One that does not apply (None without an error) is left out of the sum; when all
    are left out the sample abstains. ``clip`` bounds the sum to ± clip, before anything normalises it.

    ``gates`` are the components (by number) that are not added: where one is below 0.5 the whole is 0 at
    most, so that no other component can buy what it forbids (R24). All gates and no sum: 1 when they are
    open.

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
    ) -> None:
        if not components:
            raise RewardError("No reward is configured: name at least one in rl.rewards, such as 'sales'.")
        if clip is not None and not clip > 0:
            raise RewardError(f"rl.reward_clip = {clip} must be above 0.")
        self.components = tuple(components)
        self.names = _unique([reward.name for reward, _ in components])
        self.clip = clip
        self.gates = frozenset(gates)
        self.num_errors = 0  # samples that abstained because a component failed, since the start

    def score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Return one result per sample, in order; never raises because of a component."""
        columns = [call_reward(reward, samples) for reward, _ in self.components]
        results = [self._combine([column[row] for column in columns]) for row in range(len(samples))]
        self.num_errors += sum(result.error is not None for result in results)
        return results

    def set_step(self, step: int) -> None:
        """Tell components that ask for the training step (TRL's ``trainer_state``) which one it is."""
        for reward, _ in self.components:
            tell = getattr(reward, "set_step", None)
            if tell is not None:
                tell(step)

    def _combine(self, results: Sequence[RewardResult]) -> RewardResult:
        total: float | None = 1.0 if len(self.gates) == len(self.components) else None
        is_closed = False
        parts: dict[str, float] = {}
        errors: list[str] = []
        for number, (name, given) in enumerate(zip(self.names, results, strict=True)):
            weight = self.components[number][1]
            # A component may be a user's own class: its values are checked like any other.
            result = given if given.value is None else check_result(given.value, name)
            parts |= {f"{name}/{part}": value for part, value in given.parts.items()}
            error = given.error or result.error
            if error:
                errors.append(error)
            elif result.value is not None and number in self.gates:
                parts[name] = result.value
                is_closed = is_closed or result.value < OPEN
            elif result.value is not None:
                parts[name] = result.value
                total = (total or 0.0) + weight * result.value
        if errors:
            return RewardResult(None, parts, "; ".join(errors))
        if is_closed:
            total = min(0.0, total or 0.0)
        checked = check_result(total, self.name)
        if checked.value is None or self.clip is None:
            return RewardResult(checked.value, parts, checked.error)
        return RewardResult(max(-self.clip, min(self.clip, checked.value)), parts)


def _unique(names: Sequence[str]) -> list[str]:
    """Number the second and later uses of a name: regex, regex_2."""
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return unique
