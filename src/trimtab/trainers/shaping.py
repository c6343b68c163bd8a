"""What lies between a reward and its advantage: normalisation, and what constraints charge (R24).

In this order: the reward, clipped when it was combined; normalised (``rl.reward_normalisation``); less
weight · violation of each constraint; with the overlong penalty (``experience.py:shaped_rewards``). Any of
that may lower an open completion below a closed gate, so gates are looked at again last. Rewards that are
recorded or evaluated stay plain: the weights move, and figures must stay comparable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from trimtab.config import RLConfig
from trimtab.functional import components_behind_gates, normalise_rewards, worth_behind_gates
from trimtab.functional.moments import Moments
from trimtab.monitor import ConstraintController
from trimtab.rewards.base import Reward
from trimtab.rewards.combine import CombinedReward
from trimtab.trainers.batching import Components, RolloutBatch
from trimtab.types import RewardResult, RolloutGroup


@dataclass(frozen=True, slots=True)
class WeightChange:
    """A constraint's weight after a step, and the rate that moved it."""

    name: str
    before: float
    after: float
    rate: float
    target: float


class RewardShaping:
    """The part of an RL stage's rewards that has a memory; its state is in the checkpoint.

    Once per step: :meth:`observe` what was sampled, :meth:`apply` to the batch, :meth:`metrics`, and after
    the update :meth:`follow`.
    """

    def __init__(self, rl: RLConfig, reward: Reward) -> None:
        self.reward = reward if isinstance(reward, CombinedReward) else None
        constraints = self.reward.constraints if self.reward else {}
        self.controllers = {name: ConstraintController.of(one) for name, one in constraints.items()}
        self.moments = Moments() if rl.reward_normalisation == "running" else None
        self.is_decoupled, self.baseline = rl.advantage.components == "normalised", rl.advantage.baseline
        self.violations: dict[str, list[float]] = {name: [] for name in self.controllers}

    def observe(self, groups: Sequence[RolloutGroup]) -> None:
        """Count the violations of completions that were sampled, also of those that will not be trained."""
        for result in _results(groups):
            for name, violation in self._violations(result).items():
                self.violations[name].append(violation)

    def has_variance(self, group: RolloutGroup) -> bool:
        """Whether the rewards of a group differ, penalties and gates included, abstentions left out."""
        kept = [r for r in group.rewards if r.value is not None]
        values = [(r.value or 0.0) - self.penalty(r) for r in kept]
        # What is closed is worth the least of the group.
        worth = {min(values) if self.is_closed(r) else v for r, v in zip(kept, values, strict=True)}
        return len(worth) > 1

    def is_closed(self, result: RewardResult) -> bool:
        """Whether a gate forbids a completion."""
        return self.reward is not None and self.reward.is_closed(result.parts)

    def penalty(self, result: RewardResult) -> float:
        """What the constraints charge one completion at the weights in force; at least 0."""
        found = self._violations(result)
        return sum((self.controllers[name].weight * violation for name, violation in found.items()), 0.0)

    def apply(self, batch: RolloutBatch, groups: Sequence[RolloutGroup]) -> RolloutBatch:
        """Return the batch with normalised rewards, penalties and, where asked for, its components."""
        results = _results(groups)
        rewards = batch.rewards
        if self.moments is not None:
            # This step counts too: else the first would have no scale.
            self.moments = self.moments.with_values(rewards[batch.valid].tolist())
            rewards = normalise_rewards(rewards, batch.valid, mean=self.moments.mean, std=self.moments.std)
        penalties = torch.tensor([self.penalty(result) for result in results], dtype=torch.float32)
        closed = torch.tensor([self.is_closed(result) for result in results])
        batch = replace(batch, rewards=rewards, penalties=penalties, closed=closed)
        if not self.is_decoupled:
            return batch
        components = self._components(results)
        return replace(batch, components=gated_components(batch, components, self.baseline))

    def metrics(self) -> dict[str, float]:
        """``constraint/NAME/rate`` of what was observed and ``constraint/NAME/weight`` in force."""
        found: dict[str, float] = {}
        for name, controller in self.controllers.items():
            if self.violations[name]:
                found[f"constraint/{name}/rate"] = fmean(self.violations[name])
            found[f"constraint/{name}/weight"] = controller.weight
        return found

    def follow(self) -> list[WeightChange]:
        """Let every weight follow what was observed since the last call; return those that changed."""
        changes = []
        for name, controller in self.controllers.items():
            seen, self.violations[name] = self.violations[name], []
            if not seen:
                continue
            rate, before = fmean(seen), controller.weight
            if controller.update(rate) != before:
                changes.append(WeightChange(name, before, controller.weight, rate, controller.target))
        return changes

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        weights = {name: controller.state() for name, controller in self.controllers.items()}
        return {"constraints": weights, "moments": self.moments.state() if self.moments else {}}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state`; a constraint that is new in the recipe starts with its own weight."""
        for name, controller in self.controllers.items():
            if name in state["constraints"]:
                controller.load_state(state["constraints"][name])
        if self.moments is not None and state["moments"]:
            self.moments = Moments.of_state(state["moments"])

    def _violations(self, result: RewardResult) -> dict[str, float]:
        return self.reward.violations(result.parts) if self.reward else {}

    def _components(self, results: Sequence[RewardResult]) -> Components:
        """Each reward in a column of its own, with its weight; a violation is one of negative weight."""
        if self.reward is None or not self.reward.added:
            names, weights = ["total"], [1.0]
            rows = [{} if r.value is None else {"total": r.value} for r in results]
        else:
            names, weights = list(self.reward.added), list(self.reward.added.values())
            added = self.reward.added
            rows = [{name: r.parts[name] for name in added if name in r.parts} for r in results]
        for name, controller in self.controllers.items():
            # A name of its own: the violation of a constraint is not its value.
            names.append(f"{name}/violation")
            weights.append(-controller.weight)
            for row, result in zip(rows, results, strict=True):
                row |= {f"{n}/violation": v for n, v in self._violations(result).items() if n == name}
        return Components(
            values=torch.tensor([[row.get(name, 0.0) for name in names] for row in rows]),
            present=torch.tensor([[name in row for name in names] for row in rows]),
            weights=torch.tensor(weights),
        )


def gated_rewards(rewards: Tensor, batch: RolloutBatch, baseline: str) -> Tensor:
    """``rewards [N]`` with those behind a closed gate at the least of what they are compared with.

    That is their group, or the whole batch where ``baseline`` is the batch's mean (or a critic's value).
    """
    if batch.closed is None or not bool(batch.closed.any()):
        return rewards
    return worth_behind_gates(rewards, batch.closed, batch.valid, _compared(batch, baseline))


def gated_components(batch: RolloutBatch, components: Components, baseline: str) -> Components:
    """The same for rewards that are compared one by one."""
    if batch.closed is None or not bool(batch.closed.any()):
        return components
    values, present = components_behind_gates(
        components.values,
        components.present,
        components.weights,
        batch.closed,
        batch.valid,
        _compared(batch, baseline),
    )
    return replace(components, values=values, present=present)


def _compared(batch: RolloutBatch, baseline: str) -> Tensor:
    is_by_group = baseline in ("group_mean", "leave_one_out")
    return batch.group_ids if is_by_group else torch.zeros_like(batch.group_ids)


def _results(groups: Sequence[RolloutGroup]) -> list[RewardResult]:
    return [result for group in groups for result in group.rewards]
