"""The native engine: the learner's own module samples, with shared prompts and continuous batching."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from trimtab.models.attention import context_inputs, using_attention
from trimtab.models.context import context_length
from trimtab.models.fast_modules import fast_modules
from trimtab.models.forward import head_input
from trimtab.models.kv_context import DecodeContext, LayerCache, PrefillContext, PromptSpans
from trimtab.models.kv_kernel import KernelCache
from trimtab.models.kv_rows import Room, RowState
from trimtab.models.kv_torch import TorchCache
from trimtab.rollout.bursts import BurstDecoder
from trimtab.rollout.completion import StopStrings
from trimtab.rollout.engine import SamplingParams
from trimtab.rollout.graphs import GraphedDecode
from trimtab.rollout.memory import Limits, plan_room
from trimtab.rollout.running import RunningBatch
from trimtab.rollout.scheduler import Transcript, Waiting, check_prompts
from trimtab.rollout.settle import TYPICAL_ROWS, drawing_dtype, settle_choices
from trimtab.types import Completion


def compiled_cache(state: RowState) -> LayerCache:
    """The cache of this device's compiled kernel."""
    if state.slots.device.type != "cuda":
        return KernelCache(state)
    from trimtab.models.kv_triton import TritonCache

    return TritonCache(state)


CACHES: dict[str, Callable[[RowState], LayerCache]] = {"kernel": compiled_cache, "torch": TorchCache}


class NativeEngine:
    """Samples with the transformers module itself; see ``models/attention.py`` for how.

    A prompt runs once for its whole group and its keys and values are stored once; rows that finish make
    room for completions that wait. Training state is left as it was: eval mode, inference mode, and nothing
    kept on the module.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        eos_ids: frozenset[int],
        *,
        limits: Limits | None = None,
        cache: str = "torch",
        cuda_graphs: bool = True,
        rows: int = TYPICAL_ROWS,
    ) -> None:
        """``build_engine`` tests first whether the architecture can do this; this constructor trusts it.

        ``limits`` bound the running batch; ``cache`` is one of ``CACHES``. With the compiled cache of a CUDA
        device, decode steps are captured in graphs, and cache and graphs are kept from call to call. Ways of
        computing are chosen for batches of about ``rows`` rows, and serve for every batch: in another one a
        row must not come out otherwise.
        """
        self.model, self.tokenizer = model, tokenizer
        self.eos_ids, self.cache, self.limits = frozenset(eos_ids), cache, limits or Limits()
        self.policy_version, self.rows = 0, min(rows, self.limits.max_rows)
        if cache == "kernel":
            settle_choices(model, self.rows)
        self._has_graphs = cuda_graphs and cache == "kernel" and model.device.type == "cuda"
        self._kept: _Forward | None = None

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
        if not prompts:
            return []
        lengths = [len(prompt) for prompt in prompts]
        room = plan_room(self.model, lengths, num_generations, params.max_new_tokens, self.limits)
        transcript = Transcript(
            len(prompts) * num_generations,
            params.max_new_tokens,
            self.eos_ids,
            StopStrings(self.tokenizer, params.stop, self.eos_ids),
        )
        with sampling_mode(self.model), self._faster():
            batch = RunningBatch(self._forward(room), transcript, params, self.eos_ids)
            batch.run(prompts, Waiting(len(prompts), num_generations), num_generations, numbers)
        completions = transcript.completions(self.policy_version)
        return [
            completions[start : start + num_generations]
            for start in range(0, len(completions), num_generations)
        ]

    def _faster(self) -> AbstractContextManager[None]:
        return fast_modules(self.model, self.rows) if self.cache == "kernel" else nullcontext()

    def _forward(self, room: Room) -> _Forward:
        """The model over a cache with this room; graphs know where theirs lies, so that one is kept."""
        if self._kept is not None and self._kept.cache.state.room.holds(room):
            self._kept.cache.state.reset(room.rows)
            return self._kept
        self._kept = None  # first, so that its memory is free
        cache = CACHES[self.cache](RowState(room, self.model.device))
        forward = _Forward(self.model, cache, self.eos_ids if self._has_graphs else None, self.rows)
        self._kept = forward if self._has_graphs else None
        return forward

    def load_weights(self, state: Mapping[str, Tensor] | None, policy_version: int) -> None:
        """See ``RolloutEngine``."""
        if state is not None:
            self.model.load_state_dict(state)
        self.policy_version = policy_version


class _Forward:
    """The two ways in which the module runs while sampling, over one cache."""

    def __init__(
        self, model: Any, cache: LayerCache, graphs_end_at: frozenset[int] | None, rows: int
    ) -> None:
        """``graphs_end_at``: capture decode steps in graphs, with these end tokens; None: do not."""
        self.model, self.cache = model, cache
        self.kernel_dtype = None if isinstance(cache, TorchCache) else drawing_dtype(model, rows)
        self.decode: Callable[[Tensor], Tensor] = self._decode
        self.bursts: BurstDecoder | None = None
        if graphs_end_at is not None:
            self.decode = GraphedDecode(self._decode, cache.state)
            self.bursts = BurstDecoder(self._decode, cache.state, graphs_end_at)

    def prefill(self, prompts: Sequence[Sequence[int]], slots: Sequence[int]) -> Tensor:
        """See ``prefill``."""
        return prefill(self.model, self.cache, prompts, slots)

    def _decode(self, tokens: Tensor) -> Tensor:
        return decode_step(self.model, self.cache, tokens)


def prefill(model: Any, cache: LayerCache, prompts: Sequence[Sequence[int]], slots: Sequence[int]) -> Tensor:
    """Run P prompts once, into ``slots`` of the cache. Returns the logits ``[P, V]`` after each."""
    device, lengths = model.device, [len(prompt) for prompt in prompts]
    token_ids = torch.tensor([token for prompt in prompts for token in prompt], device=device)
    spans = PromptSpans(slots, lengths, device)
    last = spans.ends[1:].long() - 1
    cache.state.prompt_lengths[torch.tensor(slots, device=device)] = torch.tensor(lengths, device=device)
    context = PrefillContext(cache, spans)
    with head_input(model, lambda hidden: hidden[:, last]):
        return model(**context_inputs(token_ids[None], spans.positions[None], context)).logits[0]


def decode_step(model: Any, cache: LayerCache, tokens: Tensor) -> Tensor:
    """Feed one token per row ``[R]`` and return the logits ``[R, V]`` of the next; running rows advance."""
    state = cache.state
    inputs = context_inputs(tokens[:, None], state.positions[:, None], DecodeContext(cache))
    logits = model(**inputs).logits
    state.advance()
    cache.stepped()
    return logits[:, -1]


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
