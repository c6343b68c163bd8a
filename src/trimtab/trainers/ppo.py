"""PPO for language models (R6): critic, token rewards with KL, GAE, several epochs over one batch.

The whole loop is below. The critic is a model of its own (``rl.ppo.critic = "separate"``) or a value head on
the policy's trunk (``"shared"``: one forward pass serves both losses). Left out on purpose: bootstrapping of
truncated completions (they end with value 0; shape or mask them with ``[rl.overlong]``).
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from trimtab.config import RLConfig
from trimtab.data import PromptStream
from trimtab.distributed.build import System
from trimtab.distributed.interfaces import Learner
from trimtab.functional import (
    explained_variance,
    gae,
    masked_mean,
    masked_whiten,
    reward_to_go,
    token_rewards_with_kl,
)
from trimtab.models.optim import learning_rate_at
from trimtab.monitor import build_kl_controller
from trimtab.runs.faults import reach
from trimtab.trainers.batching import RolloutBatch, make_batch, minibatches
from trimtab.trainers.cadence import Cadence, restore_rl
from trimtab.trainers.experience import (
    add_reference,
    collect_groups,
    kl_penalty,
    reference_kl,
    shaped_rewards,
)
from trimtab.trainers.measure import num_trained, rollout_metrics, rollout_records, speed_metrics
from trimtab.trainers.objectives import JointObjective, PolicyObjective, ValueObjective
from trimtab.trainers.seeds import derive_seed, generator
from trimtab.trainers.shaping import RewardShaping
from trimtab.trainers.stage import HasState, Phases, Stage, StepContext, mean_metrics, total_steps
from trimtab.trainers.update import Part, StepSettings, guarded_updates
from trimtab.types import Prompt, TrainBatch

LEAST_CRITIC_RATE = 1e-5  # of a critic whose learning rate the recipe does not say


def train_ppo(
    system: System, stream: PromptStream[Prompt], rl: RLConfig, stage: Stage, cadence: Cadence
) -> None:
    """Train ``system.policy`` and its critic; every step is recorded in ``stage``.

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
    if system.critic is not None:
        trained["critic"] = system.critic
    first = restore_rl(stage, system, trained)
    cadence.evaluate_start(first, system, trained)
    for step in range(first, steps):
        now, at = cadence.begin(step, steps, system, kl_controller)
        metrics, records = ppo_step(system, stream, now, stage, at, shaping)
        cadence.after_step(step, metrics, records)
        cadence.follow_kl(kl_controller, step, metrics, num_samples=num_trained(records))
        cadence.follow_constraints(shaping, step)
        cadence.refresh_prompts(step, steps, stream)
        cadence.evaluate_and_save(step, steps, system, trained)


def ppo_step(
    system: System,
    stream: PromptStream[Prompt],
    rl: RLConfig,
    stage: Stage,
    at: StepContext,
    shaping: RewardShaping,
) -> tuple[dict[str, float], list[dict[str, object]]]:
    """One collect and several epochs of updates; return its metrics and one record per completion."""
    reach("step_started")
    phases, seed = Phases(stage.watchdog), derive_seed(at.seed, "step", at.step)
    collected = collect_groups(system, stream, rl, seed, phases, shaping)
    groups = collected.trained
    batch = make_batch(groups, system.pad_id, mask_truncated=rl.overlong.mask_truncated)
    batch = shaping.apply(batch, groups)
    critic = system.critic or system.policy
    with phases("reference"):
        rows = add_reference(system, batch.rows, at.kl_coef > 0)
        rows = replace(rows, old_logprobs=system.policy.logprobs(rows), old_values=critic.values(rows))
        kl = reference_kl(system, rows, len(groups), seed)
        penalty = kl_penalty(system, rows, rl, at.kl_coef)
    reach("after_reference")
    scores = scores_of(batch, rl, penalty)
    level = missing_level(critic, rows, scores, penalty, rl)
    rows, raw = with_advantages(levelled(critic, rows, level), scores, penalty, rl)
    with phases("update"):
        updates = update_epochs(system, rows, rl, stage, at)
    if level and critic.is_untrained:  # every update was skipped, and so is this one
        critic.level_values(-level)
    reach("before_publish")
    with phases("publish"):
        system.publish(policy_version=at.step + 1)
    reach("after_publish")

    times = phases.metrics()
    metrics = {
        **rollout_metrics(collected.sampled, batch),
        **shaping.metrics(),
        **mean_metrics(updates),
        **kl,
        **critic_metrics(rows),
        "kl/coef": at.kl_coef,
        "train/updates": float(len(updates)),
        "train/epoch": float(stream.epoch),
        **times,
        **speed_metrics(times, collected.sampled),
    }
    return metrics, rollout_records(collected, raw.tolist())


def missing_level(
    critic: Learner, rows: TrainBatch, scores: Tensor, penalty: Tensor | None, rl: RLConfig
) -> float:
    """What the values of a critic without any update lack to the returns, on average; 0 for a trained one.

    A head that starts at zero would first have to learn how high rewards are, through all of its weights at
    once: meanwhile its values vary far more than the returns do, and it explains less than nothing.
    """
    if not critic.is_untrained:
        return 0.0
    assert rows.old_values is not None
    mask = rows.completion_mask
    returns = reward_to_go(token_rewards_of(rows, scores, penalty), mask, rl.ppo.gamma)
    level = float(masked_mean(returns - rows.old_values, mask))
    return level if math.isfinite(level) else 0.0


