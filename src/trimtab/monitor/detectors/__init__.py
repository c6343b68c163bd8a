"""Detectors: plain floats in, an alarm or None out; no state, no configuration, no logging.

Series are in order of time. A non-finite number never makes a trend: that is :func:`non_finite`'s business.
"""

from trimtab.monitor.detectors.completions import length_drift, repetition
from trimtab.monitor.detectors.hidden import hidden_gap, quality_gap
from trimtab.monitor.detectors.kl import engine_mismatch, kl_drift, kl_explosion, kl_negative, kl_too_high
from trimtab.monitor.detectors.policy import (
    clip_saturation,
    critic_collapse,
    entropy_collapse,
    entropy_explosion,
    entropy_falling,
    entropy_low,
    gradient_spike,
    non_finite,
    policy_unmoved,
)
from trimtab.monitor.detectors.reward import (
    component_share,
    reward_below_best,
    reward_by_length,
    reward_falling,
    reward_hacking,
    reward_saturation,
)
from trimtab.monitor.detectors.shares import reward_abstains, truncation, zero_variance
from trimtab.monitor.detectors.speed import stall, throughput_rot

__all__ = [
    "clip_saturation",
    "component_share",
    "critic_collapse",
    "engine_mismatch",
    "entropy_collapse",
    "entropy_explosion",
    "entropy_falling",
    "entropy_low",
    "gradient_spike",
    "hidden_gap",
    "kl_drift",
    "kl_explosion",
    "kl_negative",
    "kl_too_high",
    "length_drift",
    "non_finite",
    "policy_unmoved",
    "quality_gap",
    "repetition",
    "reward_abstains",
    "reward_below_best",
    "reward_by_length",
    "reward_falling",
    "reward_hacking",
    "reward_saturation",
    "stall",
    "throughput_rot",
    "truncation",
    "zero_variance",
]
