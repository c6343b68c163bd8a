"""Alarms in, actions out: what the guard does in a run with ``monitor.guard = "heal"`` (R14).

The remedies against an alarm are tried in order, one each time that it is raised; one that cannot be taken
(the last notch, no healthy checkpoint) gives way to the next. Budgets and cooldowns keep the guard from
fighting itself; when the alarm is gone, settings go back to the recipe's one notch at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trimtab.config import MonitorConfig, Remedy
from trimtab.monitor.cases import Case, Hold, Trend, trend_of
from trimtab.monitor.controls import KNOBS, Controls, Knob
from trimtab.monitor.policy import BRAKES, EVALUATED, KNOB_OF, LEVELS, STILL_PAID, policy_of
from trimtab.monitor.policy import is_severe as is_severe_alarm
from trimtab.monitor.signals import Alarm
from trimtab.monitor.snapshots import Snapshots

MAX_PATIENCE = 8  # a setting that relapses is held longer, up to so many times


@dataclass(frozen=True, slots=True)
class Action:
    """Something that the guard does: a remedy, or the undoing of a notch of one.

    ``notches`` of ``knob`` before and after; ``checkpoint`` is where a rollback goes, in finished steps.
    """

    action: Remedy
    alarm: str
    reason: str
    is_undo: bool = False
    knob: Knob | None = None
    notches: tuple[int, int] = (0, 0)
    checkpoint: int | None = None


class Healer:
    """Decides once per step; owns the controls. Pure: who calls it records and carries out the actions.

    Raises:
        ConfigError: the recipe's policy names an alarm that does not exist.

    Example:
        >>> healer = Healer(MonitorConfig(guard="heal"))
        >>> healer.see([Alarm("kl_too_high", "kl/ref", 0.8, 0.5)])
        >>> [action.action for action in healer.decide(step=12)], healer.controls.notches["kl_coef"]
        (['raise_kl'], 1)
    """

    def __init__(self, config: MonitorConfig) -> None:
        self.config, self.policy = config.heal, policy_of(config.heal)
        self.relax_after = max(self.config.relax_after, config.window + 1)
        self.controls = Controls(self.config)
        self.snapshots = Snapshots(self.config.healthy_steps, config.window, self.config.keep_healthy)
        self.num_actions = self.num_rollbacks = 0
        self._seen: list[Alarm] = []
        self._standing: list[Alarm] = []  # severe ones of the last step that were raised before
        self._crash = ""  # why updates can no longer be made; empty while they can
        self._cases: dict[str, Case] = {}
        self._holds: dict[Knob, Hold] = {knob: Hold() for knob in KNOBS}

    @property
    def is_spent(self) -> bool:
        """Whether the run's budget of actions is used up."""
        return self.num_actions >= self.config.max_actions

    def _has_budget(self, kind: str) -> bool:
        return not self.is_spent and self._cases[kind].actions < self.config.max_actions_per_kind

    def see(self, alarms: Sequence[Alarm]) -> None:
        """Take new alarms; the next decision answers them."""
        self._seen += [alarm for alarm in alarms if alarm.kind in self.policy]

    def look(self, reward: float | None, standing: Sequence[Alarm]) -> None:
        """Take the mean reward of a step and the alarms that stand, new or not; see :meth:`_still_severe`."""
        if reward is not None and math.isfinite(reward):
            self.snapshots.earned(reward)
        self._standing = [alarm for alarm in standing if is_severe_alarm(alarm, self.config.severe)]

    def catch(self, reason: str) -> bool:
        """Whether a run that non-finite updates would stop can be rolled back instead."""
        can = self._can_roll_back() and not self.is_spent and "rollback" in self.policy.get("non_finite", ())
        self._crash = reason if can else ""
        return can

    @property
    def is_crashed(self) -> bool:
        """Whether the weights are unfit to be sampled from until :meth:`decide` has rolled them back."""
        return bool(self._crash)

    def decide(self, step: int) -> list[Action]:
        """What to do after ``step``, in order. A rollback ends the list's remedies: it answers all alarms."""
        alarms, self._seen = self._seen, []
        alarms += self._still_severe(alarms, step)
        reason, self._crash = self._crash, ""
        for alarm in alarms:
            self._cases.setdefault(alarm.kind, Case(step)).last_alarm = step
        if alarms or reason:
            self.snapshots.alarm(step)
        self.snapshots.confirm(step + 1)
        if reason:
            self._cases.setdefault("non_finite", Case(step)).last_alarm = step
            if done := self._roll_back("non_finite", reason, step):
                return done
        found: list[Action] = []
        for alarm in sorted(alarms, key=lambda alarm: list(self.policy).index(alarm.kind)):
            found += self._treat(alarm, step)
            if any(action.action in ("rollback", "stop") for action in found):
                return found
        return found or self._relax(step)

    def _still_severe(self, alarms: Sequence[Alarm], step: int) -> list[Alarm]:
        """Severe alarms that persist, after a cooldown: too much to wait until they are repeated."""
        new = [alarm.kind for alarm in alarms]
        standing, self._standing = self._standing, []
        found = []
        for alarm in standing:
            if (case := self._cases.get(alarm.kind)) is not None and alarm.kind not in new:
                last = max(case.last_alarm, case.last_action or 0)
                found += [alarm] if step - last >= self.config.cooldown else []
        return found

    def _treat(self, alarm: Alarm, step: int) -> list[Action]:
        case, remedies = self._cases[alarm.kind], self.policy[alarm.kind]
        trend = trend_of(case, alarm)
        is_cooling = case.last_action is not None and step - case.last_action < self.config.cooldown
        if is_cooling or trend == "better":
            return []  # what was done works: more of it would throw away what was learnt
        if self._has_budget(alarm.kind):
            reason = f"{alarm.kind}: {alarm.metric} = {alarm.value:.4g}, limit {alarm.threshold:.4g}"
            order = [(case.position + i) % len(remedies) for i in range(len(remedies))]
            if is_severe_alarm(alarm, self.config.severe):
                order.sort(key=lambda index: remedies[index] != "rollback")
            for index in order:
                if not self._helps(remedies[index], alarm, trend):
                    continue
                if done := self._apply(remedies[index], alarm.kind, reason, step):
                    case.position = (index + 1) % len(remedies)
                    return done
        if "stop" in remedies:
            return [Action("stop", alarm.kind, f"{alarm.kind}, and no other remedy is left")]
        return []

    def _helps(self, remedy: Remedy, alarm: Alarm, trend: Trend) -> bool:
        """Whether a remedy can help against an alarm that was not answered by the last one.

        A brake does not bring back what stands still; what does is waited for, where the table names it. A
        rollback gives away what was learnt: the policy must earn no more than that of the checkpoint.
        """
        if remedy in BRAKES and alarm.kind in LEVELS:
            pulls_back = any(one in KNOB_OF and one not in BRAKES for one in self.policy[alarm.kind])
            return trend != "steady" or not pulls_back
        if remedy == "rollback" and alarm.kind in STILL_PAID:
            return self.snapshots.is_worth_it()
        return True

    def _apply(self, remedy: Remedy, kind: str, reason: str, step: int) -> list[Action]:
        if remedy == "rollback":
            return self._roll_back(kind, reason, step)
        return self._push(remedy, kind, reason, step) if remedy in KNOB_OF else []

    def _can_roll_back(self) -> bool:
        return self.num_rollbacks < self.config.max_rollbacks and bool(self.snapshots.healthy)

    def _roll_back(self, kind: str, reason: str, step: int) -> list[Action]:
        """Back to a healthy checkpoint, and one notch of all that the table names: else it would recur."""
        target = self.snapshots.roll_back() if self._can_roll_back() else None
        if target is None:
            return []
        self.num_rollbacks += 1
        for case in self._cases.values():
            case.excess = None
        self._count(kind, step)
        found = [Action("rollback", kind, reason, checkpoint=target)]
        for remedy in self.policy[kind]:
            if remedy in KNOB_OF and self._has_budget(kind):
                found += self._push(remedy, kind, f"after the rollback: {reason}", step)
        for knob in (KNOB_OF[remedy] for remedy in BRAKES):
            # Once more at the recipe's pace would end where it ended.
            self._holds[knob].floor = self.controls.notches[knob]
        return found

    def _push(self, remedy: Remedy, kind: str, reason: str, step: int) -> list[Action]:
        knob = KNOB_OF[remedy]
        hold, before = self._holds[knob], self.controls.notches[knob]
        is_fresh = hold.relaxed is not None and step - hold.relaxed < self.config.cooldown
        if is_fresh or hold.pushed == step or not self.controls.push(knob):
            return []
        if hold.relaxed is not None and step - hold.relaxed < 2 * self.relax_after:
            hold.patience = min(MAX_PATIENCE, 2 * hold.patience)
        hold.pushed = step
        if kind not in hold.kinds:
            hold.kinds.append(kind)
        self._count(kind, step)
        return [Action(remedy, kind, reason, knob=knob, notches=(before, before + 1))]

    def _count(self, kind: str, step: int) -> None:
        self.num_actions += 1
        case = self._cases[kind]
        case.actions, case.last_action = case.actions + 1, step

    def _relax(self, step: int) -> list[Action]:
        """One notch of every knob whose alarms have been silent; none that could not be moved again."""
        if self.is_spent:
            return []
        found = []
        for knob, hold in self._holds.items():
            before, wait = self.controls.notches[knob], self.relax_after * hold.patience
            moved = max(hold.pushed or 0, hold.relaxed or 0)
            if (
                before <= hold.floor
                or step - moved < wait
                or not all(self._is_gone(k, step, wait) for k in hold.kinds)
            ):
                continue
            self.controls.relax(knob)
            hold.relaxed = step
            remedy = next(remedy for remedy, found_knob in KNOB_OF.items() if found_knob == knob)
            kinds = ", ".join(hold.kinds)
            reason = f"no alarm {kinds} for {wait} steps"
            found.append(Action(remedy, kinds, reason, True, knob, (before, before - 1)))
            if before - 1 <= hold.floor:
                hold.kinds = []
        return found

    def _is_gone(self, kind: str, step: int, wait: int) -> bool:
        """Whether an alarm has been silent for ``wait`` steps, also at an evaluation where that raises it."""
        last, evaluated = self._cases[kind].last_alarm, self.snapshots.last_evaluation
        if kind in EVALUATED and (evaluated is None or evaluated < last + wait):
            return False
        if step - last < wait:
            return False
        self._cases[kind].position = 0
        return True

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {
            "controls": self.controls.state(),
            "snapshots": self.snapshots.state(),
            "num_actions": self.num_actions,
            "num_rollbacks": self.num_rollbacks,
            "cases": {kind: asdict(case) for kind, case in self._cases.items()},
            "holds": {str(knob): asdict(hold) for knob, hold in self._holds.items()},
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.controls.load_state(state["controls"])
        self.snapshots.load_state(state["snapshots"])
        self.num_actions, self.num_rollbacks = int(state["num_actions"]), int(state["num_rollbacks"])
        self._cases = {kind: Case(**case) for kind, case in state["cases"].items()}
        self._holds = {knob: Hold(**state["holds"][knob]) for knob in KNOBS}
