"""Sampling from a model whose rotary frequencies depend on the length of a row; see ``length_rule.py``.

Prompts run together only where all their completions have the same frequencies. A completion that grows over
the border is drawn token by token from one distribution and learned as a row of another: it is sampled with
the prompt's own group alone, as transformers would, and then scored as the row that it became. The
log-probabilities of what was drawn from are kept, so that the learner can correct for the difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from trimtab.models.forward import token_scores
from trimtab.models.length_rule import LengthRule
from trimtab.models.padded import padded
from trimtab.rollout.engine import SamplingParams
from trimtab.types import Completion

_SCORED_TOGETHER = 8  # rows
_EQUAL = 1e-4  # nats: it was drawn from the distribution that it is scored by


class NumberedEngine(Protocol):
    """An engine that can be told which prompt of the whole batch each prompt is: its rows draw as there."""

    policy_version: int

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        num_generations: int,
        params: SamplingParams,
        *,
        numbers: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """See ``RolloutEngine``; ``numbers[i]`` is the number of prompt i, None: i."""
        ...

    def load_weights(self, state: Mapping[str, Tensor] | None, policy_version: int) -> None:
        """See ``RolloutEngine``."""
        ...


class LengthEngine:
    """Samples with ``inner`` what stays on one side of the border, and with ``crossing`` what does not."""

    def __init__(self, model: Any, inner: NumberedEngine, crossing: NumberedEngine, rule: LengthRule) -> None:
        self.model, self.inner, self.crossing, self.rule = model, inner, crossing, rule
        self.policy_version = inner.policy_version

    def generate(
        self, prompts: Sequence[Sequence[int]], num_generations: int, params: SamplingParams
    ) -> list[list[Completion]]:
        """See ``RolloutEngine``."""
        alike: dict[tuple[int, ...], list[int]] = {}
        over: list[int] = []
        for number, prompt in enumerate(prompts):
            is_over = self.rule.crosses(len(prompt), len(prompt) + params.max_new_tokens)
            if is_over or self.inner is self.crossing:  # the caches of `generate` are not trusted here
                over.append(number)
            else:
                alike.setdefault(self.rule.key(len(prompt)), []).append(number)
        found: dict[int, list[Completion]] = {}
        for numbers in alike.values():
            self.rule.reset(self.model)
            some = [prompts[number] for number in numbers]
            groups = self.inner.generate(some, num_generations, params, numbers=numbers)
            found.update(zip(numbers, groups, strict=True))
        for number in over:
            self.rule.reset(self.model)
            (group,) = self.crossing.generate([prompts[number]], num_generations, params, numbers=[number])
            found[number] = self._scored(prompts[number], group, params.scale)
        self.rule.reset(self.model)
        return [found[number] for number in range(len(prompts))]

    def load_weights(self, state: Mapping[str, Tensor] | None, policy_version: int) -> None:
        """See ``RolloutEngine``."""
        self.inner.load_weights(state, policy_version)
        self.crossing.policy_version = self.policy_version = policy_version

    def _scored(
        self, prompt: Sequence[int], group: Sequence[Completion], temperature: float
    ) -> list[Completion]:
        """The completions of one prompt with the log-probabilities of whole rows."""
        scored = []
        for start in range(0, len(group), _SCORED_TOGETHER):
            some = group[start : start + _SCORED_TOGETHER]
            ids, mask = padded([[*prompt, *completion.token_ids] for completion in some], pad_id=0)
            trained = mask & (torch.arange(ids.shape[1]) >= len(prompt))
            device = self.model.device
            with torch.inference_mode():
                inputs = (ids.to(device), mask.to(device), trained.to(device))
                rows = token_scores(self.model, *inputs, temperature=temperature).logprobs.cpu()
            for row, completion in zip(rows, some, strict=True):
                logprobs = tuple(row[len(prompt) : len(prompt) + len(completion.token_ids)].tolist())
                drawn = completion.sampling_logprobs or completion.logprobs
                pairs = zip(logprobs, completion.logprobs, strict=True)
                if all(abs(one - other) <= _EQUAL for one, other in pairs):
                    drawn = completion.sampling_logprobs
                scored.append(replace(completion, logprobs=logprobs, sampling_logprobs=drawn))
        return scored
