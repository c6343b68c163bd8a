"""How fast a recipe will run here: a few seconds of its own sampling and learning, repeated, and the medians.

Every call is warmed up before it is timed, since the first one compiles kernels and takes its memory. What
scatters too much says nothing, and the caller can see it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any

from trimtab.config import Recipe, RLConfig
from trimtab.data import encode_prompt, encode_row, load_pairs
from trimtab.distributed.worker import WorkerSettings, policy_learner
from trimtab.models.lora import add_adapter
from trimtab.models.roofline import Workload, synchronize
from trimtab.pipeline.sources import train_prompts
from trimtab.pipeline.speed import Speeds, rows_of, sample_groups, usual_rl
from trimtab.rollout.engine import SamplingParams, build_engine
from trimtab.types import RolloutGroup

SHORT, LONG = 2, 18  # tokens of the two samplings whose difference is the time of a decode step
MOST_REPEATS, FEWEST_REPEATS = 5, 3
SECONDS = 2.0  # for each of the timed kinds of work, beside their warm-up
TRAINED_TOKENS = 1024  # what a training trial takes at most
MOST_ROWS = 64
SAMPLED_ROWS = 64  # rows of data whose lengths stand for all


@dataclass(frozen=True, slots=True)
class Lengths:
    """Completion tokens that are to be expected: their mean, and the longest of a batch."""

    mean: float
    longest: float


@dataclass(frozen=True, slots=True)
class Trial:
    """Speeds with the expected lengths, and how far the repeats lay apart: (largest − smallest) / median."""

    speeds: Speeds
    lengths: Lengths
    spread: float


def try_speeds(recipe: Recipe, model: Any, tokenizer: Any) -> Trial:
    """Sample and learn a little with the recipe's own shapes. The weights move: the model is of no use later.

    Raises:
        DataError: the prompts or pairs cannot be read.
    """
    rl = recipe.rl or usual_rl()
    engine = build_engine(model, tokenizer, recipe.rollout)
    prompts = _prompts(recipe, tokenizer)
    count = min(rl.num_generations, MOST_ROWS)
    prompts = prompts[: max(1, MOST_ROWS // count)]
    work = Workload(len(prompts), count, fmean(map(len, prompts)), LONG)

    def sample(length: int) -> list[RolloutGroup]:
        params = SamplingParams(max_new_tokens=length, min_new_tokens=length)
        return sample_groups(engine, prompts, work, params)

    lengths = expected_lengths(recipe, rl, tokenizer, engine, prompts)
    groups = sample(LONG)
    short, long = _timed([lambda: sample(SHORT), lambda: sample(LONG)], model.device)
    step = max(median(long) - median(short), 0.0) / (LONG - SHORT)
    # Rows that have ended leave, so the steps after the mean length cost less and less.
    steps = (lengths.mean + lengths.longest) / 2 - SHORT
    rollout = work.rows * lengths.mean / max(median(short) + step * steps, 1e-9)

    add_adapter(model, recipe.model.lora, recipe.seed)
    learner = policy_learner(
        model, WorkerSettings(learning_rate=rl.learning_rate, **recipe.train.model_dump())
    )
    some = groups[: max(1, TRAINED_TOKENS // max(1, int(work.distinct / work.num_prompts)))]
    learnt = replace(work, num_prompts=len(some))
    rows = rows_of(some, int(tokenizer.pad_token_id or 0))
    score, train, optimizer = _learning(learner, rows, rl, model.device)
    speeds = Speeds(
        rollout=rollout,
        score=learnt.distinct / median(score),
        train=learnt.distinct / median(train),
        optimizer_seconds=median(optimizer),
    )
    return Trial(speeds, lengths, max(map(_spread, (long, score, train))))


def expected_lengths(
    recipe: Recipe, rl: RLConfig, tokenizer: Any, engine: Any, prompts: Sequence[Sequence[int]]
) -> Lengths:
    """Lengths of the answers to come: of the pairs that SFT imitates, else of what the model says now."""
    if recipe.sft is not None:
        pairs = load_pairs(recipe.sft.data, columns=recipe.sft.columns)[:SAMPLED_ROWS]
        encoded = [row for p in pairs for row in encode_row(tokenizer, p.prompt, p.completion)]
        found = [min(sum(row.completion_mask), rl.max_new_tokens) for row in encoded]
    else:
        few = [list(ids) for ids in prompts[:4]]
        params = SamplingParams(max_new_tokens=min(rl.max_new_tokens, SAMPLED_ROWS), seed=recipe.seed)
        found = [len(c.token_ids) for group in engine.generate(few, 8, params) for c in group]
        if params.max_new_tokens in found:  # some go on: nobody knows how long
            found = [rl.max_new_tokens if n == params.max_new_tokens else n for n in found]
    return Lengths(max(1.0, fmean(found)), max(1.0, max(found)))


def _prompts(recipe: Recipe, tokenizer: Any) -> list[list[int]]:
    if recipe.rl is None:
        assert recipe.sft is not None or recipe.reward_model is not None or recipe.process_reward is not None
        return [[int(i) for i in encode_prompt(tokenizer, ({"role": "user", "content": "?" * 32},))]]
    rows = train_prompts(recipe)[: recipe.rl.num_prompts]
    return [list(encode_prompt(tokenizer, row.messages)) for row in rows]


def _learning(learner: Any, rows: Any, rl: RLConfig, device: Any) -> list[list[float]]:
    """Seconds of scoring ``rows``, of learning on them, and of an optimizer step."""
    from trimtab.trainers.objectives import PolicyObjective

    objective = PolicyObjective.of(rl, rows, rl.kl.coef)
    score, train = _timed(
        [lambda: learner.logprobs(rows), lambda: learner.forward_backward(rows, objective)], device
    )
    learner.optimizer_step(rl.learning_rate)
    optimizer = []
    for _ in range(FEWEST_REPEATS):
        learner.forward_backward(rows, objective)
        start = time.perf_counter()
        learner.optimizer_step(rl.learning_rate)
        synchronize(device)
        optimizer.append(time.perf_counter() - start)
    return [score, train, optimizer]


def _timed(calls: Sequence[Callable[[], Any]], device: Any) -> list[list[float]]:
    """Seconds of each call, by turns, so that what else the machine does meets all of them alike."""
    for call in calls:
        call()
    found: list[list[float]] = [[] for _ in calls]
    start = time.perf_counter()
    for number in range(MOST_REPEATS):
        if number >= FEWEST_REPEATS and time.perf_counter() - start > SECONDS:
            break
        for call, seconds in zip(calls, found, strict=True):
            synchronize(device)
            before = time.perf_counter()
            call()
            synchronize(device)
            seconds.append(time.perf_counter() - before)
    return found


def _spread(seconds: Sequence[float]) -> float:
    return (max(seconds) - min(seconds)) / max(median(seconds), 1e-9)
