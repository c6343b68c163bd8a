"""Our GRPO step in a process of its own. Requests: ``step``, ``ceilings``, ``replay``, ``memory``."""

from __future__ import annotations

import io
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from benchmarks.machine import peak_bytes
from benchmarks.process import Handler, serve
from benchmarks.techniques import switch_off
from benchmarks.workload import StepSpec, encode, make_prompts, recipe_of
from rich.console import Console

from trimtab.config import Recipe
from trimtab.data import PromptStream
from trimtab.distributed.build import System, build_system
from trimtab.models.choice import chosen, measured_choices
from trimtab.models.kernels.build import processor_name
from trimtab.models.roofline import Workload, measure_ceilings, shape_of, synchronize
from trimtab.monitor import Guard
from trimtab.rollout.engine import SamplingParams
from trimtab.runs import RunWriter, TerminalView
from trimtab.runs.manifest import package_version
from trimtab.trainers.batching import make_batch
from trimtab.trainers.grpo import completion_advantages, grpo_step
from trimtab.trainers.objectives import PolicyObjective
from trimtab.trainers.shaping import RewardShaping
from trimtab.trainers.stage import Stage, StepContext
from trimtab.types import Completion, Prompt, RewardResult, RolloutGroup, Sample, TrainBatch


class RandomReward:
    """Rewards that have nothing to do with the completion: no group is skipped for want of variance."""

    name = "random"

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """One random number for each sample."""
        return [RewardResult(self.rng.random()) for _ in samples]


