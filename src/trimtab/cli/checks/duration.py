"""How long the recipe will take: a little sampling and learning is done and timed, a few seconds in all"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trimtab.cli.checks.line import CheckLine
from trimtab.errors import TrimtabError

if TYPE_CHECKING:
    from trimtab.config import Recipe
    from trimtab.pipeline.estimate import StageTime

MOST_SPREAD = 0.5  # repeats that lie further apart than this share of their median say nothing


def check_time(recipe: Recipe, model: Any, tokenizer: Any) -> Iterator[CheckLine]:
    """One line with the estimated time of every stage; a stage whose data cannot be read is left out."""
    from trimtab.pipeline.estimate import estimate_stage
    from trimtab.pipeline.trial_speed import try_speeds

    try:
        trial = try_speeds(recipe, model, tokenizer)
    except TrimtabError:
        return  # the line of those data says what is wrong
    speeds, length = trial.speeds, trial.lengths.mean
    if trial.spread > MOST_SPREAD:
        found = f"no estimate: repeats of the same work took {trial.spread:.0%} more or less than one another"
        yield CheckLine("warn", "time", found, "check again when the machine does nothing else")
        return
    times: list[StageTime] = []
    for stage in recipe.stages:
        try:
            times.append(estimate_stage(recipe, stage, speeds, tokenizer, length))
        except TrimtabError:
            continue
    shown = ", ".join(stage_text(time) for time in times) or "no stage can be estimated"
    total = sum(time.seconds for time in times)
    measured = f"{speeds.rollout:.0f} tokens/s sampled, {speeds.train:.0f} trained in a short try"
    if recipe.rl is not None:
        measured += f"; answers of {length:.0f} tokens"
    yield CheckLine("pass", "time", f"about {duration(total)}: {shown} ({measured})")


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
