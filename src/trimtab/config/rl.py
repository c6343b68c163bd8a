"""``[rl]``: the stage that samples, scores and updates."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from trimtab.config.algorithms import (
    AdvantageConfig,
    Algorithm,
    ClipConfig,
    DynamicSamplingConfig,
    KLConfig,
    OverlongConfig,
    PPOConfig,
)
from trimtab.config.base import Section
from trimtab.config.data import COLUMNS, Columns, Schedule, refuse_columns_of_a_task


class ConstraintConfig(Section):
    """``constraint`` of an entry of ``rl.rewards``: a limit with a weight of its own that adapts (R24)."""

    target: float = Field(0.05, ge=0, lt=1, description="Share of violations that is accepted.")
    learning_rate: float = Field(
        0.5, gt=0, description="How far the weight moves per step and unit of (measured rate - target)."
    )
    initial_weight: float = Field(0.0, ge=0, description="Weight at the first step.")
    max_weight: float = Field(10.0, gt=0, description="The weight never goes above this.")
    damping: float = Field(
        0.0, ge=0, description="Adds damping * (measured rate - target) to the weight, against swinging."
    )
    margin: float = Field(
        0.0, ge=0, description="The weight steers at target - margin, so that the target itself is kept."
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> ConstraintConfig:
        if self.initial_weight > self.max_weight:
            raise ValueError(
                f"initial_weight = {self.initial_weight} is above max_weight = {self.max_weight}; "
                "start lower or allow more"
            )
        if self.margin > self.target:
            raise ValueError(
                f"margin = {self.margin} is above target = {self.target}; take a margin below the target"
            )
        return self


class RewardSpec(Section):
    """One entry of ``rl.rewards``: a name (`sales`) or `FILE.py:function`, with a weight and options."""

    name: str = Field(description="A registered reward, or `FILE.py:function`.")
    weight: float = Field(1.0, description="Weight in the sum; negative punishes.")
    gate: bool = Field(
        False, description="A hard gate: below 0.5 the whole reward is 0 at most; it adds nothing to the sum."
    )
    constraint: ConstraintConfig | None = Field(
        None, description="A limit: 1 - reward is a violation, charged at a weight that follows its rate."
    )
    options: dict[str, str | int | float | bool | list[str]] = Field(
        default_factory=dict, description="Keyword arguments of the reward."
    )

    @model_validator(mode="after")
    def _has_one_role(self) -> RewardSpec:
        if self.constraint is not None and self.gate:
            raise ValueError(
                f"reward '{self.name}' is a gate and a constraint; a gate forbids, a constraint charges: "
                "remove one"
            )
        if self.constraint is not None and self.weight != 1.0:
            raise ValueError(
                f"reward '{self.name}' is a constraint, so weight = {self.weight} would do nothing; "
                "remove it, or set constraint.initial_weight"
            )
        return self


class RLConfig(Section):
    """``[rl]``: GRPO and its relatives, or PPO. Defaults are those of R11; see PRESETS for the others."""

    algorithm: Algorithm = Field("grpo", description="A named preset; every key below can override it.")
    data: str = Field(description="Prompts: a file, a hub data set, or `task:NAME`.")
    hidden_data: str | None = Field(None, description="Prompts never trained on, for evaluation (R20).")
    columns: Columns = Field(default_factory=dict, description=COLUMNS)
    hidden_columns: Columns | None = Field(
        None, description="The same for the hidden prompts; `rl.columns` when not given."
    )
    model: str | None = Field(None, description="Start from this model instead of the SFT stage's output.")
    reference: str | None = Field(None, description="Reference model; the starting policy when not given.")
    reward_model: str | None = Field(None, description="Reward model; else the reward_model stage's output.")
    rewards: list[RewardSpec] = Field(description="What is rewarded: names or `FILE.py:function`, weighted.")
    hidden_rewards: list[RewardSpec] = Field(
        default_factory=list,
        description="Rewards that are only measured, on the hidden prompts, and never trained on (R21).",
    )
    gold_rows: int = Field(
        2000,
        ge=0,
        description="Rows whose gold answer must earn 1 before training; of more, a sample; 0 checks none.",
    )
    reward_clip: float | None = Field(None, gt=0, description="Clip the combined reward to ± this.")
    reward_normalisation: Literal["none", "running"] = Field(
        "none", description="Normalise the clipped reward by the mean and deviation of all steps so far."
    )

    steps: int | None = Field(None, ge=1, description="Steps (one collect and update); replaces `epochs`.")
    epochs: int = Field(1, ge=1, description="Passes over the prompts.")
    refresh_every: int = Field(
        0, ge=0, description="Steps between new draws of a task's prompts; 0 never. Needs `task:` data."
    )
    num_prompts: int = Field(4, ge=1, description="Different prompts per step.")
    num_generations: int = Field(8, ge=1, description="Completions per prompt.")
    num_minibatches: int = Field(1, ge=1, description="Optimizer steps per pass over a step's batch.")
    num_epochs_per_batch: int = Field(1, ge=1, description="Passes over a step's batch.")
    microbatch_size: int | None = Field(
        None, ge=1, description="Rows per forward pass at most; `train.max_tokens` alone when not given."
    )

    max_prompt_tokens: int = Field(512, ge=1, description="A longer prompt is an error that names the row.")
    max_new_tokens: int = Field(256, ge=1, description="Longest completion.")
    temperature: float = Field(1.0, gt=0, description="Sampling temperature; the learner applies it too.")
    top_p: float = Field(0.9, gt=0, le=1, description="Nucleus sampling; 1 keeps every token.")
    top_k: int = Field(0, ge=0, description="Keep the k likeliest tokens; 0 keeps every token.")
    stop: list[str] = Field(default_factory=list, description="Strings that end a completion.")
    importance_correction: Literal["none", "token", "sequence_sum", "sequence_mean"] = Field(
        "token", description="Weight by min(learner / sampler, cap): corrects top-p and engine differences."
    )
    importance_cap: float = Field(2.0, gt=1, description="Cap of that weight.")

    learning_rate: float = Field(3e-6, gt=0, description="Peak learning rate of AdamW.")
    lr_schedule: Schedule = Field("constant", description="How the learning rate falls after the warm-up.")
    warmup_steps: int = Field(0, ge=0, description="Steps over which the learning rate rises.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay of AdamW.")
    max_grad_norm: float = Field(1.0, gt=0, description="Clip the global gradient norm to this.")

    loss: Literal["clip", "cispo"] = Field("clip", description="Clipped surrogate, or CISPO.")
    ratio: Literal["token", "sequence"] = Field(
        "token", description="Ratio per token or per sequence (GSPO)."
    )
    reduction: Literal["token_mean", "sequence_mean", "fixed_length"] = Field(
        "token_mean", description="How token losses become one number; the denominator is the whole batch's."
    )
    entropy_coef: float = Field(0.0, description="Weight of an entropy bonus.")
    reference_refresh_steps: int = Field(0, ge=0, description="Replace the reference every n steps; 0 never.")
    reference_mix: float = Field(
        1.0, gt=0, le=1, description="Then the reference moves this far to the policy; 1 replaces it."
    )
    advantage: AdvantageConfig = Field(default_factory=lambda: AdvantageConfig())
    clip: ClipConfig = Field(default_factory=lambda: ClipConfig())
    kl: KLConfig = Field(default_factory=lambda: KLConfig())
    dynamic_sampling: DynamicSamplingConfig = Field(default_factory=lambda: DynamicSamplingConfig())
    overlong: OverlongConfig = Field(default_factory=lambda: OverlongConfig())
    ppo: PPOConfig = Field(default_factory=lambda: PPOConfig())

    eval_every: int = Field(0, ge=0, description="Steps between evaluations on the hidden prompts; 0 is off.")
    eval_prompts: int = Field(32, ge=1, description="Hidden prompts per evaluation during training.")
    checkpoint_every: int = Field(0, ge=0, description="Steps between checkpoints; 0 saves only at the end.")

    @model_validator(mode="after")
    def _is_consistent(self) -> RLConfig:
        refuse_columns_of_a_task(self.columns, self.data, self.hidden_data)
        refuse_columns_of_a_task(self.hidden_columns, self.hidden_data)
        needs_others = self.advantage.baseline == "leave_one_out" or self.advantage.scale == "group_std"
        if self.algorithm != "ppo" and needs_others and self.num_generations < 2:
            raise ValueError(
                f"num_generations = {self.num_generations} leaves nothing to compare a completion with; "
                "use at least 2, or advantage.baseline = 'batch_mean' with scale = 'batch_std'"
            )
        # A controller may raise a coefficient of 0.
        is_charged = self.kl.coef > 0 or self.kl.controller != "fixed"
        if self.kl.placement == "loss" and is_charged and self.kl.estimator not in ("k2", "k3", "mse"):
            raise ValueError(
                f"kl.estimator = '{self.kl.estimator}' has the wrong gradient in the loss; "
                "use 'k3' or 'k2', or kl.placement = 'reward'"
            )
        if self.refresh_every and not self.data.startswith("task:"):
            raise ValueError(
                f"refresh_every = {self.refresh_every} needs data that can be drawn again, and "
                f"data = '{self.data}' is no task; use 'task:NAME' or refresh_every = 0"
            )
        if self.overlong.buffer > self.max_new_tokens:
            raise ValueError(
                f"overlong.buffer = {self.overlong.buffer} is longer than max_new_tokens = "
                f"{self.max_new_tokens}; make it smaller"
            )
        if self.advantage.components == "normalised":
            self._can_be_decoupled()
        for spec in self.hidden_rewards:
            if any((spec.name, spec.options) == (other.name, other.options) for other in self.rewards):
                raise ValueError(
                    f"hidden_rewards names '{spec.name}', which is trained on and so would only confirm "
                    "itself; name another reward"
                )
        if not self.rewards:
            raise ValueError("rewards is empty; name at least one, such as rewards = ['sales']")
        return self

    def _can_be_decoupled(self) -> None:
        if self.algorithm == "ppo":
            raise ValueError("advantage.components = 'normalised' compares groups; PPO has none, use 'sum'")
        if self.reward_clip is not None or self.reward_normalisation != "none":
            raise ValueError(
                "advantage.components = 'normalised' never forms the sum that reward_clip and "
                "reward_normalisation act on; remove them, or use components = 'sum'"
            )
        if self.kl.placement == "reward":
            raise ValueError(
                "advantage.components = 'normalised' has no place for the KL in the reward; "
                "use kl.placement = 'loss'"
            )