class ForcedLengths:
    """An engine whose completions are exactly as long as they may be."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    def generate(
        self, prompts: Sequence[Sequence[int]], num_generations: int, params: SamplingParams
    ) -> list[list[Completion]]:
        """See ``RolloutEngine``."""
        forced = replace(params, min_new_tokens=params.max_new_tokens)
        return self.engine.generate(prompts, num_generations, forced)

    def load_weights(self, state: Mapping[str, Any] | None, policy_version: int) -> None:
        """See ``RolloutEngine``."""
        self.engine.load_weights(state, policy_version)

    @property
    def policy_version(self) -> int:
        """See ``RolloutEngine``."""
        return int(self.engine.policy_version)


class Ours:
    """A system, its prompts, and how many steps it has made."""

    def __init__(self, spec: StepSpec) -> None:
        if spec.threads:
            torch.set_num_threads(spec.threads)
        switch_off(list(spec.without))
        self.spec, self.recipe = spec, recipe_of(spec)
        self.system = system_of(self.recipe, spec)
        messages = make_prompts(self.system.tokenizer, [spec.prompt_tokens] * spec.num_prompts, spec.seed)
        prompts = [Prompt(str(i), tuple(row)) for i, row in enumerate(messages)]
        self.prompt_ids = [tuple(encode(self.system.tokenizer, p.messages)) for p in prompts]
        self.stream = PromptStream(prompts, spec.seed)
        self.stage = silent_stage()
        self.shaping = RewardShaping(self.recipe.rl, self.system.reward)
        self.steps = 0

    def step(self) -> dict[str, Any]:
        """One whole GRPO step: sample, score, reference, update, publish."""
        rl = self.recipe.rl
        at = StepContext(self.steps, 1_000_000, self.spec.seed, rl.kl.coef)
        synchronize(self.spec.device)
        start = time.perf_counter()
        metrics, _ = grpo_step(self.system, self.stream, rl, self.stage, at, self.shaping)
        synchronize(self.spec.device)
        seconds = time.perf_counter() - start
        self.steps += 1
        phases = {name: value for name, value in metrics.items() if name.startswith("time/")}
        return {
            "seconds": seconds,
            "phases": phases,
            "tokens": metrics["train/tokens"],
            "loss": metrics.get("loss/total"),
            "peak_bytes": peak_bytes(self.spec.device),
        }

    def replay(self, repeats: int) -> dict[str, Any]:
        """Forward, backward and optimizer step over one stored batch, ``repeats`` times after a warm-up."""
        rows = stored_batch(self)
        rl, seconds = self.recipe.rl, []
        for _ in range(repeats + 1):
            synchronize(self.spec.device)
            start = time.perf_counter()
            self.system.policy.forward_backward(rows, PolicyObjective.of(rl, rows, rl.kl.coef))
            self.system.policy.clip_gradients(rl.max_grad_norm)
            self.system.policy.optimizer_step(rl.learning_rate)
            synchronize(self.spec.device)
            seconds.append(time.perf_counter() - start)
        return {
            "seconds": seconds[1:],
            "first_seconds": seconds[0],
            "peak_bytes": peak_bytes(self.spec.device),
        }

    def ceilings(self, rows: Sequence[int], seconds: float) -> dict[str, Any]:
        """The ceilings of this process, and the rooflines that follow."""
        from benchmarks.roofline import rooflines

        shape, spec = shape_of(self.system.policy_model), self.spec
        dtype = self.system.policy_model.dtype
        found = measure_ceilings(shape, rows, dtype, spec.device, seconds)
        work = Workload(spec.num_prompts, spec.num_generations, spec.prompt_tokens, spec.new_tokens)
        return {"ceilings": found.as_dict(), "roofline": rooflines(shape, found, work, max(rows))}


def system_of(recipe: Recipe, spec: StepSpec) -> System:
    """Build the system, with random rewards and forced lengths."""
    system = build_system(recipe, spec.model, None)
    system.engine, system.reward = ForcedLengths(system.engine), RandomReward(spec.seed)
    return system


def silent_stage() -> Stage:
    """A stage that shows nothing and records into a temporary folder: logging and saving are off."""
    folder = tempfile.mkdtemp(prefix="trimtab-bench-")
    view = TerminalView(1, "rl", samples=0, console=Console(file=io.StringIO()))
    return Stage("rl", RunWriter(folder, {}), view, Guard())


def stored_batch(ours: Ours, *, sampled: bool = False) -> TrainBatch:
    """A fixed batch: completions, group advantages of random rewards, a reference a little off the policy.

    The completions are random tokens of the spec's length; ``sampled``, they come from the policy and are cut
    to 1 token up to that length, so that their log-probabilities are those of a real step.
    """
    spec, rl, system = ours.spec, ours.recipe.rl, ours.system
    rng = random.Random(spec.seed)
    if sampled:
        params = SamplingParams(max_new_tokens=spec.new_tokens, seed=spec.seed)
        texts = system.engine.generate(ours.prompt_ids, spec.num_generations, params)
        tokens = [[c.token_ids[: rng.randint(1, spec.new_tokens)] for c in group] for group in texts]
    else:
        tokens = [
            [random_ids(rng, spec.new_tokens, len(system.tokenizer)) for _ in range(spec.num_generations)]
            for _ in ours.prompt_ids
        ]
    groups = [group_of(ids, rows, rng) for ids, rows in zip(ours.prompt_ids, tokens, strict=True)]
    batch = make_batch(groups, system.pad_id)
    mask = batch.rows.completion_mask
    reference = system.reference.logprobs(batch.rows).cpu()
    noise = torch.randn(reference.shape, generator=torch.Generator().manual_seed(spec.seed))
    return replace(
        batch.rows,
        advantages=completion_advantages(batch, rl, None).cpu().unsqueeze(1) * mask,
        ref_logprobs=(reference + 0.1 * noise) * mask,
        rollout_logprobs=None,
        sampling_logprobs=None,
    )


def random_ids(rng: random.Random, count: int, vocabulary: int) -> tuple[int, ...]:
    """Tokens that mean nothing; the first few, special in most vocabularies, are left out."""
    return tuple(rng.randrange(min(3, vocabulary - 1), vocabulary) for _ in range(count))


def group_of(prompt_ids: Sequence[int], rows: Sequence[Sequence[int]], rng: random.Random) -> RolloutGroup:
    """Token rows as a scored group."""
    return RolloutGroup(
        prompt=Prompt("", ({"role": "user", "content": ""},)),
        prompt_ids=tuple(prompt_ids),
        completions=tuple(Completion(tuple(row), "", (0.0,) * len(row), "length") for row in rows),
        rewards=tuple(RewardResult(rng.random()) for _ in rows),
    )


def choices() -> dict[str, Any]:
    """What this process chose, all that was measured on this machine, and which machine it is."""
    measured = {
        question: {**asdict(choice), "reason": choice.reason}
        for question, choice in measured_choices().items()
    }
    return {
        "chosen": chosen(),
        "measured": measured,
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "versions": {name: package_version(name) for name in ("trimtab", "torch", "transformers")},
    }


def build(raw: dict[str, Any]) -> Handler:
    """The arm of a specification."""
    ours = Ours(StepSpec(**raw))

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        if request["do"] == "step":
            return ours.step()
        if request["do"] == "ceilings":
            return ours.ceilings(request["rows"], request["seconds"])
        if request["do"] == "replay":
            return ours.replay(request["repeats"])
        if request["do"] == "choices":
            return choices()
        return {"peak_bytes": peak_bytes(ours.spec.device)}

    return handle


if __name__ == "__main__":
    raise SystemExit(serve(build))
