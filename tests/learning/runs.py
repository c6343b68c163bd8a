"""Short runs on a task that anyone can learn, and the checks that tell a run that learns from a broken one.

The task: say tokens with even ids. A random policy earns about a half; a minute of a real run is here a few
seconds of a model with a few thousand weights. The checks return what is wrong, so that a test can demand
that a run passes, and that a run broken on purpose does not.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from tests.unit.trainers.systems import rl_config, tiny_stage, tiny_system, train

from trimtab.distributed.build import System
from trimtab.runs import metrics_table

SEED_SHIFT = int(os.environ.get("TRIMTAB_TEST_SEED_SHIFT", "0"))  # tests/matrix.py: no luck of one seed
LAST = 5  # steps that are averaged at either end
MIN_RISE = {"grpo": 0.2, "ppo": 0.12}
MIN_EXPLAINED = 0.08
SETTINGS: dict[str, dict[str, Any]] = {
    "grpo": {"steps": 20, "learning_rate": 5e-3, "num_prompts": 2, "num_generations": 8, "max_new_tokens": 8},
    "ppo": {
        "steps": 20,
        "learning_rate": 2e-3,
        "num_prompts": 8,
        "num_generations": 8,
        "num_minibatches": 2,
        "num_epochs_per_batch": 2,
        "max_new_tokens": 8,
        "ppo": {"critic_learning_rate": 5e-3},
    },
}
Table = dict[str, list[float | None]]


def run(
    root: Path,
    algorithm: str,
    seed: int = 1,
    change: Callable[[System], None] = lambda system: None,
    **keys: Any,
) -> Table:
    """Train from scratch and return the metrics; ``change`` may break the system first."""
    rl = rl_config(algorithm, **{**SETTINGS["ppo" if algorithm == "ppo" else "grpo"], **keys})
    system = tiny_system(rl, seed=SEED_SHIFT)
    change(system)
    train(system, rl, tiny_stage(root), seed=seed + SEED_SHIFT)
    return metrics_table(root, "rl")


def mean_of(table: Table, name: str, part: slice) -> float:
    values = [value or 0.0 for value in table[name][part]]
    return sum(values) / len(values)


def reward_faults(table: Table, min_rise: float) -> list[str]:
    """What is wrong with the reward: nothing, when its end lies clearly above its start."""
    first = mean_of(table, "reward/mean", slice(0, LAST))
    last = mean_of(table, "reward/mean", slice(-LAST, None))
    print(f"reward {first:.3f} → {last:.3f}")
    return [] if last - first > min_rise else [f"the reward went from {first:.3f} to {last:.3f}"]


def critic_faults(table: Table) -> list[str]:
    """What is wrong with the critic: nothing, when it explains some of the returns in some stretch (R7).

    Not in the last steps: where the policy has learnt the task every completion earns the same, and what is
    explained is then divided by a variance near zero. A critic that does not learn explains nothing anywhere.
    """
    column = [value or 0.0 for value in table["critic/explained_variance"]]
    best = max(median(column[i : i + LAST]) for i in range(len(column) - LAST + 1))
    print(f"explained variance {best:.3f}")
    return [] if best > MIN_EXPLAINED else [f"explained variance is {best:.3f}"]
