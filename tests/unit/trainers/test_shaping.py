"""Constraints, running normalisation and components on their way from rewards to advantages (R24)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.trainers.systems import even_share, prompts, rl_config, tiny_stage, tiny_system, train
from tests.unit.trainers.test_resume import Interrupted, everything, stop_after

from trimtab.config import ConstraintConfig, RLConfig
from trimtab.data import PromptStream
from trimtab.rewards import CombinedReward
from trimtab.runs import metrics_table, read_events
from trimtab.trainers.batching import make_batch
from trimtab.trainers.experience import collect_groups, shaped_rewards
from trimtab.trainers.grpo import completion_advantages
from trimtab.trainers.shaping import RewardShaping
from trimtab.trainers.stage import Phases
from trimtab.types import Completion, RewardResult, RolloutGroup, Sample


class Rule:
    """A named reward of a function of the sample."""

    def __init__(self, name: str, function: Any) -> None:
        self.name, self.function = name, function

    def score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        return [RewardResult(self.function(sample)) for sample in samples]


def few_low_tokens(sample: Sample) -> float:
    """1 when at most half of the tokens are below 100."""
    return float(sum(token < 100 for token in sample.token_ids) <= len(sample.token_ids) / 2)


def reward_of(**constraint: Any) -> CombinedReward:
    parts = [(Rule("even", even_share), 1.0), (Rule("limit", few_low_tokens), 1.0)]
    return CombinedReward(parts, constraints={1: ConstraintConfig(**constraint)})


def group_of(*rows: tuple[float | None, float]) -> RolloutGroup:
    """A group with (plain reward, value of the constraint) of each completion."""
    done = Completion((5, 6), "x", (-1.0, -1.0), "stop")
    results = tuple(RewardResult(v, {"even": v or 0.0, "limit": kept}) for v, kept in rows)
    return RolloutGroup(prompts()[0], (1, 2), (done,) * len(rows), results)


def shaped(shaping: RewardShaping, rl: RLConfig, *groups: RolloutGroup) -> list[float]:
    batch = shaping.apply(make_batch(groups, 0), groups)
    return shaped_rewards(batch, rl).tolist()


def test_the_penalty_by_hand() -> None:
    """R24: reward − weight · (1 − value); the weight then follows the rate of the step."""
    rl = rl_config()
    shaping = RewardShaping(rl, reward_of(target=0.25, learning_rate=2.0, initial_weight=0.5))
    group = group_of((0.75, 1.0), (1.0, 0.0), (0.5, 0.5), (0.25, 1.0))
    shaping.observe([group])
    assert shaped(shaping, rl, group) == pytest.approx([0.75, 0.5, 0.25, 0.25])
    assert shaping.metrics() == {"constraint/limit/rate": 0.375, "constraint/limit/weight": 0.5}
    (change,) = shaping.follow()
    assert (change.before, change.after, change.rate, change.target) == (0.5, 0.75, 0.375, 0.25)
    assert shaped(shaping, rl, group) == pytest.approx([0.75, 0.25, 0.125, 0.25])
    assert shaping.follow() == [], "nothing new was observed"


def test_the_plain_reward_stays_plain() -> None:
    """R24: what is recorded and evaluated has no weight in it, so that figures stay comparable."""
    reward = reward_of(initial_weight=3.0)
    (result,) = reward.score([Sample(prompts()[0], "", (2, 4, 6))])
    assert (result.value, dict(result.parts)) == (1.0, {"even": 1.0, "limit": 0.0})


def test_an_abstained_completion_is_measured_but_not_charged_into_training() -> None:
    """Trap 3: where another reward failed, the violation still counts in the rate; the row stays invalid."""
    rl = rl_config()
    shaping = RewardShaping(rl, reward_of(initial_weight=1.0))
    group = group_of((None, 0.0), (1.0, 1.0), (0.0, 1.0), (0.0, 1.0))
    shaping.observe([group])
    batch = shaping.apply(make_batch([group], 0), [group])
    assert batch.valid.tolist() == [False, True, True, True]
    assert completion_advantages(batch, rl, None)[0] == 0
    assert shaping.metrics()["constraint/limit/rate"] == 0.25


def test_equal_rewards_with_different_violations_are_no_flat_group() -> None:
    """R24: dynamic sampling keeps a group that differs only in what constraints charge."""
    rl = rl_config()
    group = group_of((0.5, 1.0), (0.5, 0.0))
    assert not RewardShaping(rl, reward_of()).has_variance(group), "weight 0 charges nothing"
    assert RewardShaping(rl, reward_of(initial_weight=0.1)).has_variance(group)


def test_all_that_was_sampled_is_observed() -> None:
    """R24: the rate is of the policy, not of the groups that dynamic sampling kept."""
    rl = rl_config(dynamic_sampling={"enabled": True, "max_rounds": 3})
    reward = CombinedReward(
        [(Rule("even", lambda s: 1.0), 1.0), (Rule("limit", few_low_tokens), 1.0)],
        constraints={1: ConstraintConfig()},
    )
    system = tiny_system(rl, reward)
    shaping = RewardShaping(rl, reward)
    found = collect_groups(system, PromptStream(prompts(), seed=1), rl, 3, Phases(), shaping)
    assert (len(found.trained), len(found.left_out), len(found.sampled)) == (2, 4, 6)
    assert len(shaping.violations["limit"]) == 3 * 2 * 4, "three rounds of two prompts of four completions"


def test_running_normalisation_by_hand() -> None:
    """Trap 2: (r − mean) / std over all steps so far, this one included, abstentions left out."""
    rl = rl_config(reward_normalisation="running")
    shaping = RewardShaping(rl, reward_of())
    assert shaped(shaping, rl, group_of((1.0, 1.0), (3.0, 1.0), (None, 1.0))) == pytest.approx(
        [-(0.5**0.5), 0.5**0.5, 0.0]
    )
    # 1, 3 and 8: mean 4, deviation √13.
    assert shaped(shaping, rl, group_of((8.0, 1.0), (None, 1.0))) == pytest.approx([4 / 13**0.5, 0.0])


def test_a_violation_costs_deviations_where_rewards_are_normalised() -> None:
    """R24: normalised first, charged after: a weight of 2 is two deviations, whatever the reward's scale."""
    rl = rl_config(reward_normalisation="running")
    found = []
    for scale in (1.0, 1000.0):
        shaping = RewardShaping(rl, reward_of(initial_weight=2.0))
        found.append(shaped(shaping, rl, group_of((scale, 0.0), (3 * scale, 1.0))))
    assert found[0] == pytest.approx([-(0.5**0.5) - 2.0, 0.5**0.5])
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_components_by_hand() -> None:
    """GDPO: the reward and the violation are compared apart; a violation weighs −λ."""
    rl = rl_config(advantage={"components": "normalised", "scale": "none", "eps": 1e-12})
    shaping = RewardShaping(rl, reward_of(initial_weight=0.5))
    group = group_of((1.0, 1.0), (3.0, 0.0), (2.0, 1.0), (2.0, 0.0))
    batch = shaping.apply(make_batch([group], 0), [group])
    # centred: reward (−1, 1, 0, 0), violation (−½, ½, −½, ½); less half of it: (−¾, ¾, ¼, −¼).
    std = (1.25 / 3) ** 0.5
    expected = [-0.75 / std, 0.75 / std, 0.25 / std, -0.25 / std]
    assert completion_advantages(batch, rl, None).tolist() == pytest.approx(expected)


