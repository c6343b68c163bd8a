"""The guard that acts, in real loops: rollback, temperature, resuming, and no effect where all is well."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.trainers.systems import (
    prompts,
    quiet_view,
    rl_config,
    same_weights,
    tiny_system,
    train,
    weights,
)
from tests.unit.trainers.test_guard_path import everything, poison_loss
from tests.unit.trainers.test_resume import Interrupted, stop_after

from trimtab.config import MonitorConfig, RLConfig
from trimtab.data import PromptStream
from trimtab.distributed.build import System
from trimtab.errors import DivergedError
from trimtab.models.checkpoint import list_checkpoints
from trimtab.monitor import Alarm, Guard, Measure, build_kl_controller
from trimtab.monitor.snapshots import Snapshots
from trimtab.runs import RunWriter, metrics_table, read_events
from trimtab.trainers.cadence import Cadence
from trimtab.trainers.experience import collect_groups
from trimtab.trainers.grpo import train_grpo
from trimtab.trainers.healing import heal
from trimtab.trainers.shaping import RewardShaping
from trimtab.trainers.stage import Phases, Stage

ALGORITHMS = ("grpo", "ppo")
QUIET = {"max_kl": 1e9, "min_entropy": 0.0}  # nothing but what a test raises
STORM = {"max_kl": 1e-9, "window": 2, "min_entropy": 0.0}  # the KL alarm at every third step


def heal_stage(root: Path, *, guard: str = "heal", **settings: Any) -> Stage:
    monitor = settings.pop("monitor", QUIET)
    run = RunWriter(root, {}, resume=settings.get("is_resumed", False))
    config = MonitorConfig(guard=guard, **monitor)
    return Stage("rl", run, quiet_view(), Guard(config=config), **settings)


def actions(root: Path) -> list[tuple[int, str]]:
    return [(event.step, event.data["action"]) for event in read_events(root, "action")]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_healthy_run_is_the_same_in_every_mode(algorithm: str, tmp_path: Path) -> None:
    """Issue 5 (2): without an alarm observe, protect and heal give the same weights, bit for bit."""
    rl = rl_config(algorithm, steps=3, num_minibatches=2)
    found = {}
    for guard in ("observe", "protect", "heal"):
        system = tiny_system(rl)
        train(system, rl, heal_stage(tmp_path / guard, guard=guard))
        found[guard] = everything(system)
        assert actions(tmp_path / guard) == []
    for guard in ("observe", "heal"):
        assert all(torch.equal(found["protect"][name], found[guard][name]) for name in found["protect"])


def test_observing_changes_nothing_whatever_is_raised(tmp_path: Path) -> None:
    """Issue 5 (2): under a storm of alarms observe trains as protect does, bit for bit; heal does not."""
    rl, found = rl_config(steps=6, learning_rate=1e-2), {}
    for guard in ("observe", "protect", "heal"):
        system = tiny_system(rl)
        train(system, rl, heal_stage(tmp_path / guard, guard=guard, monitor=STORM))
        assert read_events(tmp_path / guard, "alarm")
        found[guard] = weights(system.policy)
    assert same_weights(found["observe"], found["protect"])
    assert not same_weights(found["heal"], found["protect"])


def test_observe_lets_a_bad_figure_through_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 5 (2): a figure that is NaN beside finite gradients: the run trains on as if nobody looked."""
    rl, found = rl_config(steps=2, learning_rate=1e-3), {}
    for guard, is_bad in (("observe", True), ("protect", True), ("protect", False)):
        system: Any = tiny_system(rl)
        real = system.policy.forward_backward

        def spoilt(batch: Any, objective: Any, real: Any = real, is_bad: bool = is_bad) -> dict[str, float]:
            return real(batch, objective) | ({"policy/ratio_max": math.inf} if is_bad else {})

        monkeypatch.setattr(system.policy, "forward_backward", spoilt)
        root = tmp_path / f"{guard}-{is_bad}"
        train(system, rl, heal_stage(root, guard=guard))
        found[guard, is_bad] = weights(system.policy)
        verdicts = [(e.data["verdict"], e.data.get("would")) for e in read_events(root, "verdict")]
        wanted = {"observe": ("observe", "skip_update"), "protect": ("skip_update", None)}[guard]
        assert verdicts == ([wanted] * 2 if is_bad else [])
    assert same_weights(found["observe", True], found["protect", False])
    assert not same_weights(found["protect", True], found["protect", False])


