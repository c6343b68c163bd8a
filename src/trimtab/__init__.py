"""Trimtab: align language models with reinforcement learning.

The Python names of the specification are here and import nothing heavy until they are used::

    from trimtab import GRPOTrainer, SalesVerifiableReward, load_prompts
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from trimtab.cores import settle_environment

settle_environment()  # before torch is imported, by whichever part of trimtab

__version__ = "0.1.0"

_PUBLIC = {
    "rlhf_objective": "trimtab.functional",
    "ppo_loss": "trimtab.functional",
    "grpo_loss": "trimtab.functional",
    "AdaptiveKLController": "trimtab.monitor",
    "RLMonitor": "trimtab.monitor",
    "SalesVerifiableReward": "trimtab.rewards",
    "load_prompts": "trimtab.api",
    "load_reward_model": "trimtab.api",
    "GRPOTrainer": "trimtab.api",
    "PPOTrainer": "trimtab.api",
}
__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``import trimtab`` and the command line start fast."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'trimtab' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
