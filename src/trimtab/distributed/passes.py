"""How a model scores a micro-batch: packed where the model can do it, padded where it cannot.

A pass turns a micro-batch into ``Scores`` and, for learning, into gradients. Which of the ways is taken
changes the time and the memory, not the result.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from trimtab.distributed.budget import least_tokens, remembered_max_tokens
from trimtab.distributed.interfaces import Objective, Scores
from trimtab.distributed.one_pass import one_pass_backward
from trimtab.distributed.room import Room
from trimtab.functional import logprobs_and_entropy
from trimtab.functional.head import head_logprobs
from trimtab.models.attention import UnsupportedAttentionError
from trimtab.models.attention_proof import proof_of
from trimtab.models.fast_modules import fast_modules
from trimtab.models.forward import token_scores
from trimtab.models.length_rule import length_rule
from trimtab.models.packed_forward import (
    find_head_fault,
    find_packing_fault,
    packed_hidden,
    packed_logits,
    plain_head_weight,
)
from trimtab.models.packing import PackPlan, can_pack, frugal_tokens, make_plan, split_by_tokens
from trimtab.models.value_head import Critic, SharedCritic
from trimtab.types import TrainBatch

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker computes; none of it changes the result but ``temperature``."""

    learning_rate: float
    weight_decay: float = 0.0
    microbatch_size: int | None = None  # rows per micro-batch at most
    temperature: float = 1.0
    with_entropy: bool = True
    max_tokens: int | None = None  # tokens per micro-batch; None: chosen from the memory
    packing: bool = True
    skip_zero: bool = True  # leave out rows whose gradient is exactly 0
    room: Room = field(default_factory=Room, compare=False)  # shared by all passes with these settings


class Pass(Protocol):
    """What a learner needs of its model."""

    def split(self, batch: TrainBatch) -> Iterator[tuple[Tensor, TrainBatch]]:
        """Yield row indices and micro-batches, on the model's device."""
        ...

    def shrink(self, cause: str) -> None:
        """Make micro-batches smaller from now on: the last one did not fit into memory."""
        ...

    def faster(self) -> AbstractContextManager[None]:
        """Let the model run its compiled modules inside the block, where that changes nothing else."""
        ...

    def scores(self, micro: TrainBatch) -> Scores:
        """Score a micro-batch, without entropy."""
        ...

    def set_temperature(self, temperature: float) -> None:
        """Divide logits by this from now on."""
        ...

    def backward(self, micro: TrainBatch, objective: Objective) -> Mapping[str, Tensor]:
        """Accumulate the gradients of a micro-batch; return its metric shares."""
        ...


