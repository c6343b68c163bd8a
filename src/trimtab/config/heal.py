"""``[monitor.heal]``: what the guard may do with ``monitor.guard = "heal"``, how far, and how often (R14)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trimtab.config.base import Section

GuardMode = Literal["observe", "protect", "heal"]
Remedy = Literal[
    "cut_lr", "raise_kl", "tighten_clip", "raise_entropy", "raise_temperature", "rollback", "stop"
]


class HealConfig(Section):
    """``[monitor.heal]``: a setting moves in notches; each notch is one of the factors below."""

    policy: dict[str, list[Remedy]] = Field(
        default_factory=dict,
        description="Alarm kind to remedies in order, in place of the default ones; an empty list does none.",
    )
    lr_factor: float = Field(0.3, gt=0, lt=1, description="`cut_lr` multiplies the learning rates by this.")
    kl_factor: float = Field(3.0, gt=1, description="`raise_kl` multiplies the KL coefficient by this.")
    kl_start: float = Field(0.01, gt=0, description="What `raise_kl` multiplies where the coefficient is 0.")
    clip_factor: float = Field(
        0.7,
        gt=0,
        lt=1,
        description="`tighten_clip` multiplies distances, and the log of a factor, by this.",
    )
    entropy_step: float = Field(0.01, gt=0, description="`raise_entropy` adds this to `rl.entropy_coef`.")
    temperature_factor: float = Field(
        1.15, gt=1, description="`raise_temperature` multiplies the temperature by this."
    )
    max_notches: int = Field(4, ge=1, description="No setting moves further than this many notches.")
    max_actions: int = Field(24, ge=0, description="Actions in a run, undoing not counted.")
    max_actions_per_kind: int = Field(12, ge=0, description="Actions in a run against one kind of alarm.")
    max_rollbacks: int = Field(4, ge=0, description="Rollbacks in a run.")
    cooldown: int = Field(
        5, ge=1, description="Steps between two actions against one kind, and after undoing a setting."
    )
    relax_after: int = Field(
        20,
        ge=1,
        description="Steps without the alarm until a notch is undone; `window` + 1 at least.",
    )
    severe: float = Field(
        4.0,
        gt=1,
        description="A KL so many times its limit, or an entropy that far below, is rolled back.",
    )
    checkpoint_every: int = Field(
        10, ge=1, description="Steps between checkpoints where `rl.checkpoint_every` is 0."
    )
    healthy_steps: int = Field(
        5, ge=1, description="Steps without an alarm after which a checkpoint counts as healthy."
    )
    keep_healthy: int = Field(2, ge=1, description="Healthy checkpoints that are kept.")
