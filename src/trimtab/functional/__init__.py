"""The mathematics: pure torch functions with plain arguments; no config, no state, no logging.

Token-level tensors are ``[B, T]``, aligned to ``token_ids``; ``mask`` is the completion mask. Losses are per
token and to be minimised; ``reduce_loss`` makes a number of them.
"""

from __future__ import annotations

from trimtab.functional.advantages import (
    advantages_from_groups,
    estimate_advantages,
    num_zero_variance_groups,
    rows_with_variance,
    scale_advantages,
    without_lone_rewards,
)
from trimtab.functional.decoupled import decoupled_advantages
from trimtab.functional.diagnostics import (
    approx_kl,
    clip_fraction,
    effective_sample_size,
    expected_calibration_error,
    explained_variance,
    ratio_summary,
)
from trimtab.functional.gates import components_behind_gates, worth_behind_gates
from trimtab.functional.kl import full_kl, kl_estimate, kl_loss
from trimtab.functional.logprobs import gather_logprobs, logprobs_and_entropy
from trimtab.functional.masking import (
    masked_fill_zero,
    masked_mean,
    masked_sum,
    masked_var,
    masked_whiten,
)
from trimtab.functional.model_losses import bradley_terry_loss, step_loss, value_loss
from trimtab.functional.policy_losses import (
    cispo_loss,
    clip_bounds,
    clipped_policy_loss,
    cross_entropy,
    policy_ratio,
)
from trimtab.functional.public import grpo_loss, ppo_loss, rlhf_objective
from trimtab.functional.ratios import (
    importance_weights,
    sequence_ratio,
    sequence_token_ratio,
    token_ratio,
)
from trimtab.functional.reduction import loss_denominator, reduce_loss
from trimtab.functional.returns import gae, reward_to_go
from trimtab.functional.shaping import normalise_rewards, overlong_penalty, token_rewards_with_kl
from trimtab.functional.text_stats import distinct_n, repeated_share, shared_shares

__all__ = [
    "advantages_from_groups",
    "approx_kl",
    "bradley_terry_loss",
    "cispo_loss",
    "clip_bounds",
    "clip_fraction",
    "clipped_policy_loss",
    "components_behind_gates",
    "cross_entropy",
    "decoupled_advantages",
    "distinct_n",
    "effective_sample_size",
    "estimate_advantages",
    "expected_calibration_error",
    "explained_variance",
    "full_kl",
    "gae",
    "gather_logprobs",
    "grpo_loss",
    "importance_weights",
    "kl_estimate",
    "kl_loss",
    "logprobs_and_entropy",
    "loss_denominator",
    "masked_fill_zero",
    "masked_mean",
    "masked_sum",
    "masked_var",
    "masked_whiten",
    "normalise_rewards",
    "num_zero_variance_groups",
    "overlong_penalty",
    "policy_ratio",
    "ppo_loss",
    "ratio_summary",
    "reduce_loss",
    "repeated_share",
    "reward_to_go",
    "rlhf_objective",
    "rows_with_variance",
    "scale_advantages",
    "sequence_ratio",
    "sequence_token_ratio",
    "shared_shares",
    "step_loss",
    "token_ratio",
    "token_rewards_with_kl",
    "value_loss",
    "without_lone_rewards",
    "worth_behind_gates",
]
