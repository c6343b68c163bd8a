"""Which model, in which precision."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trimtab.config.base import Section

Dtype = Literal["auto", "float32", "bfloat16"]


class ModelConfig(Section):
    """``[model]``: the model that the first stage of the recipe starts from."""

    path: str = Field("builtin:tiny-zh", description="A directory, a hub name, or `builtin:tiny-zh`.")
    dtype: Dtype = Field(
        "auto", description="Precision of the parameters; auto takes bfloat16 where it measures faster."
    )
    attention: Literal["trimtab", "sdpa", "eager"] = Field(
        "trimtab", description="Attention implementation; trimtab lets the module sample and learn."
    )
    trust_remote_code: bool = Field(False, description="Run Python code that comes with the model.")
    chat_template: str | None = Field(
        None, description="A Jinja file to use as chat template when the model has none."
    )
    gradient_checkpointing: bool = Field(False, description="Recompute activations to save memory.")
