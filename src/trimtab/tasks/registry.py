"""Tasks by name: prompts and grader together. A data source ``task:NAME`` is one of these."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qsl

from trimtab.data import Stepwise
from trimtab.errors import DataError, nearest
from trimtab.rewards.base import Reward
from trimtab.tasks.arithmetic import ArithmeticTask
from trimtab.tasks.chain import ChainTask
from trimtab.tasks.code import CodeTask
from trimtab.tasks.sales_logic import SalesLogicTask
from trimtab.types import Prompt

PREFIX = "task:"
MAX_HIDDEN_SALES = 400  # the generator has not many more that differ enough from each other


class Task(Protocol):
    """A family of prompts and the grader that belongs to it."""

    @property
    def name(self) -> str:
        """The name in TASKS."""
        ...

    def prompts(self, split: str, count: int, seed: int) -> list[Prompt]:
        """Return ``count`` prompts of ``train`` or of ``hidden``; nothing is in both, whatever the seeds."""
        ...

    def reward(self) -> Reward:
        """Return the grader."""
        ...


@dataclass(frozen=True, slots=True)
class SalesTask:
    """Customers' messages of the generator, graded by the plain sales reward."""

    name: str = "sales"

    def prompts(self, split: str, count: int, seed: int) -> list[Prompt]:
        """Return ``count`` prompts of ``train`` or ``hidden``: held-out pairs of situation and product.

        There are at most 400 hidden ones.
        """
        from trimtab.tasks.sales import generate_hidden_prompts, generate_train_prompts

        if split not in ("train", "hidden"):
            raise DataError(f"task:sales has no split {split!r} (known: hidden, train).")
        if split == "train":
            texts = generate_train_prompts(count, seed)
        else:
            texts = generate_hidden_prompts(generate_train_prompts(), min(count, MAX_HIDDEN_SALES), seed)
        return [
            Prompt(f"sales-{split}-{seed}-{index}", ({"role": "user", "content": text},))
            for index, text in enumerate(texts)
        ]

    def reward(self) -> Reward:
        """The reward of R23 without relevance."""
        from trimtab.rewards.sales import SalesVerifiableReward

        return SalesVerifiableReward()


def sales_quality(prompt: str, response: str) -> float:
    """The sales generator's own judgement of an answer, in [0, 1]; the rule reward does not see it."""
    from trimtab.tasks.sales import quality

    return float(quality(prompt, response))


def _reasoning_gym(dataset: str = "chain_sum", style: str = "tags", **options: str) -> Task:
    """A data set of the reasoning-gym package; other options are those of the data set."""
    from trimtab.tasks.reasoning_gym import ReasoningGymTask

    return ReasoningGymTask(dataset, style, options)


TASKS: dict[str, Callable[..., Task]] = {
    "arithmetic": ArithmeticTask,
    "chain": ChainTask,
    "code": CodeTask,
    "reasoning_gym": _reasoning_gym,
    "sales": SalesTask,
    "sales_logic": SalesLogicTask,
}
# Judges that come with a task: (prompt, response) -> quality. Never used as a training reward.
JUDGES: dict[str, Callable[[str, str], float]] = {"sales_quality": sales_quality}


def is_task(source: str) -> bool:
    """Whether a data source names a task and not a file.

    Example:
        >>> is_task("task:arithmetic"), is_task("data/prompts.json")
        (True, False)
    """
    return source.startswith(PREFIX)


def load_task(source: str) -> Task:
    """Return a task by name; options follow as in ``task:arithmetic?digits=1&language=en``.

    Raises:
        DataError: an unknown task or option (the nearest one is told), or a value of the wrong type.
    """
    name, _, query = source.removeprefix(PREFIX).partition("?")
    if name not in TASKS:
        raise DataError(f"Task '{name}' is not known{nearest(name, TASKS)}.")
    parameters = inspect.signature(TASKS[name]).parameters
    known = {key: p for key, p in parameters.items() if key != "name" and p.kind is not p.VAR_KEYWORD}
    takes_others = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    options: dict[str, Any] = {}
    # A plus sign is a plus sign here, not a blank.
    for key, text in parse_qsl(query.replace("+", "%2B"), keep_blank_values=True):
        if key not in known and takes_others:
            options[key] = text
            continue
        if key not in known:
            hint = nearest(key, known) if known else " (it has none)"
            raise DataError(f"Task {name} has no option '{key}'{hint}.")
        try:
            options[key] = type(known[key].default)(text)
        except ValueError:
            raise DataError(f"Task {name}: {key} = {text!r} is not a number.") from None
    return TASKS[name](**options)


def load_task_prompts(source: str, split: str, count: int, seed: int) -> list[Prompt]:
    """Return ``count`` prompts of ``train`` or ``hidden`` of ``task:NAME``.

    Raises:
        DataError: as :func:`load_task`, or an unknown split.
    """
    return load_task(source).prompts(split, count, seed)


def load_task_solutions(source: str, split: str, count: int, seed: int) -> list[Stepwise]:
    """Return ``count`` solutions with labelled steps of ``task:NAME``, for a process reward model.

    Raises:
        DataError: as :func:`load_task_prompts`, or a task that makes no solutions.
    """
    task = load_task(source)
    make = getattr(task, "solutions", None)
    if make is None:
        known = ", ".join(sorted(name for name, kind in TASKS.items() if hasattr(kind, "solutions")))
        raise DataError(f"Task {task.name} makes no labelled solutions; choose one of: {known}.")
    solutions: list[Stepwise] = make(split, count, seed)
    return solutions
