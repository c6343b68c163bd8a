"""Reward functions written for TRL, verl and OpenRLHF, used unmodified (R31).

Which of the three a function is written for is read from its parameter names. Signatures:
TRL https://huggingface.co/docs/trl/grpo_trainer (using a custom reward function), verl
https://verl.readthedocs.io (reward_function), OpenRLHF ``--reward.remote_url FILE.py``.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from trimtab.errors import RewardError
from trimtab.rewards.base import Reward, abstain_all, check_result, describe
from trimtab.rewards.parts_log import PartsLog, as_list, numbers_of
from trimtab.rewards.user_file import describe_error, load_from_file
from trimtab.types import RewardResult, Sample

Options = Mapping[str, Any]
# One of these is what a function scores.
_SCORED = {"completions", "completion_ids", "solution_str", "solution_strs", "queries"}
# Columns that TRL does not pass on, since its own arguments are called so or nearly so.
_OWN_COLUMNS = {"prompt", "completion", "completion_ids"}
# What a verl or OpenRLHF row calls its gold answer; the first one that is there is taken.
GOLD_COLUMNS = ("ground_truth", "label", "labels", "answer", "solution")


class FunctionReward:
    """A user's function as a Reward. An exception, or a wrong number of values, makes the call abstain.

    Prompts and completions are strings, or lists of messages as TRL passes them for conversational data: when
    a prompt was given as messages (``Prompt.is_conversational``) or has more than one message. The option
    ``conversational`` (true or false) decides it by hand; all other options are passed to the function.
    """

    def __init__(self, function: Callable[..., Any], name: str = "", options: Options | None = None) -> None:
        self.function = function
        self.name = name or getattr(function, "__name__", type(function).__name__)
        self.options = dict(options or {})
        self.conversational: bool | None = self.options.pop("conversational", None)
        self.parameters = _parameters(function, self.name)
        self.call = _dialect(set(self.parameters))
        self.step = 0

    def set_step(self, step: int) -> None:
        """Tell the training step, which TRL's functions read from ``trainer_state.global_step``."""
        self.step = step

    def score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Return one result per sample, in order; never raises because of the function."""
        if not samples:
            return []
        try:
            return self.call(self, samples)
        except RewardError as error:
            return abstain_all(len(samples), str(error))
        except Exception as error:  # the function is the user's; the run must survive it
            file = getattr(self.function, "__globals__", {}).get("__file__")
            return abstain_all(len(samples), f"reward {self.name} failed: {describe_error(error, file)}")

    def invoke(self, available: Mapping[str, Any]) -> Any:
        """Call the function with those of ``available`` and of the options that it accepts.

        Raises:
            RewardError: a parameter without a default is not available.
        """
        given = {**available, **self.options}
        takes_all = any(p.kind is p.VAR_KEYWORD for p in self.parameters.values())
        for key, parameter in self.parameters.items():
            is_variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            if parameter.default is parameter.empty and not is_variadic and key not in given:
                raise RewardError(
                    f"Reward {self.name} needs '{key}', which is not a column of the data: add the column, "
                    "or give the parameter a default."
                )
        accepted = given if takes_all else {key: given[key] for key in self.parameters if key in given}
        value = self.function(**accepted)
        return _wait(value) if inspect.isawaitable(value) else value

    def check(self, values: Any, samples: Sequence[Sample]) -> list[RewardResult]:
        """Turn the function's list into results.

        Raises:
            RewardError: it is not a list with one value per sample.
        """
        if hasattr(values, "tolist"):  # numpy array or tensor
            values = values.tolist()
        if isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__iter__"):
            shown = type(values).__name__
            raise RewardError(f"reward {self.name} returned a {shown}, not one value per completion")
        values = list(values)
        if len(values) != len(samples):
            counts = f"{len(values)} values for {len(samples)} completions"
            raise RewardError(f"reward {self.name} returned {counts}")
        return [check_result(value, self.name) for value in values]


def reward_from_file(name: str, options: Options | None = None, *, as_script: bool = False) -> Reward:
    """Return ``FILE.py:NAME`` as a Reward: a function of TRL, verl or OpenRLHF, or a class with ``score``.

    A class is constructed with the options as keyword arguments; ``as_script``: see ``load_from_file``.

    Raises:
        RewardError: the file or the name is not there, or its signature is none that is known.
    """
    found = load_from_file(name, as_script=as_script)
    if isinstance(found, type):
        try:
            found = found(**dict(options or {}))
        except Exception as error:  # the class is the user's
            raise RewardError(f"{name} cannot be constructed: {describe(error)}.") from None
        options = None
    if isinstance(found, Reward):
        return found
    return FunctionReward(found, name.rpartition(":")[2], options)


def _call_trl(reward: FunctionReward, samples: Sequence[Sample]) -> list[RewardResult]:
    """``f(prompts, completions, **columns) -> list[float | None]``."""
    as_messages = reward.conversational
    if as_messages is None:
        as_messages = any(is_conversational(sample) for sample in samples)
    prompts: list[Any] = [s.prompt.text for s in samples]
    completions: list[Any] = [s.completion for s in samples]
    if as_messages:
        prompts = [[dict(message) for message in s.prompt.messages] for s in samples]
        completions = [[{"role": "assistant", "content": s.completion}] for s in samples]
    log = PartsLog(len(samples))
    extras = {
        "completion_ids": [list(sample.token_ids) for sample in samples],
        "trainer_state": SimpleNamespace(global_step=reward.step),
        "log_extra": log.extra,
        "log_metric": log.metric,
    }
    names = dict.fromkeys(name for sample in samples for name in sample.prompt.columns)
    columns = {
        name: [s.prompt.columns.get(name) for s in samples] for name in names if name not in _OWN_COLUMNS
    }
    values = reward.invoke({**columns, **extras, "prompts": prompts, "completions": completions})
    return log.added_to(reward.check(values, samples))


def _call_verl_batch(reward: FunctionReward, samples: Sequence[Sample]) -> list[RewardResult]:
    """verl's batched form: ``compute_score(data_sources, solution_strs, ground_truths, extra_infos)``."""
    rows = [_verl_row(sample) for sample in samples]
    values = as_list(reward.invoke({f"{key}s": [row[key] for row in rows] for key in rows[0]}))
    if len(values) != len(samples):
        raise RewardError(
            f"reward {reward.name} returned {len(values)} values for {len(samples)} completions"
        )
    return [_verl_result(reward, value) for value in values]


