"""The base of every recipe section: strict, frozen, no unknown keys."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One table of a recipe. Unknown keys are errors and values are never changed after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
