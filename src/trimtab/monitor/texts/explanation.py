"""What an alarm means, in one language."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Language = Literal["en", "zh"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """One alarm in one language."""

    symptom: str
    cause: str
    remedy: str
