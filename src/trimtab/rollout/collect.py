"""Collect rollouts: render prompts, sample a group for each, score every completion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from trimtab.data import encode_prompt
from trimtab.rewards.base import NOT_FINITE, Reward
from trimtab.rollout.engine import RolloutEngine, SamplingParams
from trimtab.types import Completion, Prompt, RewardResult, RolloutGroup, Sample


@dataclass(frozen=True, slots=True)
class Collector:
    """What turns prompts into scored groups.

    Example:
        >>> collector = Collector(engine, tokenizer, reward, num_generations=8)
        >>> groups = collector.score(collector.sample(prompts, params))
    """

    engine: RolloutEngine
    tokenizer: Any
    reward: Reward
    num_generations: int
    max_prompt_tokens: int | None = None

    def sample(self, prompts: Sequence[Prompt], params: SamplingParams) -> list[RolloutGroup]:
        """Sample a group for each prompt; rewards are still empty.

        Raises:
            DataError: a prompt is over ``max_prompt_tokens``; names the row.
        """
        encoded = [
            encode_prompt(self.tokenizer, p.messages, self.max_prompt_tokens, where=f"prompt {p.id}")
            for p in prompts
        ]
        sampled = self.engine.generate(encoded, self.num_generations, params)
        return [
            RolloutGroup(prompt=prompt, prompt_ids=ids, completions=tuple(group), rewards=())
            for prompt, ids, group in zip(prompts, encoded, sampled, strict=True)
        ]

    def score(self, groups: Sequence[RolloutGroup]) -> list[RolloutGroup]:
        """Score every completion of every group in one batched call; a value that is not finite abstains."""
        samples = [sample_of(group.prompt, c) for group in groups for c in group.completions]
        results = iter(map(self._finite, self.reward.score(samples)))
        return [
            RolloutGroup(
                prompt=group.prompt,
                prompt_ids=group.prompt_ids,
                completions=group.completions,
                rewards=tuple(next(results) for _ in group.completions),
            )
            for group in groups
        ]

    def _finite(self, result: RewardResult) -> RewardResult:
        if result.value is None or math.isfinite(result.value):
            return result
        error = f"reward {self.reward.name} returned {result.value}, which is {NOT_FINITE}"
        return replace(result, value=None, error=error)


def sample_of(prompt: Prompt, completion: Completion) -> Sample:
    """What a reward sees of a completion."""
    return Sample(
        prompt=prompt,
        completion=completion.text,
        token_ids=completion.token_ids,
        finish_reason=completion.finish_reason,
    )
