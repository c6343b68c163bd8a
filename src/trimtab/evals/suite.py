"""Sample a policy on prompts, score it, and say what came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import fmean, stdev
from typing import Any

from trimtab.evals.pass_at_k import mean_pass_at_k
from trimtab.functional.text_stats import distinct_n
from trimtab.rewards.base import Reward
from trimtab.rollout.collect import Collector
from trimtab.rollout.engine import RolloutEngine, SamplingParams
from trimtab.types import Completion, Prompt, RolloutGroup


@dataclass(frozen=True, slots=True)
class EvalResult:
    """What a policy did on a set of prompts. Abstentions are left out of every mean and counted apart."""

    groups: tuple[RolloutGroup, ...]
    reward: float  # mean; 0 when everything abstained, see num_scored
    reward_std: float
    pass_rate: float  # share of completions whose reward is at least pass_threshold, with no gate closed
    pass_threshold: float
    parts: dict[str, float]  # mean of each reward component
    num_scored: int
    num_abstained: int
    errors: tuple[str, ...]  # the different reasons of abstentions, at most 5
    distinct_1: float  # of all completions together; for two models use diversity.compare_distinct
    distinct_2: float
    mean_length: float  # tokens
    truncated: float  # share of completions cut at the limit

    @property
    def prompts(self) -> list[Prompt]:
        """The prompts, in order."""
        return [group.prompt for group in self.groups]

    @property
    def prompt_ids(self) -> list[tuple[int, ...]]:
        """The token ids of each prompt, in order."""
        return [group.prompt_ids for group in self.groups]

    @property
    def completions(self) -> list[tuple[Completion, ...]]:
        """The completions of each prompt, in order."""
        return [group.completions for group in self.groups]

    @property
    def answers(self) -> list[str]:
        """The first completion of each prompt, in order."""
        return [group.completions[0].text for group in self.groups]

    @property
    def texts(self) -> list[list[str]]:
        """All completions of each prompt, in order."""
        return [[completion.text for completion in group.completions] for group in self.groups]

    @property
    def token_ids(self) -> list[tuple[int, ...]]:
        """The token ids of every completion."""
        return [completion.token_ids for group in self.groups for completion in group.completions]

    def pass_at_k(self, k: int) -> float:
        """Mean unbiased pass@k over the prompts with at least ``k`` scored completions."""
        groups = [
            [r.passes(self.pass_threshold) for r in group.rewards if r.value is not None]
            for group in self.groups
        ]
        return mean_pass_at_k(groups, k)

    def summary(self) -> dict[str, Any]:
        """The figures as plain data, without the completions."""
        left_out = ("groups", "errors", "pass_threshold")
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}


def evaluate_policy(
    engine: RolloutEngine,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    reward: Reward,
    params: SamplingParams,
    num_generations: int = 1,
    *,
    pass_threshold: float = 0.5,
) -> EvalResult:
    """Sample ``num_generations`` completions per prompt with ``params`` (seeded), and score them.

    Raises:
        DataError: the chat template refuses a prompt.
    """
    collector = Collector(engine, tokenizer, reward, num_generations)
    groups = collector.score(collector.sample(prompts, params))
    return summarise_groups(groups, pass_threshold)


def summarise_groups(groups: Sequence[RolloutGroup], pass_threshold: float = 0.5) -> EvalResult:
    """Return the figures of scored groups."""
    completions = [completion for group in groups for completion in group.completions]
    results = [result for group in groups for result in group.rewards]
    values = [result.value for result in results if result.value is not None]
    # A component is averaged over the completions that it scored, whether or not the whole abstained.
    names = dict.fromkeys(name for result in results for name in result.parts)
    ids = [completion.token_ids for completion in completions]
    return EvalResult(
        groups=tuple(groups),
        reward=fmean(values) if values else 0.0,
        reward_std=stdev(values) if len(values) > 1 else 0.0,
        pass_rate=fmean(r.passes(pass_threshold) for r in results if r.value is not None) if values else 0.0,
        pass_threshold=pass_threshold,
        parts={name: fmean(r.parts[name] for r in results if name in r.parts) for name in names},
        num_scored=len(values),
        num_abstained=len(results) - len(values),
        errors=tuple(dict.fromkeys(result.error for result in results if result.error))[:5],
        distinct_1=distinct_n(ids, 1),
        distinct_2=distinct_n(ids, 2),
        mean_length=fmean(map(len, ids)) if ids else 0.0,
        truncated=fmean(c.finish_reason == "length" for c in completions) if completions else 0.0,
    )
