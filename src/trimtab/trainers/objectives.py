"""What is minimised on a micro-batch: plain settings in, loss share and metric shares out.

An objective holds the denominators of its whole mini-batch; the shares of the micro-batches add up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trimtab.config import RLConfig
from trimtab.distributed.interfaces import Scores
from trimtab.functional import (
    cispo_loss,
    clip_bounds,
    clipped_policy_loss,
    cross_entropy,
    importance_weights,
    kl_estimate,
    kl_loss,
    loss_denominator,
    masked_sum,
    policy_ratio,
    reduce_loss,
    value_loss,
)
from trimtab.types import TrainBatch

LossParts = tuple[Tensor, Mapping[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Supervised:
    """SFT: mean cross-entropy over the completion tokens of the whole mini-batch."""

    num_tokens: float

    def __call__(self, scores: Scores, batch: TrainBatch) -> LossParts:
        """Return the share of this micro-batch."""
        assert scores.logprobs is not None
        token_loss = cross_entropy(scores.logprobs, batch.completion_mask)
        loss = reduce_loss(token_loss, batch.completion_mask, "token_mean", self.num_tokens)
        return loss, {"loss/total": loss.detach()}

    @property
    def is_token_level(self) -> bool:
        """Cross-entropy asks each token alone."""
        return True

    def active_rows(self, batch: TrainBatch) -> Tensor:
        """Every row with a completion token."""
        return batch.completion_mask.any(dim=1)

    def for_metrics_of(self, batch: TrainBatch) -> Supervised:
        """Its one metric is the loss."""
        return self


@dataclass(frozen=True, slots=True)
class PolicyObjective:
    """The policy's loss: clipped surrogate (or CISPO) + KL to the reference − entropy bonus."""

    rl: RLConfig
    kl_coef: float  # 0 where the KL is in the reward
    denominator: float  # of rl.reduction, over the whole mini-batch
    num_tokens: float  # completion tokens of the whole mini-batch, for metrics

    @classmethod
    def of(cls, rl: RLConfig, minibatch: TrainBatch, kl_coef: float) -> PolicyObjective:
        """Count the denominators over the whole ``minibatch``."""
        mask = minibatch.completion_mask
        return cls(
            rl=rl,
            kl_coef=kl_coef if rl.kl.placement == "loss" else 0.0,
            denominator=loss_denominator(mask, rl.reduction, rl.max_new_tokens),
            num_tokens=max(float(mask.sum()), 1.0),
        )

    def __call__(self, scores: Scores, batch: TrainBatch) -> LossParts:
        """Return the share of this micro-batch; without ``old_logprobs`` the update is on-policy."""
        rl, mask, logprobs = self.rl, batch.completion_mask, scores.logprobs
        assert logprobs is not None
        old = logprobs.detach() if batch.old_logprobs is None else batch.old_logprobs
        token_loss, weights = self._surrogate(logprobs, old, batch), self._weights(old, batch)
        if weights is not None:
            token_loss = token_loss * weights
        policy = reduce_loss(token_loss, mask, rl.reduction, self.denominator)
        loss, shares = policy, {"loss/policy": policy.detach()}
        if self.kl_coef > 0 and batch.ref_logprobs is not None:
            per_token = kl_loss(logprobs, batch.ref_logprobs, rl.kl.estimator, old, mask=mask)
            if weights is not None:  # it is an expectation over the same tokens as the surrogate
                per_token = per_token * weights
            penalty = self.kl_coef * reduce_loss(per_token, mask, rl.reduction, self.denominator)
            loss, shares["loss/kl"] = loss + penalty, penalty.detach()
        if scores.entropy is not None:
            shares["policy/entropy"] = masked_sum(scores.entropy.detach(), mask) / self.num_tokens
            if rl.entropy_coef:
                bonus = rl.entropy_coef * reduce_loss(scores.entropy, mask, rl.reduction, self.denominator)
                loss, shares["loss/entropy"] = loss - bonus, -bonus.detach()
        return loss, {**shares, "loss/total": loss.detach(), **self._diagnostics(logprobs, old, batch)}

    @property
    def is_token_level(self) -> bool:
        """Neither ratio, nor importance weight, nor reduction looks at other tokens of the row."""
        rl = self.rl
        is_per_token = rl.ratio == "token" and rl.importance_correction in ("none", "token")
        return is_per_token and rl.reduction != "sequence_mean"

    def active_rows(self, batch: TrainBatch) -> Tensor:
        """With neither KL nor entropy in the loss, a row whose advantages are all 0 has no gradient."""
        mask = batch.completion_mask
        if self.rl.entropy_coef or (self.kl_coef > 0 and batch.ref_logprobs is not None):
            return mask.any(dim=1)
        return ((batch.advantages != 0) & mask).any(dim=1)

    def for_metrics_of(self, batch: TrainBatch) -> PolicyObjective:
        """Metrics are means over the tokens of ``batch``; the loss keeps its denominator."""
        return replace(self, num_tokens=max(float(batch.completion_mask.sum()), 1.0))

    def _weights(self, old: Tensor, batch: TrainBatch) -> Tensor | None:
        """Importance weights ``[B, T]`` of the sampled tokens, or None where none are asked for."""
        rl = self.rl
        if rl.importance_correction == "none" or batch.sampling_logprobs is None:
            return None
        level, _, aggregate = rl.importance_correction.partition("_")
        return importance_weights(
            old,
            batch.sampling_logprobs,
            rl.importance_cap,
            level,
            batch.completion_mask,
            aggregate=aggregate or "sum",
        )

    def _surrogate(self, logprobs: Tensor, old: Tensor, batch: TrainBatch) -> Tensor:
        clip = self.rl.clip
        if self.rl.loss == "cispo":
            return cispo_loss(logprobs, old, batch.advantages, clip.ratio_max, mask=batch.completion_mask)
        return clipped_policy_loss(
            logprobs,
            old,
            batch.advantages,
            batch.completion_mask,
            clip.low,
            clip.high,
            clip_ratio=clip.ratio,
            dual_clip=clip.dual,
            ratio=self.rl.ratio,
        )

    @torch.no_grad()
    def _diagnostics(self, logprobs: Tensor, old: Tensor, batch: TrainBatch) -> dict[str, Tensor]:
        mask, clip = batch.completion_mask, self.rl.clip
        ratio = policy_ratio(logprobs.detach(), old, mask, self.rl.ratio)
        low, high = clip_bounds(clip.low, clip.high, clip.ratio)
        outside = ((ratio < low) | (ratio > high)).float()
        shares = {
            "policy/ratio_max": torch.where(mask, ratio, 1.0).max(),
            "policy/clipfrac": masked_sum(outside, mask) / self.num_tokens,
            "policy/ratio_mean": masked_sum(ratio, mask) / self.num_tokens,
            "kl/policy": masked_sum(kl_estimate(old, logprobs.detach(), "k3", mask=mask), mask)
            / self.num_tokens,
        }
        if batch.rollout_logprobs is not None:
            gap = kl_estimate(batch.rollout_logprobs, old, "k3", mask=mask)
            shares["kl/engine"] = masked_sum(gap, mask) / self.num_tokens
        return shares


