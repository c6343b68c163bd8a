"""Control arms: the same run with a reward that says nothing, so that what the reward itself teaches is seen.

Reinforcement learning can raise a score with rewards that are random or wrong (Shao et al. 2025, "Spurious
rewards"): training alone sharpens what the model already does. A control arm is a run of the same recipe,
seed and steps with another reward; the real one is measured on the hidden prompts before and after.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal, get_args

import torch

from trimtab.config import Recipe
from trimtab.config.recipe import PathsConfig
from trimtab.data import PromptStream
from trimtab.distributed.build import System
from trimtab.errors import ConfigError
from trimtab.evals.suite import evaluate_policy
from trimtab.models.load import save_model
from trimtab.monitor import Guard, Measure
from trimtab.pipeline.leaks import refuse_leaks
from trimtab.pipeline.sources import held_out_prompts, hidden_source, policy_start, train_prompts
from trimtab.pipeline.training import check_batches, load_system
from trimtab.rewards.base import Reward, call_reward
from trimtab.runs import RunWriter, TerminalView
from trimtab.trainers.cadence import Cadence
from trimtab.trainers.experience import sampling_params
from trimtab.trainers.grpo import train_grpo
from trimtab.trainers.ppo import train_ppo
from trimtab.trainers.seeds import derive_seed
from trimtab.trainers.stage import Stage
from trimtab.types import Prompt, RewardResult, Sample

Arm = Literal["random", "length", "shuffled"]
ARMS: tuple[Arm, ...] = get_args(Arm)


class ControlReward:
    """What replaces the reward in a control arm. The values are in the range that the arm says:

    - ``random``: 0 or 1 by a coin per completion, whatever it says;
    - ``length``: the completion's tokens over the limit, in 0..1: longer is better;
    - ``shuffled``: the real rewards of the batch, dealt out to its completions at random. Abstentions are
      dealt out too, so mean, spread and shares stay what they were.

    The random numbers are one seeded stream, so the same run gives the same rewards.
    """

    def __init__(self, arm: Arm, real: Reward, max_tokens: int, seed: int) -> None:
        self.name = f"control_{arm}"
        self.arm, self.real, self.max_tokens = arm, real, max_tokens
        self._rng = random.Random(seed)

    def score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Return one result per sample, in order."""
        if self.arm == "random":
            return [RewardResult(float(self._rng.random() < 0.5)) for _ in samples]
        if self.arm == "length":
            lengths = [len(sample.token_ids) or len(sample.completion) for sample in samples]
            return [RewardResult(min(1.0, length / self.max_tokens)) for length in lengths]
        results = call_reward(self.real, samples)
        self._rng.shuffle(results)
        return results


@dataclass(frozen=True, slots=True)
class ArmResult:
    """The real reward on the hidden prompts before and after one arm, and what that arm gained."""

    arm: str
    before: float
    after: float
    error: float  # standard error of after − before, over prompts
    num_prompts: int

    @property
    def gain(self) -> float:
        """After minus before."""
        return self.after - self.before


@dataclass(frozen=True, slots=True)
class ControlReport:
    """The real arm and a control arm of the same recipe, seeds and steps."""

    real: ArmResult
    control: ArmResult

    @property
    def contribution(self) -> float | None:
        """The share of the real arm's gain that the control arm does not have; None without a gain."""
        real = self.real
        return (real.gain - self.control.gain) / real.gain if real.gain > max(0.0, 2 * real.error) else None

    @property
    def verdict(self) -> str:
        """One sentence: how much of the gain the reward itself contributes. Noise is two standard errors."""
        real, control, share = self.real, self.control, self.contribution
        if share is None:
            return (
                f"The real arm gained {real.gain:+.3f} ± {2 * real.error:.3f}, no gain beyond noise, "
                "so there is nothing to divide."
            )
        own, noise = real.gain - control.gain, 2 * math.hypot(real.error, control.error)
        sentence = (
            f"Of the gain of {real.gain:+.3f} the reward itself contributes {own:+.3f} ± {noise:.3f} "
            f"({share:.0%}): the {control.arm} arm gained {control.gain:+.3f} without it."
        )
        if own <= noise:
            return f"{sentence} That is within noise: this does not show that the reward teaches anything."
        return sentence


def run_control(
    recipe: Recipe, arm: Arm, output: Path, *, steps: int | None = None, is_done: bool = False
) -> ControlReport:
    """Run the real and the control arm of ``recipe``, all records and policies under ``output``.

    With ``is_done`` the real arm is the policy that the recipe has already made.

    Raises:
        ConfigError: no [rl] table, hidden prompts or steps; or ``output`` is a place of the recipe's.
        TrimtabError: as a run of the recipe.
    """
    refuse_overwriting(recipe, output)
    control = run_arm(for_control(recipe, output / arm, steps), arm)
    real = measure_existing(recipe) if is_done else run_arm(for_control(recipe, output / "real", steps), None)
    return ControlReport(real, control)


