"""What the guard does against which alarm, how often, and how it takes it back."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from typing import Any, get_args

import pytest

from trimtab.config import MonitorConfig, Remedy
from trimtab.errors import ConfigError
from trimtab.monitor import KNOBS, Action, Alarm, Guard, Healer
from trimtab.monitor.policy import DEFAULT_POLICY, KNOB_OF, policy_of
from trimtab.monitor.snapshots import Snapshots

BAD = {"loss/total": float("nan")}


def healer_of(*, window: int = 3, with_start: bool = True, **heal: Any) -> Healer:
    """A healer with short times; ``with_start`` gives it the checkpoint before the first step."""
    short = {"relax_after": 6, "cooldown": 1, "healthy_steps": 2}
    healer = Healer(MonitorConfig(guard="heal", window=window, heal={**short, **heal}))  # type: ignore[arg-type]
    if with_start:
        healer.snapshots.taken(0)
    return healer


def alarm_of(kind: str, value: float = 0.6, threshold: float = 0.5) -> Alarm:
    return Alarm(kind, "metric", value, threshold)  # type: ignore[arg-type]


def react(healer: Healer, kind: str, step: int, value: float = 0.6) -> list[str]:
    """The names of what is done against an alarm at ``step``."""
    healer.see([alarm_of(kind, value)])
    return [action.action for action in healer.decide(step)]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("kl_too_high", ["raise_kl", "cut_lr", "tighten_clip", "rollback"]),
        ("entropy_collapse", ["raise_entropy", "cut_lr", "raise_temperature", "rollback"]),
        ("non_finite", ["cut_lr", "rollback"]),
        ("quality_gap", ["raise_kl", "rollback"]),
        ("reward_hacking", ["raise_kl", "raise_entropy", "rollback"]),
        ("truncation", []),
    ],
)
def test_policy_table(kind: str, expected: list[str]) -> None:
    """R14: an alarm that worsens gets one remedy after the other; a rollback takes one notch of each."""
    healer = healer_of()
    found = [react(healer, kind, step, 0.5 + 0.1 * 1.5**step) for step in range(len(expected))]
    knobs = [name for name in expected if name in KNOB_OF]
    assert found == [[name] if name != "rollback" else ["rollback", *knobs] for name in expected]


def test_every_remedy_is_known_and_every_switch_of_the_requirement_is_used() -> None:
    """R14: every remedy that the requirement names is one that the default policy can take."""
    used = {remedy for remedies in DEFAULT_POLICY.values() for remedy in remedies}
    assert used | {"stop"} == set(get_args(Remedy))


def test_the_recipe_replaces_single_entries() -> None:
    """R14: the policy is in the recipe; an empty list means that an alarm is only recorded."""
    healer = healer_of(policy={"kl_too_high": ["cut_lr"], "quality_gap": []})
    assert react(healer, "kl_too_high", 0) == ["cut_lr"]
    assert react(healer, "quality_gap", 1) == []
    assert react(healer, "entropy_collapse", 2) == ["raise_entropy"]


def test_an_alarm_that_does_not_exist_is_refused() -> None:
    """The nearest one is named."""
    with pytest.raises(ConfigError, match="did you mean 'kl_too_high'"):
        policy_of(MonitorConfig(heal={"policy": {"kl_to_high": ["cut_lr"]}}).heal)  # type: ignore[arg-type]


def test_stop_is_taken_when_nothing_else_is_left() -> None:
    """R14: `stop` in a policy waits until the settings before it have no notch left."""
    healer = healer_of(policy={"kl_too_high": ["cut_lr", "stop"]}, max_notches=2)
    assert [react(healer, "kl_too_high", step) for step in range(3)] == [["cut_lr"], ["cut_lr"], ["stop"]]


def test_cooldown() -> None:
    """Issue 5 (2): between two actions against one alarm there are `cooldown` steps; others may act."""
    healer = healer_of(cooldown=4)
    assert react(healer, "kl_too_high", 10) == ["raise_kl"]
    assert react(healer, "kl_too_high", 13) == []
    assert react(healer, "entropy_collapse", 13) == ["raise_entropy"]
    assert react(healer, "kl_too_high", 14, 0.7) == ["cut_lr"]


def test_budgets() -> None:
    """Issue 5 (2): per kind, per run, and rollbacks; what is spent is spent."""
    healer = healer_of(max_actions_per_kind=2, max_actions=3)
    found = [react(healer, "kl_too_high", step, 0.6 + 0.1 * step) for step in range(3)]
    assert found == [["raise_kl"], ["cut_lr"], []]
    assert react(healer, "entropy_collapse", 3) == ["raise_entropy"]
    assert react(healer, "entropy_collapse", 4) == []
    healer = healer_of(max_rollbacks=1, policy={"kl_too_high": ["rollback"]})
    assert [react(healer, "kl_too_high", step) for step in range(3)] == [["rollback"], [], []]


def test_a_severe_alarm_is_rolled_back_at_once() -> None:
    """R14: beyond four times the limit small steps come too late."""
    healer = healer_of()
    assert react(healer, "kl_too_high", 0, 2.1) == ["rollback", "raise_kl", "cut_lr", "tighten_clip"]
    healer = healer_of()
    assert react(healer, "kl_too_high", 0, 1.9) == ["raise_kl"]
    healer = healer_of()
    assert react(healer, "entropy_collapse", 0, 0.1)[0] == "rollback"


def test_what_works_is_not_rolled_back() -> None:
    """R14: while the excess shrinks nothing more is done; by the last values, where a mean lags behind."""
    healer = healer_of(policy={"kl_too_high": ["cut_lr", "rollback"]})
    assert react(healer, "kl_too_high", 0, 1.5) == ["cut_lr"]
    assert react(healer, "kl_too_high", 1, 1.2) == [], "0.7 over the limit instead of 1.0"
    assert react(healer, "kl_too_high", 2, 1.2) == ["rollback", "cut_lr"], "no longer shrinking"
    healer = healer_of()
    assert react(healer, "kl_too_high", 0, 1.5) == ["raise_kl"]
    healer.see([Alarm("kl_too_high", "kl/ref", 1.6, 0.5, {"recent": 0.9})])
    assert healer.decide(1) == []


def test_a_brake_is_not_for_what_stands_still() -> None:
    """R14: a smaller learning rate does not bring a KL back; it keeps a raised coefficient from it."""
    healer = healer_of(max_notches=3)
    found = [react(healer, "kl_too_high", step, 0.7) for step in range(1)]
    healer.snapshots.healthy.clear()
    found += [react(healer, "kl_too_high", step, 0.7) for step in range(1, 5)]
    assert found == [["raise_kl"], ["raise_kl"], ["raise_kl"], [], []]
    assert react(healer, "kl_too_high", 5, 0.9) == ["cut_lr"], "it grows again"


def test_a_rollback_must_be_worth_it() -> None:
    """R14: a policy that earns more than that of the checkpoint is kept, however high its KL; unless it is
    the reward that is doubted."""
    for rewards, wanted in (((0.2, 0.5, 0.5, 0.5), "raise_kl"), ((0.2, 0.1, 0.1, 0.1), "rollback")):
        healer = healer_of()
        for reward in rewards:
            healer.look(reward, [])
        assert react(healer, "kl_too_high", 3, 9.0)[0] == wanted
    healer = healer_of(policy={"quality_gap": ["rollback"]})
    for reward in (0.2, 0.9, 0.9, 0.9):
        healer.look(reward, [])
    assert react(healer, "quality_gap", 3) == ["rollback"]


def test_what_a_rollback_has_slowed_down_stays_slow() -> None:
    """Issue 5 (2): the recipe's learning rate has shown where it leads; what pulls back is undone as ever."""
    healer = healer_of(policy={"kl_too_high": ["cut_lr", "raise_kl", "rollback"]})
    assert react(healer, "kl_too_high", 0, 9.0) == ["rollback", "cut_lr", "raise_kl"]
    undone = [action.knob for step in range(1, 60) for action in healer.decide(step)]
    assert undone == ["kl_coef"]
    assert healer.controls.notches["learning_rate"] == 1
    assert react(healer, "kl_too_high", 60, 0.6) == ["cut_lr"]
    assert [action.knob for step in range(61, 120) for action in healer.decide(step)] == ["learning_rate"]
    assert healer.controls.notches["learning_rate"] == 1


