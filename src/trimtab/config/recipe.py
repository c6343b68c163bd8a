"""The whole recipe: one TOML file, one pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from trimtab.config.base import Section
from trimtab.config.checkpoint import CheckpointConfig
from trimtab.config.data import RewardModelConfig, SFTConfig
from trimtab.config.evals import EvalConfig, MonitorConfig
from trimtab.config.model import ModelConfig
from trimtab.config.rl import RLConfig
from trimtab.config.rollout import RolloutConfig
from trimtab.config.train import TrainConfig

Stage = Literal["sft", "reward_model", "rl", "eval"]
STAGES: tuple[Stage, ...] = ("sft", "reward_model", "rl", "eval")


class PathsConfig(Section):
    """``[paths]``: where stages write. ``{algorithm}`` in a path is replaced by `rl.algorithm` (R3)."""

    sft: str = Field("output/sft", description="The SFT model.")
    reward_model: str = Field("output/rm", description="The reward model.")
    policy: str = Field("output/{algorithm}", description="The policy that RL made.")
    run: str = Field("output/run", description="Records of the run: events, rollouts, checkpoints, report.")
    summary: str = Field("output/summary.json", description="The result.")

    @classmethod
    def under(cls, directory: str | Path) -> PathsConfig:
        """Return the layout of ``--output DIR``: everything in one directory."""
        root = Path(directory)
        return cls(
            sft=str(root / "sft"),
            reward_model=str(root / "rm"),
            policy=str(root / "policy"),
            run=str(root / "run"),
            summary=str(root / "summary.json"),
        )


class Recipe(Section):
    """A pipeline: the stages whose tables are present run in order SFT → reward model → RL → evaluation."""

    name: str = Field("run", description="Shown in the terminal and in the report.")
    seed: int = Field(42, ge=0, description="Every random stream is derived from it.")
    threads: int | None = Field(None, ge=1, description="CPU threads for torch; its own default if unset.")
    model: ModelConfig = Field(default_factory=lambda: ModelConfig())
    paths: PathsConfig = Field(default_factory=lambda: PathsConfig())
    sft: SFTConfig | None = Field(None, description="Supervised fine-tuning; no table, no stage.")
    reward_model: RewardModelConfig | None = Field(None, description="Reward model; no table, no stage.")
    rl: RLConfig | None = Field(None, description="PPO or GRPO; no table, no stage.")
    rollout: RolloutConfig = Field(default_factory=lambda: RolloutConfig())
    eval: EvalConfig | None = Field(None, description="Evaluation; no table, no stage.")
    train: TrainConfig = Field(default_factory=lambda: TrainConfig())
    checkpoint: CheckpointConfig = Field(default_factory=lambda: CheckpointConfig())
    monitor: MonitorConfig = Field(default_factory=lambda: MonitorConfig())

    @model_validator(mode="after")
    def _reference_can_move(self) -> Recipe:
        if self.model.lora and self.rl and self.rl.reference_refresh_steps:
            raise ValueError(
                "rl.reference_refresh_steps must be 0 with [model.lora]: the reference is the model that the "
                "adapter was put on"
            )
        return self

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that this recipe describes, in order."""
        return tuple(stage for stage in STAGES if getattr(self, stage) is not None)

    def resolved(self) -> dict[str, Any]:
        """The recipe as plain data with every default written out, as stored in the run directory."""
        return self.model_dump(mode="json", exclude_none=True)