class Packer:
    """Whether one model runs packed rows, and how its batches are split."""

    def __init__(self, model: Any, settings: WorkerSettings, *, is_trunk: bool = False) -> None:
        self.model, self.settings, self.is_trunk = model, settings, is_trunk
        self._running: TrainBatch | None = None  # the micro-batch that was handed out last

    @cached_property
    def fault(self) -> str | None:
        """Why not, or None; found out at the first batch."""
        if not self.settings.packing:
            return "train.packing is off"
        fault = find_packing_fault(self.model, is_trunk=self.is_trunk)
        return fault if fault is None else self._said(fault)

    def _said(self, fault: str) -> str:
        """Say that rows are padded, unless loading the model said it."""
        proof = proof_of(self.model)
        if proof is None or proof.cause is None:
            name = type(self.model).__name__
            warnings.warn(f"{name} learns from padded rows, which is slower: {fault}", stacklevel=1)
        return fault

    @cached_property
    def _chosen_tokens(self) -> int:
        return self.settings.max_tokens or remembered_max_tokens(self.model)

    @property
    def max_tokens(self) -> int:
        """Tokens per micro-batch at most; fewer once memory has run out."""
        limit = self.settings.room.limit
        return self._chosen_tokens if limit is None else min(limit, self._chosen_tokens)

    def faster(self) -> AbstractContextManager[None]:
        """See ``Pass``."""
        return fast_modules(self.model) if self.fault is None else nullcontext()

    def split(self, batch: TrainBatch) -> Iterator[tuple[Tensor, TrainBatch]]:
        """Yield row indices and micro-batches on the model's device. Packed: trained rows only."""
        if self._is_packed(batch):
            parts = split_by_tokens(batch, self._packed_tokens(batch), self.settings.microbatch_size)
        else:
            parts = split_by_length(batch, self.max_tokens, self.settings.microbatch_size)
        for index in parts:
            self._running = batch.rows(index)
            yield index, self._running.to(self.model.device)

    def shrink(self, cause: str) -> None:
        """See ``Pass``."""
        micro = self._running
        assert micro is not None
        num_tokens = int(micro.attention_mask.sum(dim=1).max()) * len(micro)
        if self._is_packed(micro):
            num_tokens = make_plan(micro).input_ids.shape[1]
        self.settings.room.shrink(len(micro), num_tokens, cause)

    def _is_packed(self, batch: TrainBatch) -> bool:
        if self.fault is not None or not can_pack(batch) or not bool(batch.completion_mask[:, 1:].any()):
            return False
        rule = length_rule(self.model)
        return rule is None or rule.is_base(int(batch.attention_mask.sum(dim=1).max()))

    def _packed_tokens(self, batch: TrainBatch) -> int:
        """As few as a CPU runs at full speed with, unless the recipe says how many; a GPU wants many."""
        if self.settings.max_tokens or self.model.device.type != "cpu":
            return self.max_tokens
        least = least_tokens(self.model)
        return frugal_tokens(batch, least, self.max_tokens, self.settings.microbatch_size)

    def either(
        self, micro: TrainBatch, packed: Callable[[PackPlan], Found], padded: Callable[[], Found]
    ) -> Found:
        """Call ``packed`` with the plan of the micro-batch, or ``padded`` where that is impossible."""
        if self._is_packed(micro):
            try:
                return packed(make_plan(micro).to(self.model.device))
            except UnsupportedAttentionError as error:
                self.fault = self._said(str(error))
        return padded()


def split_by_length(batch: TrainBatch, max_tokens: int, max_rows: int | None) -> list[Tensor]:
    """Row indices of padded micro-batches: rows of similar length, at most ``max_tokens`` with padding."""
    lengths = batch.attention_mask.sum(dim=1).cpu()
    parts: list[list[int]] = []
    for row in lengths.argsort(descending=True, stable=True).tolist():
        size = len(parts[-1]) if parts else 0
        is_full = not parts or size == max_rows or (size + 1) * int(lengths[parts[-1][0]]) > max_tokens
        if is_full:
            parts.append([])
        parts[-1].append(row)
    return [torch.tensor(part) for part in parts]