def levelled(critic: Learner, rows: TrainBatch, level: float) -> TrainBatch:
    """Add ``level`` to what the critic says, also to what it said of ``rows``."""
    if not level:
        return rows
    assert rows.old_values is not None
    critic.level_values(level)
    return replace(rows, old_values=(rows.old_values + level) * rows.completion_mask)


def token_rewards_of(rows: TrainBatch, scores: Tensor, penalty: Tensor | None) -> Tensor:
    """The reward of each token ``[B, T]``: less its KL, and with the score of the whole on the last one."""
    kl = rows.advantages if penalty is None else penalty  # zeros: no KL in the reward
    return token_rewards_with_kl(scores, kl, rows.completion_mask, 1.0)


def scores_of(batch: RolloutBatch, rl: RLConfig, penalty: Tensor | None) -> Tensor:
    """The reward that each completion gets on its last token, ``[B]``: the KL is charged token by token.

    Behind a closed gate it is what makes the whole, KL included, no more than that of any open completion.
    """
    scores = shaped_rewards(batch, rl)
    if penalty is None or batch.closed is None or not bool(batch.closed.any()):
        return scores
    return torch.where(batch.closed, shaped_rewards(batch, rl, penalty) + penalty.sum(dim=1), scores)


def with_advantages(
    rows: TrainBatch, scores: Tensor, penalty: Tensor | None, rl: RLConfig
) -> tuple[TrainBatch, Tensor]:
    """Add returns and (whitened) advantages; also return each row's mean raw advantage ``[B]``."""
    mask = rows.completion_mask
    assert rows.old_values is not None
    token_rewards = token_rewards_of(rows, scores, penalty)
    advantages, returns = gae(token_rewards, rows.old_values, mask, rl.ppo.gamma, rl.ppo.gae_lambda)
    raw = masked_mean(advantages, mask, dim=1)
    if rl.ppo.whiten_advantages:
        advantages = masked_whiten(advantages, mask)
    return replace(rows, advantages=advantages * mask, returns=returns), raw


def update_epochs(
    system: System, rows: TrainBatch, rl: RLConfig, stage: Stage, at: StepContext
) -> list[dict[str, float]]:
    """Several epochs over shuffled mini-batches, stopped early when approx_kl passes the target.

    Returns the metrics of every update.
    """
    seed = derive_seed(at.seed, "step", at.step)
    peak = rl.ppo.policy_learning_rate or rl.learning_rate
    rate = learning_rate_at(at.step, peak, rl.lr_schedule, rl.warmup_steps, at.num_steps)
    policy_settings = StepSettings(at.step, rate, rl.max_grad_norm)
    critic_rate = rate * critic_peak(rl) / peak
    critic_settings = StepSettings(at.step, critic_rate, rl.max_grad_norm)
    is_warming_up = at.step < rl.ppo.critic_warmup_steps
    updates: list[dict[str, float]] = []
    for epoch in range(rl.num_epochs_per_batch):
        for minibatch in minibatches(rows, rl.num_minibatches, generator(seed, "rows", epoch)):
            policy = PolicyObjective.of(rl, minibatch, at.kl_coef)
            value = ValueObjective(rl.ppo.value_clip, rl.ppo.vf_coef, policy.num_tokens)
            parts = []
            if system.critic is not None:
                parts.append(Part(system.critic, value, critic_settings))
            if system.critic is None or not is_warming_up:
                objective = JointObjective(policy, value) if system.critic is None else policy
                parts.append(Part(system.policy, objective, policy_settings))
            metrics: dict[str, float] = {"train/learning_rate": rate}
            for result in guarded_updates(parts, minibatch, stage):
                # The policy comes last: its gradient norm is the one that is shown.
                metrics |= {**result.metrics, "train/grad_norm": result.grad_norm}
            updates.append(metrics)
            if metrics.get("kl/policy", 0.0) > rl.ppo.target_kl:
                return updates
    return updates


def critic_peak(rl: RLConfig) -> float:
    """The critic's learning rate: its own, or that of the policy, but 1e-5 at least.

    What is slow enough for a policy is too slow for a critic, which has no policy to ruin: verl takes ten
    times as much for it and OpenRLHF eighteen times, both about 1e-5.
    """
    policy = rl.ppo.policy_learning_rate or rl.learning_rate
    return rl.ppo.critic_learning_rate or max(policy, LEAST_CRITIC_RATE)


def critic_metrics(rows: TrainBatch) -> dict[str, float]:
    """How well the critic's old values explain the returns of this step."""
    assert rows.old_values is not None and rows.returns is not None
    return {
        "critic/explained_variance": explained_variance(rows.old_values, rows.returns, rows.completion_mask),
        "critic/value_mean": float(masked_mean(rows.old_values, rows.completion_mask)),
    }