def run_arm(recipe: Recipe, arm: Arm | None) -> ArmResult:
    """Run the RL stage of ``recipe`` with the reward of ``arm``; None: with its own.

    Raises:
        TrimtabError: as a run of the recipe.
    """
    rl = recipe.rl
    assert rl is not None
    hidden, prompts = control_prompts(recipe), train_prompts(recipe)
    check_batches(rl, len(prompts))
    refuse_leaks(recipe, ("rl",))
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    system = load_system(recipe)
    real = system.reward
    before = hidden_rewards(system, real, recipe, hidden)
    if arm is not None:
        system.reward = ControlReward(arm, real, rl.max_new_tokens, derive_seed(recipe.seed, "control", arm))
    train_arm(recipe, system, PromptStream(prompts, derive_seed(recipe.seed, "prompts")), arm or "real")
    save_model(system.policy_model, system.tokenizer, recipe.paths.policy)
    return compare_rewards(arm or "real", before, hidden_rewards(system, real, recipe, hidden))


def train_arm(recipe: Recipe, system: System, stream: PromptStream[Prompt], name: str) -> None:
    """Train ``system`` as the RL stage does, recorded in the run directory of ``recipe``."""
    rl = recipe.rl
    assert rl is not None and rl.steps is not None
    train = train_ppo if rl.algorithm == "ppo" else train_grpo
    with RunWriter(recipe.paths.run, recipe.resolved()) as run:
        view = TerminalView(rl.steps, name, samples=0)
        stage = Stage("rl", run, view, Guard(config=recipe.monitor))
        try:
            train(system, stream, rl, stage, Cadence(rl=rl, stage=stage, seed=recipe.seed))
        finally:
            view.close()


def measure_existing(recipe: Recipe) -> ArmResult:
    """The real arm without running it: the model that RL started from, and the policy that it made.

    Raises:
        ConfigError: no [rl] table or no hidden prompts.
        ModelError: one of the two models is not there.
    """
    hidden = control_prompts(recipe)
    found = []
    for path in (policy_start(recipe), recipe.paths.policy):
        system = load_system(recipe, path)
        found.append(hidden_rewards(system, system.reward, recipe, hidden))
    return compare_rewards("real", *found)


def control_prompts(recipe: Recipe) -> list[Prompt]:
    """The hidden prompts on which arms are compared: as many as the evaluation uses."""
    count = recipe.eval.num_prompts if recipe.eval else 128
    hidden_source(recipe)  # says where neither key names any
    return held_out_prompts(recipe, "eval.data")[:count]


def hidden_rewards(
    system: System, reward: Reward, recipe: Recipe, prompts: Sequence[Prompt]
) -> list[float | None]:
    """The real reward of one answer to each hidden prompt; the sampling seed is the same for every arm."""
    assert recipe.rl is not None
    params = sampling_params(recipe.rl, derive_seed(recipe.seed, "control evaluation"))
    result = evaluate_policy(system.engine, system.tokenizer, prompts, reward, params)
    return [group.rewards[0].value for group in result.groups]


def compare_rewards(arm: str, before: Sequence[float | None], after: Sequence[float | None]) -> ArmResult:
    """Means over the prompts that were scored both times, and the paired standard error of the difference.

    Raises:
        ConfigError: no prompt was scored both times.
    """
    pairs = [(a, b) for a, b in zip(before, after, strict=True) if a is not None and b is not None]
    if not pairs:
        raise ConfigError(
            "The reward abstained from every hidden answer, so arms cannot be compared: check that the "
            "hidden prompts have the columns that the reward reads."
        )
    differences = Measure.of([b - a for a, b in pairs])
    return ArmResult(
        arm, fmean(a for a, _ in pairs), fmean(b for _, b in pairs), differences.error, len(pairs)
    )


def for_control(recipe: Recipe, output: Path, steps: int | None) -> Recipe:
    """The recipe of an arm: other places to write to, fewer steps if asked, no evaluations or checkpoints.

    Where models are read from (`paths.sft`, `paths.reward_model`) stays.

    Raises:
        ConfigError: there is no [rl] table.
    """
    if recipe.rl is None:
        raise ConfigError("A control run needs an [rl] table: it replaces the reward of that stage.")
    count = steps or recipe.rl.steps
    if count is None:
        raise ConfigError("The recipe says no rl.steps, so a control run needs --steps N.")
    rl = recipe.rl.model_copy(update={"steps": count, "eval_every": 0, "checkpoint_every": 0})
    places = PathsConfig.under(output)
    paths = recipe.paths.model_copy(
        update={"run": places.run, "policy": places.policy, "summary": places.summary}
    )
    return recipe.model_copy(update={"rl": rl, "paths": paths})


def refuse_overwriting(recipe: Recipe, output: Path) -> None:
    """Refuse an ``output`` that is, holds, or lies in a place that the recipe reads from or writes to.

    Raises:
        ConfigError: it does.
    """
    place, paths = output.resolve(), recipe.paths
    models = (paths.sft, paths.reward_model, paths.process_reward, paths.policy, recipe.model.path)
    for path in (*models, paths.run):
        other = Path(path).resolve()
        if place == other or place in other.parents or other in place.parents:
            raise ConfigError(
                f"--output {output} would mix with {path}, which the recipe uses: give another directory."
            )
