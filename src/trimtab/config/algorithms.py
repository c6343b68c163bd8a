"""How completions become a loss: advantage, clip, reduction, KL; and the named presets of R9 and R10."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from trimtab.config.base import Section

Algorithm = Literal[
    "grpo", "dr_grpo", "dapo", "gspo", "rloo", "reinforce_plus_plus", "deepseek_r1", "cispo", "ppo"
]
ALGORITHMS: tuple[str, ...] = get_args(Algorithm)


class AdvantageConfig(Section):
    """``[rl.advantage]``: which baseline, which scale; two separate steps."""

    baseline: Literal["group_mean", "leave_one_out", "batch_mean"] = Field(
        "group_mean", description="What is subtracted from a completion's reward."
    )
    scale: Literal["group_std", "batch_std", "none"] = Field(
        "group_std", description="What the centred reward is divided by (unbiased)."
    )
    eps: float = Field(1e-6, gt=0, description="Added to the standard deviation.")
    components: Literal["sum", "normalised"] = Field(
        "sum", description="Compare the weighted sum of the rewards, or each of them first (GDPO)."
    )


class ClipConfig(Section):
    """``[rl.clip]``: how far the policy may move on one batch; distances from 1, or one factor."""

    low: float = Field(0.2, gt=0, description="Distance of the lower bound from 1.")
    high: float = Field(0.2, gt=0, description="Distance of the upper bound from 1.")
    ratio: float | None = Field(
        None, gt=1, description="A factor c: keep the ratio in [1/c, c] instead of low and high."
    )
    dual: float | None = Field(None, gt=1, description="Dual clip: bound of the loss where A < 0.")
    ratio_max: float = Field(5.0, gt=1, description="Absolute cap of the ratio, for `loss = cispo`.")


class KLConfig(Section):
    """``[rl.kl]``: the leash to the reference (R2, R15, R16)."""

    coef: float = Field(0.001, ge=0, description="Weight of the KL to the reference; measured even at 0.")
    estimator: Literal["kl", "k1", "k2", "k3", "abs", "mse", "full"] = Field(
        "k3", description="Per-token estimate; k1 is refused where the KL is in the loss."
    )
    placement: Literal["loss", "reward"] = Field("loss", description="Where the KL is charged.")
    controller: Literal["fixed", "adaptive", "clipped"] = Field(
        "fixed", description="Whether the coefficient follows the measured KL."
    )
    target_per_token: float = Field(0.1, gt=0, description="Target of the controller, in nats per token.")
    target_per_sequence: float | None = Field(
        None, gt=0, description="Target in nats per sequence; takes the place of the one per token."
    )
    horizon: int = Field(10_000, ge=1, description="How slowly the controller moves.")
    smoothing: float = Field(
        0.0, ge=0, lt=1, description="The controller sees a moving average of the KL that keeps this much."
    )
    min_coef: float = Field(1e-4, ge=0, description="A controller never goes below this.")
    max_coef: float = Field(10.0, gt=0, description="A controller never goes above this.")

    @model_validator(mode="after")
    def _bounds(self) -> KLConfig:
        if self.min_coef > self.max_coef:
            raise ValueError(f"min_coef = {self.min_coef} is above max_coef = {self.max_coef}; swap them")
        return self


class DynamicSamplingConfig(Section):
    """``[rl.dynamic_sampling]``: sample again when a group has no variance (DAPO)."""

    enabled: bool = Field(False, description="Replace groups whose rewards are all equal.")
    max_rounds: int = Field(3, ge=1, description="Rounds of sampling before the step goes on as it is.")


class OverlongConfig(Section):
    """``[rl.overlong]``: what happens to completions that were cut at the limit (trap 13)."""

    mask_truncated: bool = Field(False, description="Leave truncated completions out of the loss.")
    buffer: int = Field(0, ge=0, description="Tokens before the limit over which a penalty grows; 0 is off.")
    penalty: float = Field(1.0, ge=0, description="Penalty at the limit.")


class PPOConfig(Section):
    """``[rl.ppo]``: the critic and the inner epochs of PPO (R6)."""

    gamma: float = Field(1.0, gt=0, le=1, description="Discount per token.")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="λ of generalised advantage estimation.")
    value_clip: float = Field(0.2, gt=0, description="The critic moves at most this far from its old values.")
    vf_coef: float = Field(0.1, gt=0, description="Weight of the value loss.")
    target_kl: float = Field(0.1, gt=0, description="Stop the inner epochs when approx_kl passes this.")
    whiten_advantages: bool = Field(True, description="Whiten the advantages over the mask.")
    critic: Literal["separate", "shared"] = Field(
        "separate", description="A model of its own, or a value head on the policy's trunk."
    )
    critic_init: Literal["reward_model", "policy"] = Field(
        "reward_model", description="What a separate critic starts from (policy when no reward model)."
    )
    policy_learning_rate: float | None = Field(
        None, gt=0, description="Learning rate of the policy under PPO; `rl.learning_rate` when not given."
    )
    critic_learning_rate: float | None = Field(
        None,
        gt=0,
        description="Learning rate of a separate critic; the policy's when not given, 1e-5 at least.",
    )
    critic_warmup_steps: int = Field(0, ge=0, description="Steps that train only the critic, first.")


# Only what differs from the defaults of RLConfig. A key of the recipe or the command line beats the preset.
PRESETS: dict[str, dict[str, Any]] = {
    # R11: the everyday group-relative policy optimisation.
    "grpo": {"clip": {"ratio": 10.0}},
    # Liu et al. 2025: no division by the group's std, constant denominator.
    "dr_grpo": {"advantage": {"scale": "none"}, "reduction": "fixed_length"},
    # Yu et al. 2025: clip-higher, token mean, overlong shaping, dynamic sampling, no KL.
    "dapo": {
        "clip": {"low": 0.2, "high": 0.28},
        "reduction": "token_mean",
        "overlong": {"buffer": 32},
        "dynamic_sampling": {"enabled": True},
        "kl": {"coef": 0.0},
    },
    # Zheng et al. 2025: one length-normalised ratio per sequence.
    "gspo": {"ratio": "sequence", "clip": {"low": 3e-4, "high": 4e-4}, "reduction": "sequence_mean"},
    # Ahmadian et al. 2024: leave-one-out baseline, no scale, KL in the reward.
    "rloo": {
        "advantage": {"baseline": "leave_one_out", "scale": "none"},
        "kl": {"placement": "reward", "estimator": "k1"},
    },
    # Hu 2025: mean and deviation of the whole batch, KL in the reward.
    "reinforce_plus_plus": {
        "advantage": {"baseline": "batch_mean", "scale": "batch_std"},
        "kl": {"placement": "reward", "estimator": "k1"},
    },
    # R10.
    "deepseek_r1": {
        "clip": {"ratio": 10.0},
        "num_generations": 16,
        "num_prompts": 32,
        "max_new_tokens": 32_768,
        "temperature": 1.0,
        "reference_refresh_steps": 400,
    },
    # MiniMax 2025: stop-gradient on a capped ratio, every token keeps its gradient.
    "cispo": {"loss": "cispo"},
    # R6.
    "ppo": {
        "learning_rate": 1e-6,
        "num_prompts": 16,
        "num_generations": 1,
        "num_minibatches": 4,
        "num_epochs_per_batch": 4,
        "epochs": 3,
        "temperature": 0.8,
        "kl": {"placement": "reward", "estimator": "kl", "coef": 0.05},
    },
}
