"""``[eval]`` and ``[monitor]``: what is proved after training, and what is watched during it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trimtab.config.base import Section
from trimtab.config.data import Columns
from trimtab.config.heal import GuardMode, HealConfig


class EvalConfig(Section):
    """``[eval]``: hidden-set reward and pass rate, win rate against the SFT model, report."""

    data: str | None = Field(None, description="Hidden prompts; `rl.hidden_data` when not given.")
    columns: Columns | None = Field(
        None, description="Names that these data call otherwise; those of `rl` when not given."
    )
    num_prompts: int = Field(128, ge=1, description="Hidden prompts used.")
    num_generations: int = Field(1, ge=1, description="Completions per prompt and model.")
    temperature: float | None = Field(None, gt=0, description="Sampling temperature; else `rl.temperature`.")
    judge: str | None = Field(
        None,
        description="`sales_quality`, a reward model directory, `FILE.py:function`, or `openai:MODEL@URL`; "
        "never a reward.",
    )
    tie_margin: float = Field(0.02, ge=0, description="Scores closer than this are a tie.")
    pass_threshold: float = Field(0.5, description="A completion passes when its reward is at least this.")


class ThresholdConfig(Section):
    """``[monitor.thresholds]``: where the alarms begin that are not about KL and entropy alone.

    A window is ``monitor.window`` steps, the start is the run's first window.
    """

    kl_growth: float = Field(3.0, gt=1, description="KL that multiplies by this within a window explodes.")
    kl_drift: float = Field(0.15, gt=0, description="KL may rise by this in 4 windows without more reward.")
    unmoved_kl: float = Field(
        1e-3, ge=0, description="A policy that was never further than this has not moved, nats per token."
    )
    engine_kl: float = Field(
        0.01, gt=0, description="Sampler and learner may differ by this, nats per token."
    )
    entropy_share: float = Field(0.5, gt=0, lt=1, description="Entropy may fall to this share of its past.")
    entropy_growth: float = Field(2.0, gt=1, description="Entropy may grow to this many times its start.")
    reward_fall: float = Field(8.0, gt=0, description="Reward may fall by this many times its step noise.")
    reward_spread: float = Field(
        0.1, ge=0, lt=1, description="Reward deviation below this share of its start."
    )
    zero_variance: float = Field(0.5, ge=0, le=1, description="Share of groups with equal rewards.")
    abstained: float = Field(0.5, ge=0, le=1, description="Share of completions without a reward.")
    component_share: float = Field(0.8, gt=0, description="Share of the gain that one component may take.")
    length_correlation: float = Field(0.7, gt=0, lt=1, description="Rank correlation of reward and length.")
    length_growth: float = Field(2.0, gt=1, description="Length may change by this factor in 4 windows.")
    truncated: float = Field(0.5, ge=0, le=1, description="Share of completions that may be cut.")
    distinct_share: float = Field(
        0.5, ge=0, lt=1, description="distinct_2 may fall to this share of its start."
    )
    clipfrac: float = Field(0.3, ge=0, le=1, description="Share of tokens that may be clipped.")
    gradient_growth: float = Field(5.0, gt=1, description="Gradient norms may be so many times the median.")
    explained_variance: float = Field(-0.05, le=1, description="Explained variance of a critic that helps.")
    speed_share: float = Field(0.5, ge=0, lt=1, description="Speed may fall to this share of its start.")
    stall_factor: float = Field(10.0, gt=1, description="A step may take so many times the median.")


class MonitorConfig(Section):
    """``[monitor]``: the guard, thresholds of the health check (R18), and where figures are written."""

    guard: GuardMode = Field(
        "protect",
        description="`observe` only reports; `protect` skips updates that are not finite and stops "
        "after several; `heal` also acts on alarms.",
    )
    heal: HealConfig = Field(default_factory=lambda: HealConfig())
    max_kl: float = Field(0.5, gt=0, description="Mean KL of the last 10 steps above this is too high.")
    min_entropy: float = Field(
        0.5, ge=0, description="Entropy below this is too little diversity, in a run that began above it."
    )
    window: int = Field(10, ge=1, description="Steps that are averaged.")
    max_silent_steps: int = Field(
        10, ge=1, description="Steps in a row without any reward that end the run; at its start, one does."
    )
    max_gap: float = Field(
        0.1, ge=0, description="The hidden pass rate may fall behind the training one by this much more."
    )
    max_quality_fall: float = Field(
        0.25,
        ge=0,
        description="A judge may fall so many standard deviations between prompts while the reward rises.",
    )
    thresholds: ThresholdConfig = Field(default_factory=lambda: ThresholdConfig())
    gap_window: int = Field(2, ge=1, description="Evaluations that are averaged at either end of a gap.")
    gap_errors: float = Field(
        3.0, ge=0, description="A gap counts when it has grown by so many standard errors."
    )
    stall_seconds: float = Field(
        1800.0, gt=0, description="A phase of a step that takes longer than this is a stall."
    )
    stall_factor: float = Field(
        20.0,
        ge=1,
        description="And longer than so many times its usual (median) duration, where that is more.",
    )
    stall_action: Literal["warn", "stop"] = Field(
        "warn", description="At a stall: warn only, or stop the process with exit code 75."
    )
    language: str = Field("en", pattern="^(en|zh)$", description="Language of the messages: en or zh.")
    trackers: list[str] = Field(
        default_factory=list, description="Also write to these: tensorboard, wandb, trackio, mlflow."
    )
    allow_upload: bool = Field(False, description="Let trackers send data to their servers.")
    samples: int = Field(1, ge=0, description="Completions shown in the terminal at each step.")
