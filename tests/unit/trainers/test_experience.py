"""A step's experience: sampling, shaping, KL, advantages, and what is measured on the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.models.tiny import tiny_tokenizer
from tests.unit.trainers.systems import (
    even_share,
    prompts,
    rl_config,
    same_weights,
    tiny_stage,
    tiny_system,
    train,
    weights,
)

from trimtab.config import RLConfig
from trimtab.data import PromptStream
from trimtab.errors import RewardError
from trimtab.functional import kl_estimate
from trimtab.rollout.scripted import ScriptedEngine
from trimtab.runs import metrics_table, read_events, read_rollouts
from trimtab.trainers.batching import make_batch
from trimtab.trainers.experience import (
    collect_groups,
    kl_penalty,
    reference_kl,
    shaped_rewards,
)
from trimtab.trainers.grpo import completion_advantages
from trimtab.trainers.ppo import with_advantages
from trimtab.trainers.shaping import RewardShaping
from trimtab.trainers.stage import Phases
from trimtab.types import RewardResult, RolloutGroup, Sample


def column(root: Path, name: str) -> list[float]:
    """One metric of the RL stage, step by step."""
    return [value for value in metrics_table(root, "rl")[name] if value is not None]


def groups_of(system: Any, rl: RLConfig, seed: int = 3) -> list[RolloutGroup]:
    shaping = RewardShaping(rl, system.reward)
    return collect_groups(system, PromptStream(prompts(), seed=1), rl, seed, Phases(), shaping).trained


@pytest.mark.parametrize("algorithm", ["grpo", "gspo", "cispo", "deepseek_r1"])
def test_first_update_is_on_policy(algorithm: str, tmp_path: Path) -> None:
    """Traps 5 and 17: one update per batch has ratio exactly 1, nothing clipped; sampler equals learner."""
    keys = {"num_prompts": 2, "num_generations": 4, "max_new_tokens": 6}
    rl = rl_config(algorithm, top_p=0.9, temperature=0.8, steps=2, **keys)
    train(tiny_system(rl), rl, tiny_stage(tmp_path))
    assert column(tmp_path, "policy/ratio_mean") == pytest.approx([1, 1], abs=1e-6)
    assert column(tmp_path, "policy/ratio_max") == [1, 1]
    assert column(tmp_path, "policy/clipfrac") == [0, 0]
    assert column(tmp_path, "kl/policy") == [0, 0]
    assert max(column(tmp_path, "kl/engine")) < 1e-9


def test_second_minibatch_is_off_policy(tmp_path: Path) -> None:
    """R6: a batch that is used several times keeps its old log-probabilities, so ratios leave 1."""
    rl = rl_config("grpo", num_minibatches=2, num_epochs_per_batch=2, learning_rate=1e-2, steps=1)
    train(tiny_system(rl), rl, tiny_stage(tmp_path))
    assert column(tmp_path, "train/updates") == [4]
    assert column(tmp_path, "policy/ratio_max")[0] > 1.01
    assert column(tmp_path, "kl/policy")[0] > 1e-5


def test_ppo_stops_its_epochs_at_the_target(tmp_path: Path) -> None:
    """R6: approx_kl above target_kl ends the epochs of this batch; the next step goes on."""
    keys = {"num_prompts": 4, "num_minibatches": 2, "num_epochs_per_batch": 4, "learning_rate": 0.01}
    free = rl_config("ppo", **keys, steps=2, ppo={"target_kl": 1e9})
    train(tiny_system(free), free, tiny_stage(tmp_path / "free"))
    tight = rl_config("ppo", **keys, steps=2, ppo={"target_kl": 1e-6})
    train(tiny_system(tight), tight, tiny_stage(tmp_path / "tight"))
    assert column(tmp_path / "free", "train/updates") == [8, 8]
    assert column(tmp_path / "tight", "train/updates") == [2, 2]  # the first has no KL yet, the second has


def test_critic_warms_up_alone(tmp_path: Path) -> None:
    """R6: while the critic warms up the policy stays bit for bit as it was."""
    rl = rl_config("ppo", steps=1, ppo={"critic_warmup_steps": 1})
    system = tiny_system(rl)
    assert system.critic is not None
    before = weights(system.policy), weights(system.critic)
    train(system, rl, tiny_stage(tmp_path))
    assert same_weights(before[0], weights(system.policy))
    assert not same_weights(before[1], weights(system.critic))


@pytest.mark.parametrize("coef", [0.0, 0.2])
def test_kl_to_the_reference_is_always_measured(coef: float, tmp_path: Path) -> None:
    """R16: also at coefficient 0 every step has the KL, and it grows from 0 as the policy moves."""
    rl = rl_config("grpo", kl={"coef": coef}, steps=3, learning_rate=1e-2)
    train(tiny_system(rl), rl, tiny_stage(tmp_path))
    measured = column(tmp_path, "kl/ref")
    assert measured[0] == pytest.approx(0, abs=1e-9)
    assert len(measured) == 3
    assert min(measured[1:]) > 1e-4
    assert [k / r for k, r in zip(column(tmp_path, "kl/ref_sequence")[1:], measured[1:], strict=True)] > [
        1,
        1,
    ]
    assert ("loss/kl" in metrics_table(tmp_path, "rl")) is (coef > 0)


def test_kl_is_measured_where_there_is_something_to_measure() -> None:
    """R16: rows that abstained do not hide the KL of the others."""
    rl = rl_config("grpo", num_prompts=4)
    system = tiny_system(rl)
    groups = groups_of(system, rl)
    abstained = [
        replace(group, rewards=(RewardResult(None),) * 4) if index < 3 else group
        for index, group in enumerate(groups)
    ]
    rows = make_batch(abstained, 0).rows
    with torch.no_grad():
        for parameter in system.policy_model.parameters():
            parameter.mul_(1.1)
    moved = replace(rows, rollout_logprobs=system.policy.logprobs(rows))
    assert reference_kl(system, moved)["kl/ref"] > 1e-3


def test_a_controller_can_raise_a_coefficient_of_zero(tmp_path: Path) -> None:
    """R15: the adaptive controller's floor takes effect: the KL is charged from the next step on."""
    rl = rl_config("grpo", kl={"coef": 0.0, "controller": "adaptive"}, steps=3, learning_rate=1e-2)
    train(tiny_system(rl), rl, tiny_stage(tmp_path))
    assert column(tmp_path, "kl/coef") == pytest.approx([0, 1e-4, 1e-4], rel=0.01)
    assert len(column(tmp_path, "loss/kl")) == 2
    changed = read_events(tmp_path, "kl_changed")
    assert (changed[0].data["before"], changed[0].data["after"]) == (0, 1e-4)


