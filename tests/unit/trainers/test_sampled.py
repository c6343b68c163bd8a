"""What is measured of a step is of all that was sampled: left out, masked, or not charged (R16, R17)."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.unit.models.tiny import tiny_tokenizer
from tests.unit.trainers.systems import rl_config, tiny_stage, tiny_system, train
from tests.unit.trainers.test_experience import _digit, column, groups_of, scripted

from trimtab.rollout.scripted import ScriptedEngine
from trimtab.runs import read_rollouts
from trimtab.trainers.batching import make_batch
from trimtab.trainers.cadence import pass_shares
from trimtab.trainers.experience import kl_penalty, reference_kl, spread_rows
from trimtab.trainers.grpo import charged_rows, completion_advantages
from trimtab.trainers.measure import num_trained


def test_dynamic_sampling_hides_nothing(tmp_path: Path) -> None:
    """R17, R21: reward, pass rate and speed are of all that was sampled; what was left out is recorded.

    Prompts whose text ends in 2 always earn 1; the others 1 to 4. A policy that solves ever more prompts for
    good would else show only those that it does not.
    """
    rl = rl_config("dapo", num_prompts=3, steps=1, overlong={"buffer": 0}, dynamic_sampling={"max_rounds": 8})
    engine, reward = scripted(flat={"0", "2", "3", "6", "7"})
    train(tiny_system(rl, reward, engine=engine), rl, tiny_stage(tmp_path))
    records = read_rollouts(tmp_path, "rl", 1)
    trained = [record for record in records if record["is_trained"]]
    left_out = [record for record in records if not record["is_trained"]]
    assert (len(trained), {_digit(r["prompt"]) for r in trained}) == (12, {"1", "4", "5"})
    assert left_out
    assert {(r["reward"], r["advantage"]) for r in left_out} == {(1.0, 0.0)}
    everything = [record["reward"] for record in records]
    assert column(tmp_path, "reward/mean")[0] == pytest.approx(sum(everything) / len(everything))
    assert column(tmp_path, "reward/mean")[0] < 2.5, "the mean of the trained groups alone"
    assert column(tmp_path, "train/tokens")[0] == sum(record["num_tokens"] for record in records)
    assert column(tmp_path, "completions/mean_length")[0] == pytest.approx(
        sum(record["num_tokens"] for record in records) / len(records)
    )
    assert column(tmp_path, "reward/zero_variance_groups") == [0.0], "of what is trained"
    shares = pass_shares(records, 1.5)
    assert len(shares) == len(records) // 4
    assert sum(shares) / len(shares) == pytest.approx(3 * 0.75 / len(shares))
    assert num_trained(records) == 12


def test_a_closed_gate_is_no_pass() -> None:
    """R21, R24: the pass rate of training does not count what a gate forbids, whatever the threshold."""
    rows = [{"prompt_id": "a", "reward": 0.0, "is_closed": closed} for closed in (True, False)]
    assert pass_shares(rows, 0.0) == [0.5]


def test_the_kl_at_coefficient_0_is_of_all_groups() -> None:
    """R16: four groups of eight, of which only the first has not moved: the KL is that of all, not 0."""
    rl = rl_config("grpo", num_prompts=4, num_generations=8)
    system = tiny_system(rl)
    rows = make_batch(groups_of(system, rl), 0).rows
    assert rows.rollout_logprobs is not None
    moved = rows.rollout_logprobs.clone()
    moved[8:] += 0.5 * rows.completion_mask[8:]
    rows = replace(rows, rollout_logprobs=moved)
    by_hand = math.exp(-0.5) - 1 + 0.5  # k3 of d = 0.5
    found = reference_kl(system, rows, 4, 1)
    assert found == reference_kl(system, rows, 4, 1), "the same seed, the same rows"
    assert 0.5 * by_hand < found["kl/ref"] < by_hand


def test_measured_rows_are_spread() -> None:
    """R16: one of each group at least, as many of each; only usable rows; another seed, other rows."""
    usable = torch.ones(32, dtype=torch.bool)
    for seed in range(20):
        rows = spread_rows(usable, 8, seed)
        assert (rows // 8).bincount().tolist() == [2, 2, 2, 2]
        assert rows.tolist() == sorted(set(rows.tolist()))
    assert spread_rows(usable, 8, 1).tolist() != spread_rows(usable, 8, 2).tolist()
    usable[:24] = False
    assert spread_rows(usable, 9, 1).tolist() == list(range(24, 32))
    assert bool((spread_rows(usable, 3, 1) >= 24).all())


def test_a_truncated_row_pays_its_kl_although_it_is_masked() -> None:
    """R9: it is not trained, but it is part of the baseline: without its KL it would stand too high."""
    keys = {"placement": "reward", "estimator": "k1"}
    rl = rl_config("rloo", num_prompts=1, num_generations=2, kl=keys, overlong={"mask_truncated": True})
    engine = ScriptedEngine(lambda prompt, g: "a" * (99 if g else 3), tiny_tokenizer())
    system = tiny_system(rl, lambda sample: 1.0, engine=engine)
    groups = groups_of(system, rl)
    batch = make_batch(groups, 0, mask_truncated=True)
    assert batch.truncated.tolist() == [False, True]
    rows = charged_rows(batch, rl)
    assert rows.completion_mask.any(dim=1).tolist() == [True, True]
    assert batch.rows.completion_mask.any(dim=1).tolist() == [True, False]
    gap = rows.completion_mask * 0.1
    rows = replace(rows, old_logprobs=gap, ref_logprobs=torch.zeros_like(gap))
    penalty = kl_penalty(system, rows, rl, 1.0)
    assert penalty is not None
    paid = 1.0 - 0.1 * batch.lengths
    expected = [float(paid[0] - paid[1]), float(paid[1] - paid[0])]
    assert completion_advantages(batch, rl, penalty).tolist() == pytest.approx(expected)
    assert expected[0] > 0, "the longer, cut one paid more"
    assert charged_rows(batch, rl_config("grpo")) is batch.rows, "with the KL in the loss nothing is added"


def test_a_step_with_masked_rows_and_kl_in_the_reward(tmp_path: Path) -> None:
    """R9: the whole step: equal rewards, and the advantage of the masked rows is below that of the others."""
    keys = {"placement": "reward", "estimator": "k2", "coef": 1.0}
    rl = rl_config(
        "rloo", num_prompts=1, num_generations=2, steps=1, kl=keys, overlong={"mask_truncated": True}
    )
    engine = ScriptedEngine(lambda prompt, g: "ab" * (20 if g else 1), tiny_tokenizer())
    system = tiny_system(rl, lambda sample: 1.0, engine=engine)
    with torch.no_grad():
        for parameter in system.reference.model.parameters():
            parameter.mul_(0.5)
    train(system, rl, tiny_stage(tmp_path))
    ended, cut = (record["advantage"] for record in read_rollouts(tmp_path, "rl", 1))
    assert cut < 0 < ended


def test_where_prompts_have_one_completion_the_step_is_one_group(tmp_path: Path) -> None:
    """R17: PPO with one completion per prompt is not told at every step that all its groups are equal."""
    rl = rl_config("ppo", num_prompts=4, num_generations=1, steps=1)
    train(tiny_system(rl), rl, tiny_stage(tmp_path / "varied"))
    assert column(tmp_path / "varied", "reward/zero_variance_groups") == [0.0]
    train(tiny_system(rl, lambda sample: 1.0), rl, tiny_stage(tmp_path / "flat"))
    assert column(tmp_path / "flat", "reward/zero_variance_groups") == [1.0]