def test_a_severe_alarm_is_not_waited_for() -> None:
    """R14: one that stands is answered after the cooldown, not when it is repeated after the window."""
    for value, wanted in ((9.0, [0, 3, 6]), (0.6, [0])):
        healer, acted = healer_of(cooldown=3, with_start=False), []
        alarm = alarm_of("kl_too_high", value)
        for step in range(8):
            healer.see([alarm] if step == 0 else [])
            healer.look(0.5, [alarm])
            acted += [step for action in healer.decide(step)[:1] if not action.is_undo]
        assert acted == wanted


def test_without_a_healthy_checkpoint_the_next_remedy_is_taken() -> None:
    """R14: a remedy that cannot be taken gives way."""
    healer = healer_of(with_start=False)
    assert react(healer, "kl_too_high", 0, 99.0) == ["raise_kl"]


def test_undo_is_stepwise_late_and_ends_at_the_recipe() -> None:
    """Issue 5 (2): 6 steps without the alarm undo one notch, 6 more the next; each is an action."""
    healer = healer_of(policy={"kl_too_high": ["cut_lr"]})
    assert react(healer, "kl_too_high", 0) == ["cut_lr"]
    assert react(healer, "kl_too_high", 1) == ["cut_lr"]
    found = {step: healer.decide(step) for step in range(2, 30)}
    undone = {step: [a.notches for a in actions if a.is_undo] for step, actions in found.items() if actions}
    assert undone == {7: [(2, 1)], 13: [(1, 0)]}
    assert healer.controls.is_neutral


