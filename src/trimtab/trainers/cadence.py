"""What happens between steps: records, the KL controller, evaluation, checkpoints, a fresh reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trimtab.config import RLConfig
from trimtab.data import PromptStream
from trimtab.distributed.build import System
from trimtab.monitor import FixedKLController, KLController, Measure, controlled_metric
from trimtab.trainers.healing import checkpoint_interval, heal, kl_coef_in_force, settings_in_force
from trimtab.trainers.shaping import RewardShaping
from trimtab.trainers.stage import HasState, Stage, StepContext
from trimtab.types import Prompt, RewardResult


@dataclass(frozen=True)
class Cadence:
    """The rhythm of an RL stage.

    ``evaluate`` samples the hidden prompts and returns ``eval/*`` measures; None where there are none.
    A completion passes when its reward is at least ``pass_threshold``, in training as in evaluation.
    """

    rl: RLConfig
    stage: Stage
    seed: int
    evaluate: Callable[[System, int], Mapping[str, Measure]] | None = None
    pass_threshold: float = 0.5

    def begin(
        self, step: int, steps: int, system: System, controller: KLController
    ) -> tuple[RLConfig, StepContext]:
        """The settings of a step and where it stands: the recipe's, with what the guard has moved (R14)."""
        coef = kl_coef_in_force(self.stage, self.rl, controller.kl_coef)
        return settings_in_force(self.stage, system, self.rl), StepContext(step, steps, self.seed, coef)

    def after_step(
        self, step: int, metrics: Mapping[str, float], records: Sequence[Mapping[str, Any]]
    ) -> None:
        """Record a finished step and show one of its completions."""
        self.stage.run.rollouts(self.stage.name, step + 1, records)
        self.stage.guard.gaps.observe(pass_shares(records, self.pass_threshold))
        self.stage.see_rewards([RewardResult(r["reward"], error=r["error"]) for r in records])
        self.stage.log(step, metrics)
        self.stage.tell_bad_rewards(step, [record["error"] or "" for record in records])
        if records:
            best = max(records, key=lambda record: record["reward"] or 0.0)
            self.stage.view.sample(best["prompt"], best["completion"], best["reward"])

    def follow_kl(
        self, controller: KLController, step: int, metrics: Mapping[str, float], num_samples: int
    ) -> None:
        """Let the controller follow the KL that was measured; every change is an event (R15)."""
        name = controlled_metric(self.rl.kl)
        if name not in metrics:
            return
        before, state = controller.kl_coef, controller.state()
        after = controller.update(metrics[name], num_samples)
        if after < before and kl_coef_in_force(self.stage, self.rl, before) > before:
            controller.load_state(state)  # the guard has raised it: one must not pull against the other
            return
        if after != before:
            change = {"before": before, "after": after, "kl": metrics[name], "metric": name}
            self.stage.run.event(self.stage.name, "kl_changed", step + 1, change)

    def follow_constraints(self, shaping: RewardShaping, step: int) -> None:
        """Let the weights of constraints follow the violations; every change is an event (R24)."""
        for change in shaping.follow():
            self.stage.run.event(self.stage.name, "constraint_changed", step + 1, asdict(change))

    def evaluate_start(self, first: int, system: System, trained: Mapping[str, HasState]) -> None:
        """Evaluate the policy that training starts from: what every later evaluation is compared with.

        A guard that heals also saves it: until a later checkpoint has proved healthy, that is where to go.
        A run that goes on from there was evaluated before that checkpoint, and has the baseline with it.
        """
        if first > 0 or self.stage.is_restored:
            return
        if self.evaluate is not None and self.rl.eval_every:
            self._evaluate(-1, system)
        if self.stage.guard.healer is not None:
            self._save(0, 1, system, trained)

    def _evaluate(self, step: int, system: System) -> None:
        assert self.evaluate is not None
        with self.stage.watchdog.waiting("evaluation"):
            measures = self.evaluate(system, step + 1)
        self.stage.log_evaluation(step, measures)

    def refresh_prompts(self, step: int, steps: int, stream: PromptStream[Prompt]) -> None:
        """Draw the prompts again where the recipe says so; the event says how many are new (R21)."""
        done, every = step + 1, self.rl.refresh_every
        if not every or done % every or done == steps:
            return
        before = {prompt.text for prompt in stream.items}
        stream.refresh()
        change = {
            "generation": stream.generation,
            "num_prompts": len(stream),
            "num_new": sum(prompt.text not in before for prompt in stream.items),
        }
        self.stage.run.event(self.stage.name, "prompts_refreshed", done, change)
        self.stage.view.note(
            f"step {done}: {len(stream)} prompts drawn again, {change['num_new']} of them new"
        )

    def evaluate_and_save(
        self, step: int, steps: int, system: System, trained: Mapping[str, HasState]
    ) -> None:
        """Evaluate, let the guard act, refresh the reference and save a checkpoint, each where it is due."""
        done, healer = step + 1, self.stage.guard.healer
        is_fit = healer is None or not healer.is_crashed
        if self.evaluate is not None and is_fit and self.rl.eval_every and done % self.rl.eval_every == 0:
            self._evaluate(step, system)
        heal(self.stage, system, self.rl, step, trained)
        refresh = self.rl.reference_refresh_steps
        if refresh and done % refresh == 0:
            system.refresh_reference(self.rl.reference_mix)
            self.stage.run.event(self.stage.name, "note", done, {"text": "reference refreshed"})
        self._save(done, steps, system, trained)

    def _save(self, done: int, steps: int, system: System, trained: Mapping[str, HasState]) -> None:
        """Save a checkpoint after ``done`` steps where one is due."""
        every, healer = checkpoint_interval(self.stage), self.stage.guard.healer
        if healer is not None and done % every == 0 and done < steps:
            healer.snapshots.taken(done)
        state = {name: dict(part.state()) for name, part in trained.items()}
        if self.rl.reference_refresh_steps:
            state["reference"] = system.reference.state()
        self.stage.checkpoint_if_due(done, steps, state, every)


def pass_shares(records: Sequence[Mapping[str, Any]], threshold: float) -> list[float]:
    """The share of each prompt's completions that pass: scored at ``threshold`` or more, and no gate closed.

    Abstentions are left out; completions that were sampled and not trained count like the others.
    """
    passed: dict[str, list[bool]] = {}
    for record in records:
        if record["reward"] is not None:
            is_passed = record["reward"] >= threshold and not record.get("is_closed", False)
            passed.setdefault(record["prompt_id"], []).append(is_passed)
    return [sum(found) / len(found) for found in passed.values()]


def restore_rl(stage: Stage, system: System, trained: Mapping[str, HasState]) -> int:
    """Take over the newest checkpoint when the run is resumed; return the step to start with."""
    state = stage.restore()
    if state is None:
        return 0
    for name, part in trained.items():
        if not isinstance(part, FixedKLController):  # whose coefficient is the recipe's, changed or not
            part.load_state(state[name])
    if "reference" in state:
        system.reference.load_state(state["reference"])
    system.publish(policy_version=state["step"])
    return int(state["step"])
