"""Memory and time that a recipe will take, estimated from the size of its model; rough, and said to be."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

from trimtab.cli.checks.line import CheckLine
from trimtab.config import Recipe

GIB = 2**30
OPTIMIZER_BYTES = 4 + 4 + 4 + 4  # per parameter: fp32 gradient, fp32 master, two fp32 moments of AdamW
EFFICIENCY = 0.3  # share of the measured matrix speed that a whole step reaches


def check_resources(recipe: Recipe, num_parameters: int, dtype: Any) -> Iterator[CheckLine]:
    """Compare the estimated memory with what the machine has; say how long a step and the stage may take."""
    need, have = estimate_memory(recipe, num_parameters, dtype.itemsize), _memory()
    shown = f"about {need / GIB:.1f} GiB for {num_parameters / 1e6:.0f} million parameters"
    if have and need > 0.9 * have:
        fix = "take a smaller model, or set model.dtype = bfloat16 and model.gradient_checkpointing"
        yield CheckLine("warn", "memory", f"{shown}, the machine has {have / GIB:.1f}", fix)
    else:
        yield CheckLine("pass", "memory", shown + (f", the machine has {have / GIB:.1f}" if have else ""))
    if recipe.rl is not None:
        seconds = step_flops(recipe, num_parameters) / (_flops(dtype) * EFFICIENCY)
        steps = f", {recipe.rl.steps} steps {_duration(seconds * recipe.rl.steps)}" if recipe.rl.steps else ""
        yield CheckLine("pass", "time", f"an RL step takes roughly {_duration(seconds)} at most{steps}")


def estimate_memory(recipe: Recipe, num_parameters: int, bytes_each: int) -> float:
    """Return bytes: policy and critic with their optimizers, reference and reward model, activations."""
    rl = recipe.rl
    learners = 1 + (rl is not None and rl.algorithm == "ppo" and rl.ppo.critic == "separate")
    frozen = 0 if rl is None else 1 + (recipe.reward_model is not None or rl.reward_model is not None)
    weights = num_parameters * (learners * (bytes_each + OPTIMIZER_BYTES) + frozen * bytes_each)
    return weights * 1.2 + 0.5 * GIB  # activations, and Python with torch


def step_flops(recipe: Recipe, num_parameters: int) -> float:
    """Return floating-point operations of one RL step when every completion is as long as it may be.

    Per token and parameter: 2 to sample, 2 for the reference, 6 for each pass of learning.
    """
    rl = recipe.rl
    assert rl is not None
    tokens = rl.num_prompts * rl.num_generations * rl.max_new_tokens
    passes = 2 + 2 + 6 * rl.num_epochs_per_batch * (2 if rl.algorithm == "ppo" else 1)
    return float(num_parameters) * tokens * passes


def _memory() -> int | None:
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _flops(dtype: Any, size: int = 384) -> float:
    """Measure matrix products for a few milliseconds, in operations per second."""
    import torch

    a, best = torch.ones(size, size, dtype=dtype), float("inf")
    for _ in range(4):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
