"""``[rollout]``: how completions are sampled; none of it changes what is sampled, up to rounding."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trimtab.config.base import Section


class RolloutConfig(Section):
    """``[rollout]``: the sampling engine and the memory that it may take."""

    engine: Literal["native", "generate"] = Field(
        "native", description="Our engine, or transformers' own generate (slower, for any architecture)."
    )
    max_rows: int = Field(256, ge=1, description="Completions that are sampled side by side, at most.")
    kv_memory_gb: float | None = Field(
        None, gt=0, description="GiB for keys and values; a quarter of the free memory when not given."
    )
    cache: Literal["auto", "kernel", "torch"] = Field(
        "auto", description="Compiled kernels (need a C compiler), or plain torch; auto takes what works."
    )
    cuda_graphs: bool = Field(True, description="On a GPU, launch a whole decode step at once.")
