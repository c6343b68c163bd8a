"""``[checkpoint]``: how many checkpoints are kept, and which one counts as the best."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trimtab.config.base import Section


class CheckpointConfig(Section):
    """``[checkpoint]``: retention; how often they are taken is each stage's ``checkpoint_every``."""

    keep: int = Field(
        2, ge=1, description="Newest checkpoints kept per stage; with 1 a damaged one has no predecessor."
    )
    keep_last: bool = Field(
        True, description="Also take one after a stage's last step, so that --resume can go on to more steps."
    )
    best: str | None = Field(
        "eval/reward",
        min_length=1,
        description="Also keep the best checkpoint by this metric, of those where it was measured.",
    )
    best_mode: Literal["max", "min"] = Field("max", description="Whether the highest or lowest is best.")