def test_behind_a_closed_gate_no_component_is_worth_anything() -> None:
    """R24: components that are compared apart cannot buy what a gate forbids either."""
    rl = rl_config(advantage={"components": "normalised"})
    parts = [(Rule("even", even_share), 1.0), (Rule("cost", len), -1.0), (Rule("gate", even_share), 1.0)]
    reward = CombinedReward(parts, gates=[2])
    shaping = RewardShaping(rl, reward)
    done = Completion((5, 6), "x", (-1.0, -1.0), "stop")
    results = tuple(RewardResult(0.0, {"even": 0.9, "cost": 0.4, "gate": gate}) for gate in (1.0, 0.0))
    group = RolloutGroup(prompts()[0], (1, 2), (done, done), results)
    components = shaping.apply(make_batch([group], 0), [group]).components
    assert components is not None
    assert components.values.tolist() == [pytest.approx([0.9, 0.4]), pytest.approx([0.0, 0.4])]


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_every_change_is_an_event_and_every_step_a_metric(algorithm: str, tmp_path: Path) -> None:
    """R24: before and after of each change, the rate that made it; rate and weight of each step."""
    rl = rl_config(algorithm, steps=3)
    reward = reward_of(target=0.0, learning_rate=0.5, max_weight=50.0)
    train(tiny_system(rl, reward), rl, tiny_stage(tmp_path))
    table = metrics_table(tmp_path, "rl")
    rates, weights = table["constraint/limit/rate"], table["constraint/limit/weight"]
    assert len(rates) == len(weights) == 3
    assert weights[0] == 0.0
    changes = {event.step: event.data for event in read_events(tmp_path, "constraint_changed")}
    for step, (rate, weight) in enumerate(zip(rates, weights, strict=True), start=1):
        assert rate is not None and weight is not None
        if rate == 0:
            assert step not in changes
            continue
        assert changes[step]["name"] == "limit"
        assert (changes[step]["before"], changes[step]["rate"]) == (weight, rate)
        assert changes[step]["after"] == weight + 0.5 * rate
    assert changes


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_a_resumed_run_has_the_same_weights(algorithm: str, tmp_path: Path) -> None:
    """R24, issue 2 (8): weights of constraints and running moments go on exactly: parameters and record are
    those of the uninterrupted run, bit for bit."""
    rl = rl_config(algorithm, steps=5, learning_rate=1e-2, reward_normalisation="running", num_minibatches=2)

    def run(stage: Any) -> dict[str, torch.Tensor]:
        system = tiny_system(rl, reward_of(target=0.1, damping=0.5, initial_weight=0.4))
        train(system, rl, stage)
        return everything(system)

    whole = run(tiny_stage(tmp_path / "whole"))
    root = tmp_path / "broken"
    with pytest.raises(Interrupted):
        run(stop_after(tiny_stage(root, checkpoint_every=2), 4))
    resumed = run(tiny_stage(root, checkpoint_every=2, is_resumed=True))
    assert [key for key in whole if not torch.equal(whole[key], resumed[key])] == []
    expected, found = metrics_table(tmp_path / "whole", "rl"), metrics_table(root, "rl")
    for name in ("constraint/limit/rate", "constraint/limit/weight", "reward/mean", "loss/policy"):
        assert found[name] == expected[name], name
    events = [
        [e.data for e in read_events(where, "constraint_changed")] for where in (tmp_path / "whole", root)
    ]
    assert events[0] == events[1]
