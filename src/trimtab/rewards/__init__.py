"""Rewards: protocol, rules, the sales reward, learned reward models, users' functions, weighted sums.

Names are imported when they are first used, so that a rule does not pull in torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {
    "CombinedReward": "trimtab.rewards.combine",
    "FunctionReward": "trimtab.rewards.adapters",
    "HardenedSalesReward": "trimtab.rewards.sales_hardened",
    "LearnedReward": "trimtab.rewards.learned",
    "REWARDS": "trimtab.rewards.registry",
    "Reward": "trimtab.rewards.base",
    "RuleReward": "trimtab.rewards.rules",
    "SalesVerifiableReward": "trimtab.rewards.sales",
    "build_reward": "trimtab.rewards.registry",
    "check_result": "trimtab.rewards.base",
    "encode_for_reward": "trimtab.rewards.conversation",
    "reward_from_file": "trimtab.rewards.adapters",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'trimtab.rewards' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