def test_observe_stops_on_weights_that_are_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 5 (2): gradients that are NaN go in; then there is nothing to train, and the run says so."""
    rl = rl_config(steps=4)
    system = tiny_system(rl)
    poison_loss(system, {1}, monkeypatch)
    with pytest.raises(DivergedError, match=r"at step 2: weight: .* is not finite after the update"):
        train(system, rl, heal_stage(tmp_path, guard="observe"))
    assert [e.data["verdict"] for e in read_events(tmp_path, "verdict")] == ["observe", "stop"]


def test_an_observed_alarm_lists_what_heal_would_try(tmp_path: Path) -> None:
    """Issue 5 (2): in the event, for whoever reads it; in the other modes there is no such key."""
    rl = rl_config(steps=4, learning_rate=1e-2)
    for guard in ("observe", "protect"):
        train(tiny_system(rl), rl, heal_stage(tmp_path / guard, guard=guard, monitor=STORM))
    (first, *_) = [
        e.data for e in read_events(tmp_path / "observe", "alarm") if e.data["kind"] == "kl_too_high"
    ]
    assert first["would"] == ["raise_kl", "cut_lr", "tighten_clip", "rollback"]
    assert not any("would" in e.data for e in read_events(tmp_path / "protect", "alarm"))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_rollback_restores_and_goes_on(algorithm: str, tmp_path: Path) -> None:
    """Issue 5 (2): weights, optimizers and controller of the checkpoint; the stream and the steps go on."""
    rl = rl_config(algorithm, steps=2, kl={"controller": "adaptive", "horizon": 2})
    system, stage = tiny_system(rl), heal_stage(tmp_path)
    train(system, rl, stage)
    start = {name: x.clone() for name, x in tiny_system(rl).policy.module.named_parameters()}
    assert not same_weights(start, weights(system.policy))
    stream, controller = PromptStream(prompts(), seed=1), build_kl_controller(rl.kl)
    stream.next_batch(3)
    controller.update(9.0)
    trained: Any = {"policy": system.policy, "stream": stream, "kl_controller": controller}
    trained["shaping"] = RewardShaping(rl, system.reward)
    if system.critic is not None:
        trained["critic"] = system.critic
    before = stream.state()
    assert stage.guard.healer is not None
    stage.guard.healer.look(-1.0, [])  # it earns less now than before the first step
    stage.guard.healer.see([Alarm("kl_too_high", "kl/ref", 9.0, 0.5)])
    done = heal(stage, system, rl, 2, trained)
    assert [action.action for action in done] == ["rollback", "raise_kl", "cut_lr", "tighten_clip"]
    assert same_weights(start, weights(system.policy))
    assert not any(".exp_avg" in name for name in everything(system)), "no moments before the first step"
    assert controller.kl_coef == rl.kl.coef
    assert stream.state() == before
    data = [event.data for event in read_events(tmp_path, "action")]
    assert (data[0]["setting"], data[0]["before"], data[0]["after"]) == ("step", 3, 0)
    assert (data[2]["setting"], data[2]["before"], data[2]["after"]) == ("learning_rate", 1e-3, 3e-4)
    assert "kl/ref = 9, limit 0.5" in data[0]["reason"]


def test_settings_in_force_reach_the_step(tmp_path: Path) -> None:
    """R14: what was cut and raised is what the next step trains with, and what its metrics show."""
    rl = rl_config(steps=3)
    stage = heal_stage(tmp_path)
    assert stage.guard.healer is not None
    stage.guard.healer.see(
        [Alarm("kl_too_high", "kl/ref", 0.6, 0.5), Alarm("clip_saturation", "c", 0.4, 0.3)]
    )
    train(tiny_system(rl), rl, stage)
    table = metrics_table(tmp_path, "rl")
    assert table["train/learning_rate"] == pytest.approx([1e-3, 3e-4, 3e-4])
    assert table["kl/coef"] == pytest.approx([0.001, 0.003, 0.003])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_raised_temperature_holds_in_sampling_and_learning(algorithm: str, tmp_path: Path) -> None:
    """Traps 9 and 17: after raising it the log-probabilities of engine, policy and reference still agree."""
    rl = rl_config(algorithm, steps=1, temperature=0.8)
    system, stage = tiny_system(rl), heal_stage(tmp_path)
    assert stage.guard.healer is not None
    stage.guard.healer.controls.push("temperature")
    now, _ = Cadence(rl=rl, stage=stage, seed=1).begin(0, 1, system, build_kl_controller(rl.kl))
    assert now.temperature == pytest.approx(0.92)
    groups = collect_groups(
        system, PromptStream(prompts(), 1), now, 5, Phases(), RewardShaping(rl, system.reward)
    ).trained
    rows = batch_of(system, groups)
    for logprobs in (system.policy.logprobs(rows), system.reference.logprobs(rows)):
        assert torch.allclose(logprobs, rows.rollout_logprobs, atol=1e-5)
    system.set_temperature(0.8)
    assert not torch.allclose(system.policy.logprobs(rows), rows.rollout_logprobs, atol=1e-2)


def batch_of(system: System, groups: Any) -> Any:
    from trimtab.trainers.batching import make_batch

    return make_batch(groups, system.pad_id, mask_truncated=False).rows


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_resumed_healing_equals_uninterrupted(
    algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 5 (4): killed in the middle of healing, rollbacks included, a resumed run ends the same, bit for
    bit: weights, actions, settings."""
    monkeypatch.setattr(Snapshots, "is_worth_it", lambda self: True)  # rollbacks are wanted here
    rl = rl_config(algorithm, steps=14, learning_rate=1e-2, checkpoint_every=2)
    rules = {"policy": {"kl_too_high": ["raise_temperature", "cut_lr", "rollback"]}, "severe": 1e30}
    monitor = {**STORM, "heal": {**rules, "cooldown": 1, "healthy_steps": 1, "relax_after": 3}}

    def run(root: Path, **settings: Any) -> System:
        system = tiny_system(rl)
        stage = heal_stage(root, monitor=monitor, checkpoint_every=2, **settings)
        train(system, rl, stop_after(stage, 11) if settings.pop("dies", False) else stage)
        return system

    whole = run(tmp_path / "whole")
    with pytest.raises(Interrupted):
        stage = heal_stage(tmp_path / "broken", monitor=monitor, checkpoint_every=2)
        train(tiny_system(rl), rl, stop_after(stage, 10))
    resumed = run(tmp_path / "broken", is_resumed=True)
    expected, found = everything(whole), everything(resumed)
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    done = actions(tmp_path / "whole")
    assert "rollback" in [name for step, name in done if step > 8], done
    assert actions(tmp_path / "broken") == done
    for metric in ("train/learning_rate", "kl/coef", "reward/mean", "policy/entropy"):
        assert (
            metrics_table(tmp_path / "broken", "rl")[metric]
            == metrics_table(tmp_path / "whole", "rl")[metric]
        )


