"""PPO for language models (R6): critic, token rewards with KL, GAE, several epochs over one batch.

The whole loop is below. The critic is a model of its own (``rl.ppo.critic = "separate"``) or a value head on
the policy's trunk (``"shared"``: one forward pass serves both losses). Left out on purpose: bootstrapping of
truncated completions (they end with value 0; shape or mask them with ``[rl.overlong]``).
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from trimtab.config import RLConfig
from trimtab.data import PromptStream
from trimtab.distributed.build import System
from trimtab.functional import explained_variance, gae, masked_mean, masked_whiten, token_rewards_with_kl
from trimtab.models.optim import learning_rate_at
from trimtab.monitor import build_kl_controller
from trimtab.trainers.batching import make_batch, minibatches
from trimtab.trainers.cadence import Cadence, restore_rl
from trimtab.trainers.experience import (
    add_reference,
    collect_groups,
    kl_penalty,
    reference_kl,
    shaped_rewards,
)
from trimtab.trainers.measure import rollout_metrics, rollout_records, speed_metrics
from trimtab.trainers.objectives import JointObjective, PolicyObjective, ValueObjective
from trimtab.trainers.seeds import derive_seed, generator
from trimtab.trainers.stage import Phases, Stage, mean_metrics, total_steps
from trimtab.trainers.update import StepSettings, guarded_update
from trimtab.types import Prompt, TrainBatch


def train_ppo(
    system: System, stream: PromptStream[Prompt], rl: RLConfig, stage: Stage, cadence: Cadence
) -> None:
    """Train ``system.policy`` and its critic; every step is recorded in ``stage``.

    Raises:
        DivergedError: the guard stopped the run.
    """
    kl_controller = build_kl_controller(rl.kl)
    steps = total_steps(len(stream), rl.num_prompts, rl.epochs, rl.steps)
    critic = system.critic or system.policy
    trained = {"policy": system.policy, "stream": stream, "kl_controller": kl_controller}
    if system.critic is not None:
        trained["critic"] = system.critic
    for step in range(restore_rl(stage, system, trained), steps):
        phases, seed = Phases(), derive_seed(cadence.seed, "step", step)
        groups = collect_groups(system, stream, rl, seed, phases)
        batch = make_batch(groups, system.pad_id, mask_truncated=rl.overlong.mask_truncated)
        with phases("reference"):
            rows = add_reference(system, batch.rows, rl.kl.coef > 0)
            rows = replace(
                rows, old_logprobs=system.policy.logprobs(rows), old_values=critic.values(rows)
            )
            kl = reference_kl(system, rows)
            penalty = kl_penalty(system, rows, rl, kl_controller.kl_coef)
        rows, raw = with_advantages(rows, shaped_rewards(batch, rl), penalty, rl)

        with phases("update"):
            rate = learning_rate_at(step, rl.learning_rate, rl.lr_schedule, rl.warmup_steps, steps)
            updates = update_epochs(system, rows, rl, stage, (step, rate, kl_controller.kl_coef, seed))
        with phases("publish"):
            system.publish(policy_version=step + 1)

        times = phases.metrics()
        metrics = {
            **rollout_metrics(groups, batch),
            **mean_metrics(updates),
            **kl,
            **critic_metrics(rows),
            "kl/coef": kl_controller.kl_coef,
            "train/learning_rate": rate,
            "train/updates": float(len(updates)),
            "train/epoch": float(stream.epoch),
            **times,
            **speed_metrics(times, batch),
        }
        cadence.after_step(step, metrics, rollout_records(groups, raw.tolist()))
        cadence.follow_kl(kl_controller, step, metrics, num_samples=len(rows))
        cadence.evaluate_and_save(step, steps, system, trained)


def with_advantages(
    rows: TrainBatch, scores: Tensor, penalty: Tensor | None, rl: RLConfig
) -> tuple[TrainBatch, Tensor]:
    """Add returns and (whitened) advantages; also return each row's mean raw advantage ``[B]``."""
    mask = rows.completion_mask
    assert rows.old_values is not None
    kl = rows.advantages if penalty is None else penalty  # zeros: no KL in the reward
    token_rewards = token_rewards_with_kl(scores, kl, mask, 1.0)
    advantages, returns = gae(token_rewards, rows.old_values, mask, rl.ppo.gamma, rl.ppo.gae_lambda)
    raw = masked_mean(advantages, mask, dim=1)
    if rl.ppo.whiten_advantages:
        advantages = masked_whiten(advantages, mask)
    return replace(rows, advantages=advantages * mask, returns=returns), raw


def update_epochs(
    system: System, rows: TrainBatch, rl: RLConfig, stage: Stage, at: tuple[int, float, float, int]
) -> list[dict[str, float]]:
    """Several epochs over shuffled mini-batches, stopped early when approx_kl passes the target.

    ``at`` is (step, learning rate, KL coefficient, seed). Returns the metrics of every update.
    """
    step, rate, kl_coef, seed = at
    policy_settings = StepSettings(step, rate, rl.max_grad_norm)
    critic_rate = rate * (rl.ppo.critic_learning_rate or rl.learning_rate) / rl.learning_rate
    critic_settings = StepSettings(step, critic_rate, rl.max_grad_norm)
    is_warming_up = step < rl.ppo.critic_warmup_steps
    updates: list[dict[str, float]] = []
    for epoch in range(rl.num_epochs_per_batch):
        for minibatch in minibatches(rows, rl.num_minibatches, generator(seed, "rows", epoch)):
            policy = PolicyObjective.of(rl, minibatch, kl_coef)
            value = ValueObjective(rl.ppo.value_clip, rl.ppo.vf_coef, policy.num_tokens)
            metrics: dict[str, float] = {}
            if system.critic is not None:
                result = guarded_update(system.critic, minibatch, value, stage, critic_settings)
                metrics |= {**result.metrics}
            if system.critic is None or not is_warming_up:
                objective = JointObjective(policy, value) if system.critic is None else policy
                result = guarded_update(system.policy, minibatch, objective, stage, policy_settings)
                metrics |= {**result.metrics, "train/grad_norm": result.grad_norm}
            updates.append(metrics)
            if metrics.get("kl/policy", 0.0) > rl.ppo.target_kl:
                return updates
    return updates


def critic_metrics(rows: TrainBatch) -> dict[str, float]:
    """How well the critic's old values explain the returns of this step."""
    assert rows.old_values is not None and rows.returns is not None
    return {
        "critic/explained_variance": explained_variance(
            rows.old_values, rows.returns, rows.completion_mask
        ),
        "critic/value_mean": float(masked_mean(rows.old_values, rows.completion_mask)),
    }
