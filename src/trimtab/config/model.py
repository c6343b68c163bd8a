"""Which model, in which precision."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator

from trimtab.config.base import Section

Dtype = Literal["auto", "float32", "bfloat16"]


ALL_LINEAR = "all-linear"


class LoraConfig(Section):
    """``[model.lora]``: train a low-rank adapter on the frozen model (Hu et al. 2021) in every stage."""

    rank: int = Field(16, ge=1, description="Rank of the adapter's matrices.")
    alpha: float = Field(32.0, gt=0, description="The adapter is scaled by alpha / rank.")
    dropout: float = Field(0.0, description="Only 0: training and sampling must be one policy.")
    target_modules: list[str] = Field(
        default_factory=lambda: [ALL_LINEAR],
        min_length=1,
        description="Names of linear layers (`q_proj`), or `all-linear`: all but the head.",
    )
    save_adapter: bool = Field(
        False, description="Also save the adapter, in the folder `adapter` of the merged model."
    )

    @field_validator("target_modules", mode="before")
    @classmethod
    def _one_name(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("target_modules")
    @classmethod
    def _all_or_names(cls, value: list[str]) -> list[str]:
        if ALL_LINEAR in value and len(value) > 1:
            raise ValueError(f"give either '{ALL_LINEAR}' or names of layers")
        return value

    @field_validator("dropout")
    @classmethod
    def _no_dropout(cls, value: float) -> float:
        if value != 0:
            raise ValueError(
                "use 0, since dropout would make the policy that learns another than the one that sampled"
            )
        return value


class ModelConfig(Section):
    """``[model]``: the model that the first stage of the recipe starts from."""

    path: str = Field("builtin:tiny-zh", description="A directory, a hub name, or `builtin:tiny-zh`.")
    dtype: Dtype = Field(
        "auto", description="Precision of the parameters; auto takes bfloat16 where it measures faster."
    )
    device: str = Field(
        "auto", description="cpu, cuda or cuda:N; auto takes a CUDA GPU where torch sees one."
    )
    attention: Literal["trimtab", "sdpa", "eager"] = Field(
        "trimtab", description="Attention implementation; trimtab lets the module sample and learn."
    )
    trust_remote_code: bool = Field(False, description="Run Python code that comes with the model.")
    chat_template: str | None = Field(
        None, description="A Jinja file to use as chat template when the model has none."
    )
    gradient_checkpointing: bool = Field(False, description="Recompute activations to save memory.")
    lora: LoraConfig | None = Field(None, description="Train an adapter only; no table, no adapter.")

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
            raise ValueError("use 'auto', 'cpu', 'cuda', or 'cuda:0' for a certain GPU")
        return value

    @property
    def keeps_adapter(self) -> bool:
        """Whether an adapter is also saved by itself."""
        return self.lora is not None and self.lora.save_adapter