def test_kl_in_the_reward_lowers_advantages() -> None:
    """R6, R9: each completion pays β · Σ k1 over its tokens before it is compared with its group."""
    rl = rl_config("rloo", advantage={"baseline": "batch_mean", "scale": "none"})
    system = tiny_system(rl)
    batch = make_batch(groups_of(system, rl), 0)
    rows = replace(
        batch.rows,
        old_logprobs=batch.rows.completion_mask * -1.0,
        ref_logprobs=batch.rows.completion_mask * torch.linspace(-1, -3, 8).unsqueeze(1),
    )
    penalty = kl_penalty(system, rows, rl, 0.5)
    assert penalty is not None
    gap = torch.linspace(0, 2, 8)
    torch.testing.assert_close(penalty.sum(dim=1), 0.5 * gap * batch.lengths)
    paid = batch.rewards - 0.5 * gap * batch.lengths
    torch.testing.assert_close(completion_advantages(batch, rl, penalty), paid - paid.mean())
    assert kl_penalty(system, rows, rl_config("grpo"), 0.5) is None


def test_exact_kl_in_the_reward() -> None:
    """R6: KL kind `full` is the exact KL over the vocabulary; k1 on samples agrees in the mean."""
    rl = rl_config("ppo", kl={"estimator": "full"}, num_prompts=8, num_generations=16, temperature=0.9)
    system = tiny_system(rl)
    with torch.no_grad():
        for parameter in system.reference.model.parameters():
            parameter.mul_(0.9)
    rows = make_batch(groups_of(system, rl), 0).rows
    rows = replace(rows, ref_logprobs=system.reference.logprobs(rows), old_logprobs=rows.rollout_logprobs)
    mask = rows.completion_mask
    exact = kl_penalty(system, rows, rl, 1.0)
    assert exact is not None
    assert bool((exact[mask] >= 0).all())
    assert float(exact[~mask].abs().max()) == 0
    assert rows.old_logprobs is not None
    assert rows.ref_logprobs is not None
    sampled = kl_estimate(rows.old_logprobs, rows.ref_logprobs, "k1", mask=mask)[mask]
    error = float(sampled.std()) / len(sampled) ** 0.5
    assert abs(float(sampled.mean() - exact[mask].mean())) < 4 * error


