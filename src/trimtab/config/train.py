"""How learning is computed, in every stage; none of it changes the result."""

from __future__ import annotations

from pydantic import Field

from trimtab.config.base import Section


class TrainConfig(Section):
    """``[train]``: micro-batches by tokens, packed."""

    max_tokens: int | None = Field(
        None, ge=1, description="Tokens per micro-batch; chosen from the free memory when not given."
    )
    packing: bool = Field(
        True, description="Run no padding, and a group's prompt once; off is the plain padded forward."
    )
    skip_zero: bool = Field(True, description="Do not run completions whose gradient is exactly 0.")
