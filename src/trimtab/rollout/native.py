"""The native engine: the learner's own module samples, with shared prompts and rows that leave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from trimtab.models.attention import CONTEXT, using_attention
from trimtab.models.forward import head_input
from trimtab.models.kv_context import DecodeContext, PrefillContext
from trimtab.rollout.completion import StopStrings
from trimtab.rollout.engine import SamplingParams
from trimtab.rollout.sampling import Sampler, uniform_table
from trimtab.rollout.scheduler import Chunk, Progress, check_prompts, chunks
from trimtab.types import Completion


class NativeEngine:
    """Samples with the transformers module itself; see ``models/attention.py`` for how.

    A prompt runs once for its whole group and its keys and values are stored once; rows that finish leave the
    batch. Training state is left as it was: eval mode, inference mode, and nothing kept on the module.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        eos_ids: frozenset[int],
        pad_id: int,
        max_batch_rows: int = 256,
    ) -> None:
        """``build_engine`` tests first whether the architecture can do this; this constructor trusts it."""
        self.model, self.tokenizer = model, tokenizer
        self.eos_ids, self.pad_id, self.max_batch_rows = frozenset(eos_ids), pad_id, max_batch_rows
        self.policy_version = 0

    def generate(
        self, prompts: Sequence[Sequence[int]], num_generations: int, params: SamplingParams
    ) -> list[list[Completion]]:
        """See ``RolloutEngine``."""
        check_prompts(prompts, num_generations, context_length(self.model), params.max_new_tokens)
        groups: list[list[Completion]] = [[] for _ in prompts]
        with sampling_mode(self.model):
            for chunk in chunks(len(prompts), num_generations, self.max_batch_rows):
                completions = self._sample(chunk, [prompts[p] for p in chunk.prompts], params)
                for (prompt, _), completion in zip(chunk.rows, completions, strict=True):
                    groups[prompt].append(completion)
        return groups

    def load_weights(self, state: Mapping[str, Tensor] | None, policy_version: int) -> None:
        """See ``RolloutEngine``."""
        if state is not None:
            self.model.load_state_dict(state)
        self.policy_version = policy_version

    def _sample(
        self, chunk: Chunk, prompts: Sequence[Sequence[int]], params: SamplingParams
    ) -> list[Completion]:
        device = self.model.device
        row_prompts = chunk.row_prompts.to(device)
        logits, prefill, lengths = prefill_prompts(self.model, prompts, self.pad_id)
        context = DecodeContext(prefill, lengths, row_prompts, params.max_new_tokens)
        uniforms = uniform_table(params.seed, chunk.rows, params.max_new_tokens).to(device)
        sampler = Sampler(params, self.eos_ids, device)
        stop = StopStrings(self.tokenizer, params.stop)
        progress = Progress(len(chunk.rows), params.max_new_tokens, self.eos_ids, stop)
        logits = logits[row_prompts]
        while True:
            tokens, logprobs, sampling_logprobs = sampler(logits, uniforms[:, progress.step], progress.step)
            progress.add(tokens, logprobs, sampling_logprobs)
            if (staying := progress.leave()) is not None:
                staying = staying.to(device)
                context.keep(staying)
                tokens, uniforms = tokens[staying], uniforms[staying]
            if not len(progress.rows) or progress.step == params.max_new_tokens:
                return progress.completions(self.tokenizer, self.policy_version)
            logits = decode_step(self.model, context, tokens)


def prefill_prompts(
    model: Any, prompts: Sequence[Sequence[int]], pad_id: int
) -> tuple[Tensor, PrefillContext, Tensor]:
    """Run P prompts once. Returns the logits ``[P, V]`` after each, the cache, and the lengths ``[P]``."""
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
    token_ids = torch.full((len(prompts), int(lengths.max())), pad_id, device=model.device)
    for row, prompt in enumerate(prompts):
        token_ids[row, : len(prompt)] = torch.as_tensor(prompt, device=model.device)
    context = PrefillContext()
    rows = torch.arange(len(prompts), device=model.device)
    positions = torch.arange(token_ids.shape[1], device=model.device).expand_as(token_ids)
    with head_input(model, lambda hidden: hidden[rows, lengths - 1].unsqueeze(0)):
        logits = _forward(model, token_ids, positions, context)
    return logits.squeeze(0), context, lengths


def decode_step(model: Any, context: DecodeContext, tokens: Tensor) -> Tensor:
    """Feed one token per row ``[R]`` and return the logits ``[R, V]`` of the next; advances the context."""
    logits = _forward(model, tokens[:, None], context.positions[:, None], context)
    context.step += 1
    return logits[:, -1]


def _forward(model: Any, token_ids: Tensor, positions: Tensor, context: Any) -> Tensor:
    # A mask of four dimensions goes through transformers untouched; the context knows what is seen.
    no_mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=token_ids.device)
    output = model(
        input_ids=token_ids,
        attention_mask=no_mask,
        position_ids=positions,
        use_cache=False,
        **{CONTEXT: context},
    )
    return output.logits


@contextmanager
def sampling_mode(model: Any) -> Iterator[None]:
    """Inference mode, eval mode and our attention; every submodule gets back the mode it had (trap 8)."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        with torch.inference_mode(), using_attention(model):
            yield
    finally:
        for module in training:
            module.training = True


def context_length(model: Any) -> int | None:
    """How many positions the model was made for, where its config says."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)