def test_ppo_token_rewards_and_gae() -> None:
    """R6, trap 6: score at the last token, KL at each; at γ = λ = 1 the return is the reward to go."""
    rl = rl_config("ppo", ppo={"gae_lambda": 1.0, "whiten_advantages": False})
    mask = torch.tensor([[False, True, True, True], [False, True, False, False]])
    empty = make_batch(groups_of(tiny_system(rl), rl), 0).rows.rows(slice(0, 2))
    rows = replace(
        empty,
        completion_mask=mask,
        advantages=torch.zeros(2, 4),
        old_values=torch.tensor([[9.0, 0.1, 0.2, 0.3], [9.0, 0.5, 9.0, 9.0]]),
    )
    penalty = torch.tensor([[9.0, 0.01, 0.02, 0.03], [9.0, 0.04, 9.0, 9.0]])
    made, raw = with_advantages(rows, torch.tensor([1.0, -1.0]), penalty, rl)
    assert made.returns is not None
    torch.testing.assert_close(
        made.returns, torch.tensor([[0, 0.94, 0.95, 0.97], [0, -1.04, 0, 0]]), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(
        made.advantages, torch.tensor([[0, 0.84, 0.75, 0.67], [0, -1.54, 0, 0]]), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(raw, torch.tensor([2.26 / 3, -1.54]), atol=1e-6, rtol=0)
    white, _ = with_advantages(
        rows, torch.tensor([1.0, -1.0]), penalty, rl_config("ppo", ppo={"gae_lambda": 1.0})
    )
    assert float(white.advantages[mask].mean()) == pytest.approx(0, abs=1e-6)
    assert float(white.advantages[mask].std()) == pytest.approx(1, abs=1e-5)
    assert made.returns is not made.advantages


def test_overlong_penalty_grows_towards_the_limit() -> None:
    """R9, trap 13: 0 up to the buffer, then linear to −penalty at the limit."""
    rl = rl_config("grpo", max_new_tokens=6, overlong={"buffer": 4, "penalty": 0.5})
    batch = make_batch(groups_of(tiny_system(rl), rl), 0)
    batch = replace(batch, lengths=torch.tensor([1, 2, 3, 4, 5, 6, 6, 6]), rewards=torch.ones(8))
    expected = [1, 1, 1 - 0.125, 1 - 0.25, 1 - 0.375, 0.5, 0.5, 0.5]
    assert shaped_rewards(batch, rl).tolist() == pytest.approx(expected)
    assert shaped_rewards(batch, rl_config("grpo")).tolist() == [1] * 8


def scripted(flat: set[str]) -> tuple[ScriptedEngine, Any]:
    """An engine and reward: prompts whose text ends with a digit of ``flat`` always earn the same."""
    tokenizer = tiny_tokenizer()
    engine = ScriptedEngine(lambda prompt, g: "a" if _digit(prompt) in flat else "a" * (g + 1), tokenizer)
    return engine, lambda sample: float(len(sample.completion))


def _digit(prompt: str) -> str:
    return [c for c in prompt if c.isdigit()][-1]


def test_dynamic_sampling_replaces_flat_groups() -> None:
    """R9: groups that teach nothing are replaced by those of further prompts, in the order of the stream."""
    rl = rl_config("dapo", num_prompts=3, overlong={"buffer": 0}, dynamic_sampling={"max_rounds": 8})
    engine, reward = scripted(flat={"0", "2", "3", "6", "7"})
    groups = groups_of(tiny_system(rl, reward, engine=engine), rl)
    assert sorted(_digit(g.prompt.text) for g in groups) == ["1", "4", "5"]
    off = rl.model_copy(update={"dynamic_sampling": rl_config("grpo").dynamic_sampling})
    assert len(groups_of(tiny_system(off, reward, engine=engine), off)) == 3


def test_dynamic_sampling_gives_up_after_its_rounds() -> None:
    """R9: when nothing varies, the step goes on with what there is, and full in number."""
    rl = rl_config("dapo", num_prompts=3, overlong={"buffer": 0}, dynamic_sampling={"max_rounds": 2})
    engine, reward = scripted(flat=set("0123456789"))
    stream = PromptStream(prompts(), seed=1)
    system = tiny_system(rl, reward, engine=engine)
    groups = collect_groups(system, stream, rl, 3, Phases(), RewardShaping(rl, system.reward)).trained
    assert len(groups) == 3
    assert stream.state()["position"] == 6  # two rounds of three prompts


def half_abstains(sample: Sample) -> float | None:
    return None if sample.token_ids[0] % 4 == 0 else even_share(sample)


def test_abstentions_leave_the_rest_of_the_group(tmp_path: Path) -> None:
    """Trap 3: abstained completions have advantage 0 and count nowhere; they are recorded as None."""
    rl = rl_config("grpo", num_prompts=4, steps=2)
    train(tiny_system(rl, half_abstains), rl, tiny_stage(tmp_path))
    records = read_rollouts(tmp_path, "rl", 1)
    silent = [record for record in records if record["reward"] is None]
    assert 0 < len(silent) < len(records) == 16
    assert all(record["advantage"] == 0 for record in silent)
    spoken = [record["reward"] for record in records if record["reward"] is not None]
    assert column(tmp_path, "reward/mean")[0] == pytest.approx(sum(spoken) / len(spoken))
    assert column(tmp_path, "reward/abstained")[0] == pytest.approx(len(silent) / 16)


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_a_lone_reward_of_a_group_teaches_nothing(algorithm: str, tmp_path: Path) -> None:
    """Trap 3: where graders failed for all but one of a group, that group is left out."""
    seen = []

    def one_of_four(sample: Sample) -> float | None:
        seen.append(sample)
        return even_share(sample) if len(seen) % 4 == 1 else None

    rl = rl_config(algorithm, steps=1, kl={"coef": 0.0})
    system = tiny_system(rl, one_of_four)
    before = weights(system.policy)
    train(system, rl, tiny_stage(tmp_path))
    assert same_weights(before, weights(system.policy))
    assert column(tmp_path, "reward/abstained") == [0.75]
    assert [record["advantage"] for record in read_rollouts(tmp_path, "rl")] == [0.0] * 8


@pytest.mark.parametrize("algorithm", ["grpo", "ppo", "rloo", "reinforce_plus_plus", "gspo", "dr_grpo"])
def test_a_step_where_every_reward_abstains_moves_nothing(algorithm: str, tmp_path: Path) -> None:
    """Trap 3, R19: a grader that is down teaches nothing: weights stay, no NaN. In a run's first step it ends
    the run, after that step is on record."""
    rl = rl_config(algorithm, steps=1, kl={"coef": 0.05})
    system = tiny_system(rl, lambda sample: None)
    before = weights(system.policy)
    with pytest.raises(RewardError, match="no completion got a reward"):
        train(system, rl, tiny_stage(tmp_path))
    assert same_weights(before, weights(system.policy))
    table = metrics_table(tmp_path, "rl")
    assert table["reward/abstained"] == [1.0]
    assert "reward/mean" not in table
    assert all(value[0] is None or abs(value[0]) < float("inf") for value in table.values())
    assert not read_events(tmp_path, "verdict")


def test_reference_is_refreshed(tmp_path: Path) -> None:
    """R10: every n steps the reference becomes the current policy, so the KL starts again from 0."""
    rl = rl_config("grpo", steps=4, reference_refresh_steps=2, learning_rate=1e-2)
    train(tiny_system(rl), rl, tiny_stage(tmp_path))
    measured = column(tmp_path, "kl/ref")
    assert measured[1] > 1e-4
    assert measured[2] == pytest.approx(0, abs=1e-9)
    assert measured[3] > 1e-4


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_prompts_are_drawn_again_on_schedule(algorithm: str, tmp_path: Path) -> None:
    """R21: every n steps the prompts are those of the next generation, and an event says so."""
    rl = rl_config(algorithm, steps=6, data="task:arithmetic", refresh_every=2)
    train(tiny_system(rl), rl, tiny_stage(tmp_path))
    ids = [{record["prompt_id"] for record in read_rollouts(tmp_path, "rl", step)} for step in range(1, 7)]
    generations = [{name.partition("-")[0] if "-" in name else "0" for name in step} for step in ids]
    assert generations == [{"0"}, {"0"}, {"1"}, {"1"}, {"2"}, {"2"}]
    events = read_events(tmp_path, "prompts_refreshed")
    assert [event.step for event in events] == [2, 4]
    assert [dict(event.data) for event in events] == [
        {"generation": 1, "num_prompts": 8, "num_new": 8},
        {"generation": 2, "num_prompts": 8, "num_new": 8},
    ]


def test_prompts_stay_without_a_schedule(tmp_path: Path) -> None:
    """R21: 0 never draws again."""
    rl = rl_config(steps=3, data="task:arithmetic")
    train(tiny_system(rl), rl, tiny_stage(tmp_path))
    assert not read_events(tmp_path, "prompts_refreshed")


def test_the_reference_never_moves_by_itself(tmp_path: Path) -> None:
    """R8: four distributions are never confused: updates of the policy leave the reference alone."""
    rl = rl_config("ppo", steps=2)
    system = tiny_system(rl)
    before = {k: v.clone() for k, v in system.reference.model.state_dict().items()}
    policy = weights(system.policy)
    train(system, rl, tiny_stage(tmp_path))
    assert same_weights(before, dict(system.reference.model.state_dict()))
    assert not same_weights(policy, weights(system.policy))


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_completions_carry_the_version_that_sampled_them(algorithm: str, tmp_path: Path) -> None:
    """Design: weights are published after every step, so staleness is 0."""
    rl = rl_config(algorithm, steps=3)
    train(tiny_system(rl), rl, tiny_stage(tmp_path))
    for step in (1, 2, 3):
        assert {record["policy_version"] for record in read_rollouts(tmp_path, "rl", step)} == {step - 1}


def test_same_seed_same_run(tmp_path: Path) -> None:
    """Issue 2: the seed decides everything; another seed gives another run."""
    found = []
    for number, seed in enumerate((5, 5, 6)):
        rl = rl_config("grpo", steps=2)
        system = tiny_system(rl)
        train(system, rl, tiny_stage(tmp_path / str(number)), seed=seed)
        found.append(weights(system.policy))
    assert same_weights(found[0], found[1])
    assert not same_weights(found[0], found[2])