@dataclass(frozen=True, slots=True)
class ValueObjective:
    """The critic's loss: clipped squared error against the returns, per token."""

    value_clip: float
    coef: float
    num_tokens: float

    def __call__(self, scores: Scores, batch: TrainBatch) -> LossParts:
        """Return the share of this micro-batch."""
        values, mask = scores.values, batch.completion_mask
        assert values is not None and batch.old_values is not None and batch.returns is not None
        token_loss = value_loss(values, batch.old_values, batch.returns, self.value_clip, mask=mask)
        loss = reduce_loss(token_loss, mask, "token_mean", self.num_tokens)
        moved = ((values.detach() - batch.old_values).abs() > self.value_clip).float()
        return self.coef * loss, {
            "loss/value": loss.detach(),
            "critic/clipfrac": masked_sum(moved, mask) / self.num_tokens,
        }

    @property
    def is_token_level(self) -> bool:
        """It is, but values have no head to save."""
        return True

    def active_rows(self, batch: TrainBatch) -> Tensor:
        """Every row with a completion token."""
        return batch.completion_mask.any(dim=1)

    def for_metrics_of(self, batch: TrainBatch) -> ValueObjective:
        """Rows without tokens are in no metric either."""
        return self


@dataclass(frozen=True, slots=True)
class JointObjective:
    """Policy and value loss of one forward pass, for a critic that shares the policy's trunk."""

    policy: PolicyObjective
    value: ValueObjective

    def __call__(self, scores: Scores, batch: TrainBatch) -> LossParts:
        """Return the sum of both shares."""
        policy_loss, shares = self.policy(scores, batch)
        critic_loss, more = self.value(scores, batch)
        loss = policy_loss + critic_loss
        return loss, {**shares, **more, "loss/total": loss.detach()}

    @property
    def is_token_level(self) -> bool:
        """Values come from the same pass as log-probabilities, so rows stay together."""
        return False

    def active_rows(self, batch: TrainBatch) -> Tensor:
        """Rows in which either loss has a gradient: the critic's has one everywhere."""
        return self.value.active_rows(batch)

    def for_metrics_of(self, batch: TrainBatch) -> JointObjective:
        """Rows without tokens are in no metric."""
        return self
