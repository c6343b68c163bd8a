"""Running code that a model wrote, where it can do no harm and tell no lies that pay.

The parent decides: what is expected never enters the sandbox, and what comes out is data, never a verdict.
"""

from trimtab.rewards.sandbox.levels import LEVELS, choose_level
from trimtab.rewards.sandbox.limits import Limits
from trimtab.rewards.sandbox.pool import RunResult, Sandbox, SandboxPool

__all__ = ["LEVELS", "Limits", "RunResult", "Sandbox", "SandboxPool", "choose_level"]
