"""What happens between steps: records, the KL controller, evaluation, checkpoints, a fresh reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from trimtab.config import RLConfig
from trimtab.data import PromptStream
from trimtab.distributed.build import System
from trimtab.monitor import KLController
from trimtab.trainers.stage import Stage
from trimtab.types import Prompt


class HasState(Protocol):
    """Anything that can be saved in a checkpoint."""

    def state(self) -> Mapping[str, Any]:
        """Return what is needed to go on."""
        ...

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        ...


@dataclass(frozen=True)
class Cadence:
    """The rhythm of an RL stage.

    ``evaluate`` samples the hidden prompts and returns ``eval/*`` metrics; None where there are none.
    """

    rl: RLConfig
    stage: Stage
    seed: int
    evaluate: Callable[[System, int], Mapping[str, float]] | None = None

    def after_step(
        self, step: int, metrics: Mapping[str, float], records: Sequence[Mapping[str, Any]]
    ) -> None:
        """Record a finished step and show one of its completions."""
        self.stage.run.rollouts(self.stage.name, step, records)
        self.stage.log(step, metrics)
        if records:
            best = max(records, key=lambda record: record["reward"] or 0.0)
            self.stage.view.sample(best["prompt"], best["completion"], best["reward"])

    def follow_kl(
        self, controller: KLController, step: int, metrics: Mapping[str, float], num_samples: int
    ) -> None:
        """Let the controller follow the KL that was measured; every change is an event (R15)."""
        if "kl/ref" not in metrics:
            return
        before = controller.kl_coef
        after = controller.update(metrics["kl/ref"], num_samples)
        if after != before:
            change = {"before": before, "after": after, "kl": metrics["kl/ref"]}
            self.stage.run.event(self.stage.name, "kl_changed", step, change)

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
        self.stage.run.event(self.stage.name, "prompts_refreshed", step, change)
        self.stage.view.note(
            f"step {done}: {len(stream)} prompts drawn again, {change['num_new']} of them new"
        )

    def evaluate_and_save(
        self, step: int, steps: int, system: System, trained: Mapping[str, HasState]
    ) -> None:
        """Evaluate, refresh the reference and save a checkpoint where the recipe says so."""
        done = step + 1
        if self.evaluate is not None and self.rl.eval_every and done % self.rl.eval_every == 0:
            figures = self.evaluate(system, done)
            self.stage.run.event(self.stage.name, "evaluation", step, figures)
            self.stage.run.metrics(self.stage.name, step, figures)
            shown = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
            self.stage.view.note(f"step {done}: {shown}")
        refresh = self.rl.reference_refresh_steps
        if refresh and done % refresh == 0:
            system.refresh_reference()
            self.stage.run.event(self.stage.name, "note", step, {"text": "reference refreshed"})
        state = {name: dict(part.state()) for name, part in trained.items()}
        if refresh:
            state["reference"] = system.reference.model.state_dict()
        self.stage.checkpoint_if_due(done, steps, state)


def restore_rl(stage: Stage, system: System, trained: Mapping[str, HasState]) -> int:
    """Take over the newest checkpoint when the run is resumed; return the step to start with."""
    state = stage.restore()
    if state is None:
        return 0
    for name, part in trained.items():
        part.load_state(state[name])
    if "reference" in state:
        system.reference.model.load_state_dict(state["reference"])
    system.publish(policy_version=state["step"])
    return int(state["step"])