def test_a_relapse_is_held_longer() -> None:
    """Issue 5 (2): an alarm soon after the undoing doubles the time, so that nothing swings for ever."""
    healer = healer_of(policy={"kl_too_high": ["cut_lr"]})
    react(healer, "kl_too_high", 0)
    assert [step for step in range(1, 8) if healer.decide(step)] == [6]
    react(healer, "kl_too_high", 8)
    assert [step for step in range(9, 40) if healer.decide(step)] == [20]


def test_alarms_of_evaluations_are_gone_only_after_an_evaluation() -> None:
    """R21: between two evaluations silence says nothing."""
    healer = healer_of(policy={"quality_gap": ["raise_kl"]})
    react(healer, "quality_gap", 0)
    assert not [step for step in range(1, 30) if healer.decide(step)]
    healer.snapshots.evaluated(30)
    assert [action.is_undo for action in healer.decide(30)] == [True]


def test_updates_that_cannot_be_made_roll_back_then_stop() -> None:
    """R14: where protect stops, heal goes back, as long as there is where to go and a budget for it."""
    guard = Guard(max_skips=1, config=MonitorConfig(guard="heal", heal={"max_rollbacks": 1}))  # type: ignore[arg-type]
    assert guard.healer is not None
    guard.healer.snapshots.taken(0)
    assert [guard.before_update(BAD).verdict for _ in range(2)] == ["skip_update", "rollback"]
    done = guard.healer.decide(0)
    assert [action.action for action in done] == ["rollback", "cut_lr"]
    assert done[0].checkpoint == 0
    assert [guard.before_update(BAD).verdict for _ in range(2)] == ["skip_update", "stop"]


@pytest.mark.parametrize("mode", ["observe", "protect"])
def test_other_modes_have_nothing_that_could_act(mode: str) -> None:
    """Issue 5 (2): observe and protect hold no controls; protect skips and then stops, observe says that."""
    guard = Guard(config=MonitorConfig(guard=mode))  # type: ignore[arg-type]
    assert guard.healer is None
    decisions = [guard.before_update(BAD) for _ in range(4)]
    wanted = ["skip_update"] * 3 + ["stop"]
    if mode == "protect":
        assert [(one.verdict, one.would) for one in decisions] == [(verdict, None) for verdict in wanted]
    else:
        assert [(one.verdict, one.would) for one in decisions] == [("observe", verdict) for verdict in wanted]
    assert [one.is_applied for one in decisions] == [mode == "observe"] * 4
    assert guard.before_update({"loss/total": 1.0}).verdict == "proceed"
    assert guard.on_broken_state("weight", "w is not finite").verdict == "stop"


