"""Gates on the whole way from rewards to advantages, whatever lies between them (R24)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.unit.trainers.systems import prompts, rl_config

from trimtab.config import ConstraintConfig, RLConfig
from trimtab.rewards import CombinedReward
from trimtab.trainers.batching import RolloutBatch, make_batch
from trimtab.trainers.grpo import completion_advantages
from trimtab.trainers.measure import num_flat_groups
from trimtab.trainers.ppo import scores_of
from trimtab.trainers.shaping import RewardShaping
from trimtab.types import Completion, RewardResult, RolloutGroup, Sample

Row = tuple[float | None, float, float]  # plain reward (None fails), gate, how far the limit is kept


class Table:
    """A reward that gives the numbers of a table, row by row."""

    def __init__(self, name: str, values: Sequence[float | None]) -> None:
        self.name, self.values = name, values

    def score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        return [RewardResult(v, error="failed" if v is None else None) for v in self.values]


def shaped(
    rl: RLConfig, groups: Sequence[Sequence[Row]], lengths: Sequence[int] | None = None, weight: float = 0.0
) -> tuple[RolloutBatch, RewardShaping, list[RolloutGroup]]:
    """Score, shape and lay out groups of completions; ``weight`` is that of the limit."""
    rows = [row for group in groups for row in group]
    limit = ConstraintConfig(initial_weight=weight)
    parts = [(Table(name, [row[i] for row in rows]), 1.0) for i, name in enumerate(("a", "gate", "limit"))]
    reward = CombinedReward(parts, rl.reward_clip, gates=[1], constraints={2: limit})
    asked = [prompts()[g] for g, group in enumerate(groups) for _ in group]
    results = reward.score([Sample(prompt, "x") for prompt in asked])
    sizes = list(lengths or [3] * len(rows))
    done = [Completion(tuple(range(5, 5 + n)), "x", (-1.0,) * n, "stop") for n in sizes]
    made, start = [], 0
    for g, group in enumerate(groups):
        stop = start + len(group)
        made.append(RolloutGroup(prompts()[g], (1, 2), tuple(done[start:stop]), tuple(results[start:stop])))
        start = stop
    shaping = RewardShaping(rl, reward)
    return shaping.apply(make_batch(made, 0), made), shaping, made


def keeps_the_rule(advantages: torch.Tensor, batch: RolloutBatch, *, over_batch: bool) -> bool:
    """Whether no closed row lies above an open one that it is compared with."""
    assert batch.closed is not None
    ids = torch.zeros_like(batch.group_ids) if over_batch else batch.group_ids
    for group in ids.unique():
        inside = (ids == group) & batch.valid
        closed, opened = advantages[inside & batch.closed], advantages[inside & ~batch.closed]
        if len(closed) and len(opened) and float(closed.max()) > float(opened.min()):
            return False
    return True


EXAMPLE: list[Row] = [(-1.0, 1, 1), (-0.4, 1, 1), (0.3, 1, 1), (2.0, 0, 1)]
OTHER: list[Row] = [(-3.0, 1, 1), (4.0, 0, 1), (None, 1, 1), (0.1, 1, 1)]


def test_the_example_by_hand() -> None:
    """R24: −1, −0.4, 0.3 and a forbidden 2: the forbidden one has the lowest advantage, that of −1."""
    rl = rl_config("dr_grpo", num_generations=4)
    batch, _, _ = shaped(rl, [EXAMPLE])
    mean = (-1 - 0.4 + 0.3 - 1) / 4
    found = completion_advantages(batch, rl, None)
    assert found.tolist() == pytest.approx([-1 - mean, -0.4 - mean, 0.3 - mean, -1 - mean])


@pytest.mark.parametrize("components", ["sum", "normalised"])
@pytest.mark.parametrize("baseline", ["group_mean", "leave_one_out", "batch_mean"])
@pytest.mark.parametrize("scale", ["group_std", "batch_std", "none"])
@pytest.mark.parametrize("weight", [0.0, 5.0])
def test_in_every_form_of_advantage(components: str, baseline: str, scale: str, weight: float) -> None:
    """R24: also where a constraint charges open completions so much that a closed one would be dearer."""
    form = {"components": components, "baseline": baseline, "scale": scale}
    rl = rl_config(num_generations=4, advantage=form)
    broken: list[Row] = [(-1.0, 1, 0), (-0.4, 1, 1), (0.3, 1, 0), (2.0, 0, 1)]
    batch, _, _ = shaped(rl, [broken, OTHER], weight=weight)
    advantages = completion_advantages(batch, rl, None)
    over_batch = baseline == "batch_mean" and (scale != "group_std" and components == "sum")
    assert keeps_the_rule(advantages, batch, over_batch=over_batch)
    assert float(advantages[3]) < 0
    assert float(advantages.abs().max()) < 12, "no number was made that was not there"


@pytest.mark.parametrize(
    "keys",
    [
        {"reward_normalisation": "running"},
        {"reward_clip": 0.5},
        {"reward_clip": 0.5, "reward_normalisation": "running"},
        {"overlong": {"buffer": 3, "penalty": 9.0}},
    ],
)
def test_whatever_is_done_to_the_rewards(keys: dict[str, Any]) -> None:
    """R24: normalised, clipped, or with a length penalty that only open completions pay."""
    rl = rl_config(num_generations=4, max_new_tokens=6, **keys)
    batch, _, _ = shaped(rl, [EXAMPLE, OTHER], lengths=[6, 6, 6, 2, 6, 2, 6, 6])
    assert keeps_the_rule(completion_advantages(batch, rl, None), batch, over_batch=False)


def test_a_kl_in_the_reward_is_charged_first() -> None:
    """R24: an open completion that pays much KL is still not worth less than a closed one that pays none."""
    rl = rl_config("rloo", num_generations=4)
    batch, _, _ = shaped(rl, [EXAMPLE])
    penalty = torch.zeros(4, batch.rows.token_ids.shape[1])
    penalty[:3, -1] = 7.0
    advantages = completion_advantages(batch, rl, penalty)
    assert keeps_the_rule(advantages, batch, over_batch=False)
    ppo = rl_config("ppo", num_generations=1)
    whole = scores_of(batch, ppo, penalty) - penalty.sum(dim=1)
    assert whole.tolist() == pytest.approx([-8.0, -7.4, -6.7, -8.0])
    assert scores_of(batch, ppo, None).tolist() == pytest.approx([-1.0, -0.4, 0.3, -1.0])


def test_ppo_compares_over_the_batch() -> None:
    """R24: a completion per prompt, no groups: a closed one gets the least of the whole batch."""
    rl = rl_config("ppo", num_generations=1)
    batch, _, _ = shaped(rl, [[row] for row in EXAMPLE])
    assert scores_of(batch, rl, None).tolist() == pytest.approx([-1.0, -0.4, 0.3, -1.0])


def test_where_all_are_closed_nothing_is_taught() -> None:
    """R24: no forbidden completion is preferred to another, so the group has no variance and is said to."""
    for components in ("sum", "normalised"):
        rl = rl_config(num_generations=3, advantage={"components": components})
        batch, shaping, groups = shaped(rl, [[(-3.0, 0, 1), (1.0, 0, 0), (5.0, 0, 1)]], weight=2.0)
        assert completion_advantages(batch, rl, None).tolist() == [0, 0, 0]
        assert num_flat_groups(batch) == 1
        assert not shaping.has_variance(groups[0])


def test_dynamic_sampling_sees_what_the_gate_leaves() -> None:
    """R24: open −1 twice and a forbidden 2 is a group without variance; without gates it would have some."""
    rl = rl_config(num_generations=3)
    batch, shaping, groups = shaped(rl, [[(-1.0, 1, 1), (-1.0, 1, 1), (2.0, 0, 1)]])
    assert not shaping.has_variance(groups[0])
    assert num_flat_groups(batch) == 1
    batch, shaping, groups = shaped(rl, [EXAMPLE])
    assert shaping.has_variance(groups[0])
    assert num_flat_groups(batch) == 0
    assert num_flat_groups(replace(batch, closed=None)) == 0
