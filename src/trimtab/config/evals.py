"""``[eval]`` and ``[monitor]``: what is proved after training, and what is watched during it."""

from __future__ import annotations

from pydantic import Field

from trimtab.config.base import Section
from trimtab.config.heal import GuardMode, HealConfig


class EvalConfig(Section):
    """``[eval]``: hidden-set reward and pass rate, win rate against the SFT model, report."""

    data: str | None = Field(None, description="Hidden prompts; `rl.hidden_data` when not given.")
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


class MonitorConfig(Section):
    """``[monitor]``: the guard, thresholds of the health check (R18), and where figures are written."""

    guard: GuardMode = Field(
        "protect",
        description="`observe` only records alarms, so does `protect`; `heal` acts on them. Updates that are "
        "not finite are skipped in every mode.",
    )
    heal: HealConfig = Field(default_factory=lambda: HealConfig())
    max_kl: float = Field(0.5, gt=0, description="Mean KL of the last 10 steps above this is too high.")
    min_entropy: float = Field(0.5, ge=0, description="Entropy below this is too little diversity.")
    window: int = Field(10, ge=1, description="Steps that are averaged.")
    max_gap: float = Field(
        0.1, ge=0, description="The hidden pass rate may fall behind the training one by this much more."
    )
    max_quality_fall: float = Field(
        0.25,
        ge=0,
        description="A judge may fall so many standard deviations between prompts while the reward rises.",
    )
    gap_window: int = Field(2, ge=1, description="Evaluations that are averaged at either end of a gap.")
    gap_errors: float = Field(
        3.0, ge=0, description="A gap counts when it has grown by so many standard errors."
    )
    language: str = Field("en", pattern="^(en|zh)$", description="Language of the messages: en or zh.")
    trackers: list[str] = Field(
        default_factory=list, description="Also write to these: tensorboard, wandb, trackio, mlflow."
    )
    allow_upload: bool = Field(False, description="Let trackers send data to their servers.")
    samples: int = Field(1, ge=0, description="Completions shown in the terminal at each step.")
