"""How long the recipe will take: a little sampling and learning is done and timed, a few seconds in all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trimtab.cli.checks.line import CheckLine
from trimtab.errors import TrimtabError

if TYPE_CHECKING:
    from trimtab.config import Recipe
    from trimtab.pipeline.estimate import StageTime

# Prompts, completions of each, tokens of a prompt, tokens of a completion: small, so speeds are rather low.
PROBE = (2, 8, 32, 16)


def check_time(recipe: Recipe, model: Any, tokenizer: Any) -> Iterator[CheckLine]:
    """One line with the estimated time of every stage; a stage whose data cannot be read is left out."""
    from trimtab.models.roofline import Workload
    from trimtab.pipeline.estimate import estimate_stage
    from trimtab.pipeline.speed import measure_speeds

    speeds = measure_speeds(recipe, model, tokenizer, Workload(*PROBE), is_quick=True)
    found: list[StageTime] = []
    for stage in recipe.stages:
        try:
            found.append(estimate_stage(recipe, stage, speeds, tokenizer))
        except TrimtabError:
            continue  # the line of those data says what is wrong
    shown = ", ".join(stage_text(time) for time in found) or "no stage can be estimated"
    total = sum(time.seconds for time in found)
    measured = f"{speeds.rollout:.0f} tokens/s sampled, {speeds.train:.0f} trained in a short try"
    yield CheckLine("pass", "time", f"about {duration(total)} at most: {shown} ({measured})")


def stage_text(time: StageTime) -> str:
    """One stage: what it takes, and its steps."""
    if not time.steps:
        return f"{time.stage} {duration(time.seconds)}"
    return f"{time.stage} {duration(time.seconds)} ({time.steps} × {duration(time.seconds_per_step)})"


def duration(seconds: float) -> str:
    """Seconds as a person would say them.

    Example:
        >>> duration(1.234), duration(75), duration(600), duration(7200)
        ('1.2 s', '75 s', '10 min', '2.0 h')
    """
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
