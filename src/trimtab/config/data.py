"""The supervised stages: SFT, reward model and process reward model, with their data."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from trimtab.config.base import Section

Schedule = Literal["constant", "linear", "cosine"]
Columns = dict[str, str]  # a name, and the dotted path of what it holds
COLUMNS = "Names that the data call otherwise: { prompt = 'question', answer = 'reward_model.ground_truth' }."


class SupervisedConfig(Section):
    """What SFT and the reward models have in common: where they start, and how they go through their rows."""

    model: str | None = Field(None, description="Start from this model instead of the stage before.")
    learning_rate: float = Field(1e-5, gt=0, description="Peak learning rate of AdamW.")
    lr_schedule: Schedule = Field("cosine", description="How the learning rate falls after the warm-up.")
    warmup_steps: int = Field(10, ge=0, description="Steps over which the learning rate rises.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay of AdamW.")
    max_grad_norm: float = Field(1.0, gt=0, description="Clip the global gradient norm to this.")
    epochs: int = Field(1, ge=1, description="Passes over the data.")
    steps: int | None = Field(None, ge=1, description="Optimizer steps; replaces `epochs` when given.")
    batch_size: int = Field(32, ge=1, description="Rows (pairs) per optimizer step.")
    checkpoint_every: int = Field(0, ge=0, description="Steps between checkpoints; 0 saves only at the end.")


def refuse_columns_of_a_task(columns: Columns | None, *sources: str | None) -> None:
    """Raise when columns are mapped though every source is a task, which has its own.

    Raises:
        ValueError: with the fix.
    """
    if columns and all(source is None or source.startswith("task:") for source in sources):
        raise ValueError("columns maps nothing: the data are a task, which names its own; remove it")


class SFTConfig(SupervisedConfig):
    """``[sft]``: supervised fine-tuning on instruction → response pairs (R1)."""

    data: str = Field(description="JSONL, JSON or Parquet file, or a hub data set, with the pairs.")
    columns: Columns = Field(default_factory=dict, description=COLUMNS)
    learning_rate: float = Field(2e-5, gt=0, description="Peak learning rate of AdamW.")
    microbatch_size: int | None = Field(
        None, ge=1, description="Rows per forward pass at most; `train.max_tokens` alone when not given."
    )
    max_length: int = Field(1024, ge=8, description="Longest row in tokens; longer rows are left out.")


class RewardModelConfig(SupervisedConfig):
    """``[reward_model]``: Bradley-Terry on preference pairs (R4)."""

    data: str = Field(description="JSONL, JSON or Parquet file, or a hub data set, with chosen and rejected.")
    columns: Columns = Field(default_factory=dict, description=COLUMNS)
    microbatch_size: int = Field(16, ge=1, description="Pairs per forward pass.")
    max_length: int = Field(1024, ge=8, description="Input cut to this many tokens, from the prompt's left.")
    centre_coef: float = Field(0.01, ge=0, description="Weight of the penalty that centres scores at zero.")
    held_out: float = Field(0.1, gt=0, lt=1, description="Share of the pairs kept for validation.")


class ProcessRewardConfig(SupervisedConfig):
    """``[process_reward]``: is each step of a solution right? Learned from labelled steps (R22)."""

    data: str = Field(
        description="File or hub data set with prompt, completions (steps) and labels, or `task:NAME`."
    )
    columns: Columns = Field(default_factory=dict, description=COLUMNS)
    rows: int = Field(4096, ge=2, description="Solutions drawn from a `task:NAME`; a file is read whole.")
    microbatch_size: int = Field(16, ge=1, description="Solutions per forward pass.")
    max_length: int = Field(1024, ge=8, description="Input cut to this many tokens, from the prompt's left.")
    separator: str = Field(
        "\n", min_length=1, description="Text between two steps, or `numbered` for lines that begin with one."
    )
    held_out: float = Field(0.1, gt=0, lt=1, description="Share of the prompts kept for validation.")

    @model_validator(mode="after")
    def _columns_are_used(self) -> ProcessRewardConfig:
        refuse_columns_of_a_task(self.columns, self.data)
        return self
