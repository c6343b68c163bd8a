"""Memory that a recipe will take, estimated from the size of its model; rough, and said to be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from trimtab.cli.checks.line import CheckLine
from trimtab.config import Recipe

GIB = 2**30
OPTIMIZER_BYTES = 4 + 4 + 4 + 4  # per parameter: fp32 gradient, fp32 master, two fp32 moments of AdamW


def check_resources(recipe: Recipe, num_parameters: int, dtype: Any) -> Iterator[CheckLine]:
    """Compare the estimated memory with what the machine has."""
    need, have = estimate_memory(recipe, num_parameters, dtype.itemsize), _memory()
    shown = f"about {need / GIB:.1f} GiB for {num_parameters / 1e6:.0f} million parameters"
    if have and need > 0.9 * have:
        fix = "take a smaller model, or set model.dtype = bfloat16 and model.gradient_checkpointing"
        yield CheckLine("warn", "memory", f"{shown}, the machine has {have / GIB:.1f}", fix)
    else:
        yield CheckLine("pass", "memory", shown + (f", the machine has {have / GIB:.1f}" if have else ""))


def check_kernels() -> Iterator[CheckLine]:
    """Warn where a CPU goes the slow way: kernels that a compiler would make are missing."""
    from trimtab.models.kernels.build import kernel_faults

    faults = {name: fault for name, fault in kernel_faults().items() if fault is not None}
    # The linear maps' one is for processors that multiply bf16 only; nothing can be mended there.
    missing = [name for name in faults if name != "linear"]
    if missing:
        why = f"none of {', '.join(missing)}: {faults[missing[0]]}"
        yield CheckLine("warn", "compiled kernels", why, "sampling and training are slower without")
    else:
        found = "sampling and training use them" + _told_choices()
        yield CheckLine("pass", "compiled kernels", found)


def _told_choices() -> str:
    """How often each way of computing measured fastest on this machine."""
    from collections import Counter

    from trimtab.models.choice import FORCED, forced_choice, measured_choices

    if (forced := forced_choice()) is not None:
        return f"; {FORCED} = {forced}"
    counts = Counter(choice.way for choice in measured_choices().values())
    told = ", ".join(f"{way} {count} times" for way, count in counts.most_common())
    return f"; measured fastest: {told} (`trimtab doctor` shows them)" if told else ""


def estimate_memory(recipe: Recipe, num_parameters: int, bytes_each: int) -> float:
    """Return bytes: policy and critic with their optimizers, reference and reward model, activations."""
    rl = recipe.rl
    learners = 1 + (rl is not None and rl.algorithm == "ppo" and rl.ppo.critic == "separate")
    frozen = 0 if rl is None else 1 + (recipe.reward_model is not None or rl.reward_model is not None)
    frozen += rl is not None and any(spec.name == "process_reward" for spec in rl.rewards)
    weights = num_parameters * (learners * (bytes_each + OPTIMIZER_BYTES) + frozen * bytes_each)
    return weights * 1.2 + 0.5 * GIB  # activations, and Python with torch


def _memory() -> int | None:
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None
