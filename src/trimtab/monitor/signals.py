"""The alarms: what kinds there are, and a finding with its figures, which explains itself (R14, R18)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trimtab.monitor.texts import REWARDS, TRAINING, Explanation, Language

AlarmKind = Literal[
    "non_finite",
    "kl_too_high",
    "kl_explosion",
    "kl_negative",
    "kl_drift",
    "entropy_collapse",
    "entropy_explosion",
    "clip_saturation",
    "gradient_spike",
    "critic_collapse",
    "engine_mismatch",
    "throughput_rot",
    "stall",
    "reward_falling",
    "reward_saturation",
    "zero_variance",
    "reward_abstains",
    "policy_unmoved",
    "reward_hacking",
    "component_share",
    "reward_by_length",
    "repetition",
    "length_drift",
    "truncation",
    "hidden_gap",
    "quality_gap",
]


@dataclass(frozen=True, slots=True)
class Alarm:
    """A detector's finding: the measured ``value`` against its ``threshold``, of ``metric`` (our name).

    ``evidence`` are the figures beside it that made the detector speak. ``detail`` is what only the run
    knows, such as the words of a reward that failed.
    """

    kind: AlarmKind
    metric: str
    value: float
    threshold: float
    evidence: Mapping[str, float] = field(default_factory=dict, hash=False)
    detail: str = ""

    def message(self, language: str = "en") -> str:
        """The finding as one line: symptom, figures, remedy."""
        text = self.explain(language)
        figures = f"{self.metric} = {self.value:.4g}, {_LIMIT[_known(language)]} {self.threshold:.4g}"
        figures += "".join(f", {name} {value:.3g}" for name, value in self.evidence.items())
        figures += f"; {self.detail}" if self.detail else ""
        if _known(language) == "zh":
            return f"{text.symptom}（{figures}）：{text.remedy}"
        return f"{text.symptom} ({figures}): {text.remedy}"

    def explain(self, language: str = "en") -> Explanation:
        """Symptom, cause and remedy; English for a language that there is no text in."""
        return SIGNALS[self.kind][_known(language)]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the event of the alarm, with the message in both languages."""
        return {
            "kind": self.kind,
            "metric": self.metric,
            "value": self.value,
            "threshold": self.threshold,
            "evidence": dict(self.evidence),
            **({"detail": self.detail} if self.detail else {}),
            "message": {language: self.message(language) for language in _LIMIT},
        }


_LIMIT: Mapping[Language, str] = {"en": "limit", "zh": "界限"}


def _known(language: str) -> Language:
    return "zh" if language == "zh" else "en"


SIGNALS: Mapping[str, Mapping[Language, Explanation]] = {**TRAINING, **REWARDS}
