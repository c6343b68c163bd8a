"""GRPO and its relatives (R8–R11): a group of completions per prompt, compared with one another.

The whole loop is below. What a preset changes is in ``config/algorithms.py``; what is minimised in
``objectives.py``; the mathematics in ``functional/``. Left out on purpose: a critic (see ``ppo.py``) and
asynchronous sampling.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from trimtab.config import RLConfig
from trimtab.data import PromptStream
from trimtab.distributed.build import System
from trimtab.functional import (
    advantages_from_groups,
    decoupled_advantages,
    overlong_penalty,
    without_lone_rewards,
)
from trimtab.models.optim import learning_rate_at
from trimtab.monitor import build_kl_controller
from trimtab.runs.faults import reach
from trimtab.trainers.batching import Components, RolloutBatch, make_batch, minibatches
from trimtab.trainers.cadence import Cadence, restore_rl
from trimtab.trainers.experience import (
    add_reference,
    collect_groups,
    kl_penalty,
    reference_kl,
    shaped_rewards,
)
from trimtab.trainers.measure import num_trained, rollout_metrics, rollout_records, speed_metrics
from trimtab.trainers.objectives import PolicyObjective
from trimtab.trainers.seeds import derive_seed, generator
from trimtab.trainers.shaping import RewardShaping, gated_components
from trimtab.trainers.stage import HasState, Phases, Stage, StepContext, mean_metrics, total_steps
from trimtab.trainers.update import StepSettings, guarded_update
from trimtab.types import Prompt, TrainBatch


def train_grpo(
    system: System, stream: PromptStream[Prompt], rl: RLConfig, stage: Stage, cadence: Cadence
) -> None:
    """Train ``system.policy`` with group-relative advantages; every step is recorded in ``stage``.

    Raises:
        DivergedError: the guard stopped the run.
    """
    kl_controller = build_kl_controller(rl.kl)
    steps = total_steps(len(stream), rl.num_prompts, rl.epochs, rl.steps)
    shaping = RewardShaping(rl, system.reward)
    trained: dict[str, HasState] = {
        "policy": system.policy,
        "stream": stream,
        "kl_controller": kl_controller,
        "shaping": shaping,
    }
    first = restore_rl(stage, system, trained)
    cadence.evaluate_start(first, system, trained)
    for step in range(first, steps):
        now, at = cadence.begin(step, steps, system, kl_controller)
        metrics, records = grpo_step(system, stream, now, stage, at, shaping)
        cadence.after_step(step, metrics, records)
        cadence.follow_kl(kl_controller, step, metrics, num_samples=num_trained(records))
        cadence.follow_constraints(shaping, step)
        cadence.refresh_prompts(step, steps, stream)
        cadence.evaluate_and_save(step, steps, system, trained)


def grpo_step(
    system: System,
    stream: PromptStream[Prompt],
    rl: RLConfig,
    stage: Stage,
    at: StepContext,
    shaping: RewardShaping,
) -> tuple[dict[str, float], list[dict[str, object]]]:
    """One collect and update; return its metrics and one record per completion."""
    reach("step_started")
    phases, seed = Phases(stage.watchdog), derive_seed(at.seed, "step", at.step)
    collected = collect_groups(system, stream, rl, seed, phases, shaping)
    groups = collected.trained
    batch = make_batch(groups, system.pad_id, mask_truncated=rl.overlong.mask_truncated)
    batch = shaping.apply(batch, groups)
    with phases("reference"):
        rows = add_reference(system, charged_rows(batch, rl), at.kl_coef > 0)
        rows = replace(rows, old_logprobs=system.policy.logprobs(rows) if needs_old(rl) else None)
        kl = reference_kl(system, rows, len(groups), seed)
        penalty = kl_penalty(system, rows, rl, at.kl_coef)
    reach("after_reference")
    rows = replace(rows, completion_mask=batch.rows.completion_mask)
    advantages = completion_advantages(batch, rl, penalty)
    rows = replace(rows, advantages=advantages.unsqueeze(1) * rows.completion_mask)

    updates = []
    rate = learning_rate_at(at.step, rl.learning_rate, rl.lr_schedule, rl.warmup_steps, at.num_steps)
    settings = StepSettings(at.step, rate, rl.max_grad_norm)
    with phases("update"):
        for epoch in range(rl.num_epochs_per_batch):
            for minibatch in minibatches(rows, rl.num_minibatches, generator(seed, "rows", epoch)):
                objective = PolicyObjective.of(rl, minibatch, at.kl_coef)
                updates.append(guarded_update(system.policy, minibatch, objective, stage, settings))
    reach("before_publish")
    with phases("publish"):
        system.publish(policy_version=at.step + 1)
    reach("after_publish")

    times = phases.metrics()
    metrics = {
        **rollout_metrics(collected.sampled, batch),
        **shaping.metrics(),
        **mean_metrics([{**u.metrics, "train/grad_norm": u.grad_norm} for u in updates]),
        **kl,
        "kl/coef": at.kl_coef,
        "train/learning_rate": rate,
        "train/updates": float(len(updates)),
        "train/epoch": float(stream.epoch),
        **times,
        **speed_metrics(times, collected.sampled),
    }
    return metrics, rollout_records(collected, advantages.tolist())


def needs_old(rl: RLConfig) -> bool:
    """Whether a batch is used more than once: a single on-policy update needs no second pass."""
    return rl.num_minibatches * rl.num_epochs_per_batch > 1 or rl.kl.placement == "reward"


def charged_rows(batch: RolloutBatch, rl: RLConfig) -> TrainBatch:
    """The rows whose log-probabilities are asked for.

    Those that train, and where the KL is in the reward also those that are masked as truncated: their reward
    is part of the baseline, and would be the higher for having paid no KL.
    """
    if rl.kl.placement != "reward":
        return batch.rows
    return replace(batch.rows, completion_mask=batch.completion_mask & batch.valid.unsqueeze(1))


def completion_advantages(batch: RolloutBatch, rl: RLConfig, kl_penalty: Tensor | None) -> Tensor:
    """Advantage of each completion ``[N]``: shaped reward, less the KL where it is in the reward; then
    baseline and scale. ``kl_penalty`` is ``[N, T]``, coefficient included."""
    if batch.components is not None:
        return component_advantages(batch, batch.components, rl)
    rewards = shaped_rewards(batch, rl, kl_penalty)
    valid = without_lone_rewards(batch.valid, batch.group_ids)
    return advantages_from_groups(
        rewards, valid, batch.group_ids, rl.advantage.baseline, rl.advantage.scale, rl.advantage.eps
    )


def component_advantages(batch: RolloutBatch, components: Components, rl: RLConfig) -> Tensor:
    """The same where each reward is compared on its own first; the overlong penalty is one more of them."""
    values, present, weights = components.values, components.present, components.weights
    if rl.overlong.buffer:
        penalty = overlong_penalty(batch.lengths, rl.max_new_tokens, rl.overlong.buffer)
        values = torch.cat([values, penalty.unsqueeze(1)], dim=1)
        present = torch.cat([present, torch.ones_like(batch.valid).unsqueeze(1)], dim=1)
        weights = torch.cat([weights, torch.tensor([rl.overlong.penalty])])
    baseline, form = rl.advantage.baseline, (rl.advantage.baseline, rl.advantage.scale, rl.advantage.eps)
    gated = gated_components(batch, Components(values, present, weights), baseline)
    return decoupled_advantages(gated.values, gated.present, weights, batch.valid, batch.group_ids, form)
