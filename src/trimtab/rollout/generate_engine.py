"""The engine of last resort: transformers' ``generate`` moves the caches, our sampler draws the tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trimtab.models.context import context_length
from trimtab.rollout.completion import StopStrings
from trimtab.rollout.engine import SamplingParams
from trimtab.rollout.sampling import Sampler, uniform_table
from trimtab.rollout.scheduler import Chunk, Transcript, check_prompts, chunks
from trimtab.types import Completion


@dataclass(frozen=True, slots=True)
class Ways:
    """What ``generate`` may do with one family; ``generate_ways.py`` finds out which of it is right."""

    pads: bool = True  # prompts of unequal length run together, padded on the left
    caches: bool = True  # what was computed of earlier tokens is kept


class GenerateEngine:
    """Contract, streams and log-probabilities of ``NativeEngine``, for any module that can ``generate``."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        eos_ids: frozenset[int],
        pad_id: int,
        max_batch_rows: int = 64,
        ways: Ways | None = None,
    ) -> None:
        self.model, self.tokenizer, self.ways = model, tokenizer, ways or Ways()
        self.eos_ids, self.pad_id, self.max_batch_rows = frozenset(eos_ids), pad_id, max_batch_rows
        self.policy_version = 0
        self.seen: list[Tensor] | None = None  # a list: every step's logits [R, V] are kept in it

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        num_generations: int,
        params: SamplingParams,
        *,
        numbers: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """See ``RolloutEngine``; ``numbers[i]`` says whose stream prompt i draws from, None: its own."""
        check_prompts(prompts, num_generations, context_length(self.model), params.max_new_tokens)
        groups: list[list[Completion]] = [[] for _ in prompts]
        training = [module for module in self.model.modules() if module.training]
        own_config = self.model.generation_config
        self.model.eval()
        try:
            for members in self._together(prompts):
                for chunk in chunks(len(members), num_generations, self.max_batch_rows):
                    rows = [(members[place], generation) for place, generation in chunk.rows]
                    streams = rows if numbers is None else [(numbers[p], g) for p, g in rows]
                    whole = Chunk(tuple(sorted({p for p, _ in rows})), tuple(streams))
                    completions = self._sample(whole, [prompts[p] for p, _ in rows], params)
                    for (prompt, _), completion in zip(rows, completions, strict=True):
                        groups[prompt].append(completion)
        finally:
            self.model.generation_config = own_config
            for module in training:
                module.training = True
        return groups

    def load_weights(self, state: Mapping[str, Tensor] | None, policy_version: int) -> None:
        """See ``RolloutEngine``."""
        if state is not None:
            self.model.load_state_dict(state)
        self.policy_version = policy_version

    def _together(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Numbers of the prompts that may run in one batch."""
        if self.ways.pads:
            return [list(range(len(prompts)))]
        by_length: dict[int, list[int]] = {}
        for number, prompt in enumerate(prompts):
            by_length.setdefault(len(prompt), []).append(number)
        return list(by_length.values())

    def _sample(
        self, chunk: Chunk, prompts: Sequence[Sequence[int]], params: SamplingParams
    ) -> list[Completion]:
        from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

        device = self.model.device
        width = max(len(prompt) for prompt in prompts)
        token_ids = torch.full((len(prompts), width), self.pad_id)
        mask = torch.zeros_like(token_ids)
        for row, prompt in enumerate(prompts):
            token_ids[row, width - len(prompt) :] = torch.as_tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        stop = StopStrings(self.tokenizer, params.stop, self.eos_ids)
        transcript = Transcript(len(prompts), params.max_new_tokens, self.eos_ids, stop)
        uniforms = uniform_table(params.seed, chunk.rows, params.max_new_tokens).to(device)
        drawer = _Drawer(Sampler(params, self.eos_ids, device), uniforms, transcript, self.seen)
        # The model's own generation config may hold penalties that would bend the distribution.
        self.model.generation_config = GenerationConfig(
            do_sample=False,
            max_new_tokens=params.max_new_tokens,
            pad_token_id=self.pad_id,
            use_cache=self.ways.caches,
        )
        with torch.inference_mode():
            self.model.generate(
                input_ids=token_ids.to(device),
                attention_mask=mask.to(device),
                logits_processor=LogitsProcessorList([drawer]),
                stopping_criteria=StoppingCriteriaList([drawer.finished]),
            )
        return transcript.completions(self.policy_version)


class _Drawer:
    """A logits processor that draws the token itself and leaves ``generate`` no other choice."""

    def __init__(
        self, sampler: Sampler, uniforms: Tensor, transcript: Transcript, seen: list[Tensor] | None
    ) -> None:
        self._sampler, self._uniforms, self._transcript, self._seen = sampler, uniforms, transcript, seen
        self._step = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self._seen is not None:
            self._seen.append(scores.float().clone())
        draws = self._sampler(scores, self._uniforms[:, self._step], self._step)
        self._step += 1
        running = ~self._transcript.has_ended
        self._transcript.add(running.nonzero().flatten(), draws.rows(running))
        return torch.full_like(scores, float("-inf")).scatter_(1, draws.tokens[:, None], 0.0)

    def finished(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Rows ``[R]`` that ended by themselves; ``generate`` fills them with padding from here on."""
        return self._transcript.has_ended.to(input_ids.device)
