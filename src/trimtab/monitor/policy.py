"""Which remedies an alarm calls for, in order (R14). ``[monitor.heal.policy]`` replaces single entries."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import get_args

from trimtab.config import HealConfig, Remedy
from trimtab.errors import ConfigError
from trimtab.monitor.controls import Knob
from trimtab.monitor.signals import Alarm, AlarmKind

Remedies = tuple[Remedy, ...]

KNOB_OF: Mapping[Remedy, Knob] = {
    "cut_lr": "learning_rate",
    "raise_kl": "kl_coef",
    "tighten_clip": "clip",
    "raise_entropy": "entropy_coef",
    "raise_temperature": "temperature",
}

# An alarm that is not here is only recorded: what it calls for is no setting that the guard can move.
DEFAULT_POLICY: Mapping[str, Remedies] = {
    # Numerical crash.
    "non_finite": ("cut_lr", "rollback"),
    # KL explosion.
    "kl_too_high": ("raise_kl", "cut_lr", "tighten_clip", "rollback"),
    "kl_explosion": ("raise_kl", "cut_lr", "tighten_clip", "rollback"),
    "kl_drift": ("raise_kl",),
    "clip_saturation": ("cut_lr",),
    "gradient_spike": ("cut_lr",),
    "entropy_explosion": ("cut_lr", "raise_kl", "rollback"),
    # Entropy collapse.
    "entropy_collapse": ("raise_entropy", "cut_lr", "raise_temperature", "rollback"),
    # Reward hacking.
    "quality_gap": ("raise_kl", "rollback"),
    "reward_hacking": ("raise_kl", "raise_entropy", "rollback"),
    "repetition": ("raise_kl", "raise_temperature"),
    "hidden_gap": ("raise_kl", "cut_lr"),
    "reward_falling": ("cut_lr",),
}

# Remedies that slow the policy down: they do not bring it back, and keep others from doing so.
BRAKES: tuple[Remedy, ...] = ("cut_lr", "tighten_clip")
# Alarms about where the policy stands, and not how it moves. Beside them the reward still means something.
LEVELS: tuple[AlarmKind, ...] = ("kl_too_high", "entropy_collapse")
STILL_PAID: tuple[AlarmKind, ...] = (*LEVELS, "kl_explosion", "entropy_explosion")

# Raised by evaluations only: between two of them, silence says nothing.
EVALUATED: tuple[str, ...] = ("quality_gap", "hidden_gap")


def policy_of(config: HealConfig) -> dict[str, Remedies]:
    """The default table with the recipe's entries in place of its own; kinds without a remedy left out.

    Raises:
        ConfigError: an entry for an alarm that does not exist.
    """
    kinds = get_args(AlarmKind)
    for kind in config.policy:
        if kind not in kinds:
            near = difflib.get_close_matches(kind, kinds, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"take one of {', '.join(kinds)}."
            raise ConfigError(f"[monitor.heal.policy] names '{kind}', which is no alarm; {hint}")
    table = {**DEFAULT_POLICY, **{kind: tuple(found) for kind, found in config.policy.items()}}
    return {kind: remedies for kind, remedies in table.items() if remedies}


def is_severe(alarm: Alarm, times: float) -> bool:
    """Whether small steps come too late: a KL ``times`` its limit, an entropy that far below its own."""
    if alarm.kind in ("kl_too_high", "kl_explosion"):
        return alarm.value > times * alarm.threshold
    return alarm.kind == "entropy_collapse" and alarm.value * times < alarm.threshold