def test_the_last_healthy_checkpoint_outlives_its_successors(tmp_path: Path) -> None:
    """Issue 5 (2): while alarms persist nothing newer is healthy, and the start is kept."""
    rl = rl_config(steps=7)
    stage = heal_stage(tmp_path, monitor={**STORM, "heal": {"max_actions": 0}}, checkpoint_every=1)
    train(tiny_system(rl), rl, stage)
    names = [path.name for path in list_checkpoints(stage.checkpoint_directory)]
    assert "step-000000" in names
    assert names[-2:] == ["step-000005", "step-000006"]


def test_the_controller_does_not_lower_what_the_guard_has_raised(tmp_path: Path) -> None:
    """Issue 5 (2): two hands on one setting must not pull in opposite directions."""
    rl = rl_config(kl={"coef": 0.1, "controller": "clipped", "horizon": 1})
    stage, controller = heal_stage(tmp_path), build_kl_controller(rl.kl)
    cadence = Cadence(rl=rl, stage=stage, seed=1)
    assert stage.guard.healer is not None
    stage.guard.healer.controls.push("kl_coef")
    cadence.follow_kl(controller, 0, {"kl/ref": 0.0}, num_samples=8)
    assert controller.kl_coef == 0.1
    cadence.follow_kl(controller, 1, {"kl/ref": 9.0}, num_samples=8)
    assert controller.kl_coef == pytest.approx(0.12)
    stage.guard.healer.controls.relax("kl_coef")
    cadence.follow_kl(controller, 2, {"kl/ref": 0.0}, num_samples=8)
    assert controller.kl_coef == pytest.approx(0.096)