def _call_verl(reward: FunctionReward, samples: Sequence[Sample]) -> list[RewardResult]:
    """``compute_score(data_source, solution_str, ground_truth, extra_info) -> float | {"score": …}``."""
    results = []
    for sample in samples:
        try:
            value = reward.invoke(_verl_row(sample))
        except Exception as error:  # scored row by row, so one bad row costs one row
            results.append(RewardResult(None, error=f"reward {reward.name} failed: {describe(error)}"))
            continue
        results.append(_verl_result(reward, value))
    return results


def _verl_row(sample: Sample) -> dict[str, Any]:
    columns = sample.prompt.columns
    return {
        "data_source": columns.get("data_source", ""),
        "solution_str": sample.completion,
        "ground_truth": gold_of(columns),
        "extra_info": columns.get("extra_info") or {},
    }


def _verl_result(reward: FunctionReward, value: Any) -> RewardResult:
    if not isinstance(value, Mapping):
        return check_result(value, reward.name)
    checked = check_result(value.get("score"), reward.name)
    if checked.value is None and checked.error is None:
        checked = RewardResult(None, error=f"reward {reward.name} returned a dict without 'score'")
    return RewardResult(checked.value, numbers_of(value, but="score"), checked.error)


def _call_openrlhf(reward: FunctionReward, samples: Sequence[Sample]) -> list[RewardResult]:
    """``reward_func(queries, prompts, labels) -> tensor | {"rewards": …}``; queries are whole texts."""
    prompts = [sample.prompt.text for sample in samples]
    given = {
        "queries": [prompt + sample.completion for prompt, sample in zip(prompts, samples, strict=True)],
        "prompts": prompts,
        "labels": [gold_of(sample.prompt.columns) for sample in samples],
    }
    values = reward.invoke(given)
    if not isinstance(values, Mapping):
        return reward.check(values, samples)
    if "rewards" not in values:
        raise RewardError(f"reward {reward.name} returned a dict without 'rewards'")
    log = PartsLog(len(samples))
    extra_logs = values.get("extra_logs")
    logs = dict(extra_logs) if isinstance(extra_logs, Mapping) else {}
    for name, column in {"scores": values.get("scores"), **logs}.items():
        log.extra(str(name), column)
    return log.added_to(reward.check(values["rewards"], samples))


def is_conversational(sample: Sample) -> bool:
    """Whether the row gave its prompt as messages, so that TRL would pass messages to a reward function."""
    return sample.prompt.is_conversational or len(sample.prompt.messages) > 1


def gold_of(columns: Mapping[str, Any]) -> Any:
    """Return a row's gold answer: verl's ``reward_model["ground_truth"]``, or the first of GOLD_COLUMNS."""
    nested = columns.get("reward_model")
    if isinstance(nested, Mapping) and "ground_truth" in nested:
        return nested["ground_truth"]
    return next((columns[name] for name in GOLD_COLUMNS if name in columns), None)


def _dialect(names: set[str]) -> Callable[[FunctionReward, Sequence[Sample]], list[RewardResult]]:
    if {"solution_str", "ground_truth"} <= names:
        return _call_verl
    if {"solution_strs", "ground_truths"} <= names:
        return _call_verl_batch
    return _call_openrlhf if "queries" in names else _call_trl


def _parameters(function: Callable[..., Any], name: str) -> Mapping[str, inspect.Parameter]:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        raise RewardError(f"The signature of reward {name} cannot be read: write it as a function.") from None
    names = set(parameters)
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if not takes_all and not names & _SCORED:
        raise RewardError(
            f"Reward {name} takes ({', '.join(parameters)}), which is no known form: write "
            "f(prompts, completions, **columns) -> list of numbers."
        )
    return parameters


def _wait(awaitable: Any) -> Any:
    """Run a coroutine to its end in a thread of its own, so that a running event loop does not matter."""
    outcome: dict[str, Any] = {}

    async def run() -> Any:
        return await awaitable

    def work() -> None:
        try:
            outcome["value"] = asyncio.run(run())
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=work, name="trimtab-reward", daemon=True)
    thread.start()
    thread.join()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]