def test_observe_says_what_heal_would_do() -> None:
    """Issue 5 (2): the remedies of the recipe's table, in order; other modes do not speak of it."""
    alarm = Alarm("kl_too_high", "kl/ref", 0.8, 0.5)
    policy = {"kl_too_high": ["cut_lr", "stop"]}
    for mode, wanted in (("observe", ("cut_lr", "stop")), ("protect", ()), ("heal", ())):
        config = MonitorConfig(guard=mode, heal={"policy": policy})  # type: ignore[arg-type]
        assert Guard(config=config).would_do(alarm) == wanted


def test_which_checkpoints_are_healthy() -> None:
    """Issue 5 (2): two steps without an alarm, and as many since the last one as it may be held back."""
    snapshots = Snapshots(healthy_steps=2, window=3, keep=2)
    for done in (0, 2, 4):
        snapshots.taken(done)
        snapshots.confirm(done)
    assert (snapshots.healthy, snapshots.candidates) == ([0, 2], [4])
    snapshots.alarm(4)  # in the fifth step
    snapshots.taken(6)
    snapshots.confirm(8)
    assert (snapshots.healthy, snapshots.candidates) == ([0, 2], [6]), "the alarm may be held back until 7"
    snapshots.confirm(9)
    assert snapshots.healthy == [2, 6]
    assert snapshots.roll_back() == 6
    assert snapshots.roll_back() == 2, "the newer one has failed"
    assert snapshots.roll_back() == 2


def test_a_checkpoint_that_a_resumed_run_needs_is_held() -> None:
    """R14: also what was known when the checkpoint before was saved, in case that one is resumed from."""
    snapshots = Snapshots(healthy_steps=1, window=1, keep=1)
    held = []
    for done in range(4):
        snapshots.taken(done)
        held.append(snapshots.held())
        snapshots.confirm(done + 1)
    assert held == [[0], [0, 1], [1, 2], [2, 3]]


@pytest.mark.parametrize("seed", range(40))
def test_random_alarms_never_make_it_fight_itself(seed: int) -> None:
    """Issue 5 (2): whatever is raised, settings stay in bounds, actions in budget, no setting is moved to and
    fro, and in the end the settings are the recipe's; where the budget is spent nothing moves any more."""
    draw = random.Random(seed)
    kinds, rate = list(DEFAULT_POLICY), draw.choice([0.02, 0.1, 0.5])
    healer = healer_of(cooldown=4, max_actions=draw.choice([5, 40]), max_rollbacks=3, max_actions_per_kind=10)
    twin = healer_of(
        cooldown=4, max_actions=healer.config.max_actions, max_rollbacks=3, max_actions_per_kind=10
    )
    log: list[tuple[int, Action]] = []
    for step in range(600):
        alarms = []
        if step < 200:
            alarms = [
                alarm_of(draw.choice(kinds), draw.random() * 3) for _ in range(4) if draw.random() < rate
            ]
        if step == 100:
            twin.load_state(json.loads(json.dumps(healer.state())))
        healer.see(alarms)
        if step % 5 == 0:
            healer.snapshots.evaluated(step)
            healer.snapshots.taken(step + 1)
        found = healer.decide(step)
        if step >= 100:
            twin.see(alarms)
            if step % 5 == 0:
                twin.snapshots.evaluated(step)
                twin.snapshots.taken(step + 1)
            assert twin.decide(step) == found, "a resumed healer decides alike"
        log += [(step, action) for action in found]
        assert all(0 <= n <= healer.config.max_notches for n in healer.controls.notches.values())
    remedies = [action for _, action in log if not action.is_undo]
    assert len(remedies) == healer.num_actions <= healer.config.max_actions
    assert sum(action.action == "rollback" for action in remedies) <= 3
    for knob in KNOBS:
        moves = [(step, action.is_undo) for step, action in log if action.knob == knob]
        for (one, was_undo), (other, is_undo) in pairwise(moves):
            assert other > one, "one move of a setting in a step"
            if is_undo:
                assert other - one >= healer.relax_after
            elif was_undo:
                assert other - one >= healer.config.cooldown
    kept = {knob: healer._holds[knob].floor for knob in KNOBS}
    assert healer.is_spent or healer.controls.notches == kept
    assert twin.state() == healer.state()