def crash_config(algorithm: str) -> RLConfig:
    return rl_config(algorithm, steps=12, num_epochs_per_batch=1)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_numerical_crash_is_cut_then_rolled_back(
    algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R14: where protect stops, heal cuts the learning rate, rolls back and ends the run."""
    rl = crash_config(algorithm)
    system = tiny_system(rl)
    poison_loss(system, set(range(2, 6)), monkeypatch)
    train(system, rl, heal_stage(tmp_path))
    assert [name for _, name in actions(tmp_path)][:3] == ["cut_lr", "rollback", "cut_lr"]
    verdicts = [event.data["verdict"] for event in read_events(tmp_path, "verdict")]
    assert verdicts == ["skip_update"] * 3 + ["rollback"]
    assert not math.isnan(metrics_table(tmp_path, "rl")["loss/total"][-1] or 0.0)


def test_a_crash_that_never_ends_still_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R14: after the last rollback the run ends with a sentence, as under protect."""
    rl = rl_config(steps=80)
    system = tiny_system(rl)
    poison_loss(system, set(range(1, 200)), monkeypatch)
    with pytest.raises(DivergedError, match="updates in a row were skipped"):
        train(system, rl, heal_stage(tmp_path))
    assert [name for _, name in actions(tmp_path)].count("rollback") == 4


def test_a_checkpoint_that_cannot_be_read_does_not_end_the_run(tmp_path: Path) -> None:
    """Issue 5 (6): a damaged checkpoint costs the rollback, not the run, and is in the record."""
    rl = rl_config(steps=1)
    system, stage = tiny_system(rl), heal_stage(tmp_path)
    train(system, rl, stage)
    (stage.checkpoint_directory / "step-000000" / "tensors.safetensors").write_bytes(b"x")
    before = weights(system.policy)
    assert stage.guard.healer is not None
    stage.guard.healer.see([Alarm("kl_too_high", "kl/ref", 9.0, 0.5)])
    heal(stage, system, rl, 1, {"kl_controller": build_kl_controller(rl.kl)})
    assert same_weights(before, weights(system.policy))
    assert "rollback failed" in read_events(tmp_path, "note")[0].data["text"]


def test_resumed_at_step_0_there_is_one_baseline(tmp_path: Path) -> None:
    """R21: the checkpoint of step 0 holds the evaluation before the first step; it is not made again."""
    rl = rl_config(steps=2, eval_every=1, hidden_data="task:sales")
    calls: list[int] = []

    def evaluate(system: System, step: int) -> dict[str, Measure]:
        calls.append(step)
        return {"eval/pass_rate": Measure.of([0.0, 1.0]), "eval/reward": Measure.of([0.5, 0.5])}

    def go(stage: Stage) -> None:
        system, stream = tiny_system(rl), PromptStream(prompts(), seed=1)
        train_grpo(system, stream, rl, stage, Cadence(rl=rl, stage=stage, seed=1, evaluate=evaluate))

    stage = heal_stage(tmp_path)
    stage.log = interrupt  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        go(stage)
    assert calls == [0]
    assert [path.name for path in list_checkpoints(stage.checkpoint_directory)] == ["step-000000"]
    again = heal_stage(tmp_path, is_resumed=True)
    go(again)
    assert calls == [0, 1, 2]
    assert len(again.guard.gaps.state()["series"]["eval/pass_rate"]) == 3
    shown = [event.data["num_steps"] for event in read_events(tmp_path, "evaluation")]
    assert shown == [0, 1, 2], "the record keeps the one that there is"


def interrupt(*_: Any) -> None:
    raise Interrupted