class PolicyPass:
    """Log-probabilities and entropies of a policy; with ``critic`` also values from the same trunk."""

    def __init__(self, model: Any, settings: WorkerSettings, critic: SharedCritic | None = None) -> None:
        self.model, self.settings, self.critic = model, settings, critic
        self.packer = Packer(model, settings)

    @cached_property
    def has_plain_head(self) -> bool:
        """Whether the head may be taken apart into blocks."""
        return find_head_fault(self.model) is None

    def split(self, batch: TrainBatch) -> Iterator[tuple[Tensor, TrainBatch]]:
        """See ``Pass``."""
        return self.packer.split(batch)

    def shrink(self, cause: str) -> None:
        """See ``Pass``."""
        self.packer.shrink(cause)

    def faster(self) -> AbstractContextManager[None]:
        """See ``Pass``."""
        return self.packer.faster()

    def scores(self, micro: TrainBatch) -> Scores:
        """See ``Pass``."""
        return self._scores(micro, with_entropy=False)

    def set_temperature(self, temperature: float) -> None:
        """See ``Pass``."""
        self.settings = replace(self.settings, temperature=temperature)

    def backward(self, micro: TrainBatch, objective: Objective) -> Mapping[str, Tensor]:
        """See ``Pass``. One pass through the head where the objective allows it."""
        if self._is_one_pass(micro, objective):
            shares: Mapping[str, Tensor] = self.packer.either(
                micro, lambda plan: self._one_pass(plan, micro, objective), dict
            )
            if shares:
                return shares
        loss, found = objective(self._scores(micro, self.settings.with_entropy), micro)
        loss.backward()
        return found

    def _is_one_pass(self, micro: TrainBatch, objective: Objective) -> bool:
        # A trained token in column 0 is predicted by nothing, but the objective counts it: rows are needed.
        is_flat = objective.is_token_level and not bool(micro.completion_mask[:, 0].any())
        return self.critic is None and is_flat and self.packer.fault is None and self.has_plain_head

    def _one_pass(self, plan: PackPlan, micro: TrainBatch, objective: Objective) -> Mapping[str, Tensor]:
        weight = plain_head_weight(self.model)
        assert weight is not None
        hidden = packed_hidden(self.model, plan)
        options = (self.settings.temperature, self.settings.with_entropy)
        return one_pass_backward((hidden, weight), plan, micro, objective, *options)

    def _scores(self, micro: TrainBatch, with_entropy: bool) -> Scores:
        return self.packer.either(
            micro,
            lambda plan: self._packed(plan, with_entropy),
            lambda: self._padded(micro, with_entropy),
        )

    def _packed(self, plan: PackPlan, with_entropy: bool) -> Scores:
        temperature, values = self.settings.temperature, None
        entropy: Tensor | None
        if self.has_plain_head or self.critic is not None:
            hidden = packed_hidden(self.model, plan)
            values = None if self.critic is None else plan.scatter(self.critic.head(hidden))
        if self.has_plain_head:
            weight = plain_head_weight(self.model)
            assert weight is not None
            logprobs, entropy = head_logprobs(hidden, weight, plan.targets, temperature, with_entropy)
        else:
            logits = packed_logits(self.model, plan)
            logprobs, entropy = logprobs_and_entropy(logits, plan.targets, temperature, with_entropy)
        return Scores(
            logprobs=plan.scatter(logprobs),
            entropy=plan.scatter(entropy) if with_entropy and entropy is not None else None,
            values=values,
        )

    def _padded(self, micro: TrainBatch, with_entropy: bool) -> Scores:
        inputs = (micro.token_ids, micro.attention_mask, micro.completion_mask)
        options: dict[str, Any] = {"temperature": self.settings.temperature, "with_entropy": with_entropy}
        if self.critic is None:
            found, values = token_scores(self.model, *inputs, **options), None
        else:
            found, values = self.critic.forward_both(*inputs, **options)
        return Scores(logprobs=found.logprobs, entropy=found.entropy, values=values)


class CriticPass:
    """Values of a critic that is a model of its own."""

    def __init__(self, critic: Critic, settings: WorkerSettings) -> None:
        self.critic = critic
        self.packer = Packer(critic.trunk, settings, is_trunk=True)

    def split(self, batch: TrainBatch) -> Iterator[tuple[Tensor, TrainBatch]]:
        """See ``Pass``."""
        return self.packer.split(batch)

    def shrink(self, cause: str) -> None:
        """See ``Pass``."""
        self.packer.shrink(cause)

    def faster(self) -> AbstractContextManager[None]:
        """See ``Pass``."""
        return self.packer.faster()

    def scores(self, micro: TrainBatch) -> Scores:
        """See ``Pass``."""
        return self.packer.either(
            micro,
            lambda plan: Scores(values=plan.scatter(self.critic.packed(plan))),
            lambda: Scores(values=self.critic(micro.token_ids, micro.attention_mask).float()),
        )

    def set_temperature(self, temperature: float) -> None:
        """Values have none."""

    def backward(self, micro: TrainBatch, objective: Objective) -> Mapping[str, Tensor]:
        """See ``Pass``."""
        loss, shares = objective(self.scores(micro), micro)
        loss.backward()
        return shares
