"""The plain data that flows through the house: frozen, slotted, shapes in comments.

B completions, T tokens; everything token-level is aligned to ``token_ids``: position ``t`` of ``logprobs``
is the log-probability of ``token_ids[t]`` given the tokens before it, and is 0 where nothing is predicted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

FinishReason = Literal["stop", "length", "aborted"]
Message = Mapping[str, Any]  # {"role": "user", "content": "..."}; tool_calls, reasoning_content, name


class Conversation(tuple[Message, ...]):
    """Turns, and the ``variables`` that their row gives its chat template beside them: ``tools`` and others.

    A tuple in all else; a slice of it is a plain tuple.

    Example:
        >>> Conversation(({"role": "user", "content": "hi"},), {"tools": []}).variables
        {'tools': []}
    """

    variables: Mapping[str, Any]

    def __new__(
        cls, messages: Iterable[Message] = (), variables: Mapping[str, Any] | None = None
    ) -> Conversation:
        """Make the tuple, and keep ``variables`` (those of ``messages`` when they have some)."""
        made = super().__new__(cls, messages)
        made.variables = getattr(messages, "variables", {}) if variables is None else variables
        return made


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt of a data set: chat messages that end with the user's turn, and the row's other columns.

    Example:
        >>> Prompt(id="0", messages=({"role": "user", "content": "2+2?"},), columns={"answer": "4"}).text
        '2+2?'
    """

    id: str
    messages: tuple[Message, ...]
    columns: Mapping[str, Any] = field(default_factory=dict)
    is_conversational: bool = (
        False  # the row gave messages, not a string: TRL-style rewards then see messages
    )

    @property
    def text(self) -> str:
        """The last user message: what string-based rewards see as the prompt."""
        return str(self.messages[-1]["content"])


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled answer. ``token_ids`` are the engine's own, EOS included when it stopped by itself."""

    token_ids: tuple[int, ...]
    text: str
    logprobs: tuple[float, ...]  # temperature applied, top-p and top-k not: what the learner computes
    finish_reason: FinishReason
    policy_version: int = 0
    sampling_logprobs: tuple[float, ...] = ()  # of the truncated distribution; empty when nothing was cut


@dataclass(frozen=True, slots=True)
class Sample:
    """What a reward sees: the prompt, the text of one completion, and its token ids where they are known."""

    prompt: Prompt
    completion: str
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason = "stop"


@dataclass(frozen=True, slots=True)
class RewardResult:
    """What a reward says of one completion. ``value`` None abstains: it is left out, never counted as 0."""

    value: float | None
    parts: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    is_closed: bool = False  # a gate forbids the completion: see ``rewards/combine.py``

    def passes(self, threshold: float) -> bool:
        """Whether the completion passes: scored, ``threshold`` at least, and no gate closed."""
        return self.value is not None and not self.is_closed and self.value >= threshold


@dataclass(frozen=True, slots=True)
class RolloutGroup:
    """A prompt, the group of completions sampled for it, and their rewards."""

    prompt: Prompt
    prompt_ids: tuple[int, ...]
    completions: tuple[Completion, ...]
    rewards: tuple[RewardResult, ...]


@dataclass(frozen=True, slots=True)
class TrainBatch:
    """The rows of one step (or of a mini- or micro-batch of it), right-padded."""

    token_ids: Tensor  # [B, T] int64: prompt, completion, padding
    attention_mask: Tensor  # [B, T] bool: True on prompt and completion
    completion_mask: Tensor  # [B, T] bool: True on completion tokens that are trained
    advantages: Tensor  # [B, T] float32, 0 outside the completion
    rollout_logprobs: Tensor | None = None  # [B, T] by the engine, of the untruncated distribution
    sampling_logprobs: Tensor | None = None  # [B, T] by the engine, of the distribution that it drew from
    old_logprobs: Tensor | None = None  # [B, T] of the learner before its first update on this batch
    ref_logprobs: Tensor | None = None  # [B, T] of the frozen reference
    old_values: Tensor | None = None  # [B, T] of the critic before its first update
    returns: Tensor | None = None  # [B, T] targets of the critic

    def __len__(self) -> int:
        return int(self.token_ids.shape[0])

    def rows(self, index: Any) -> TrainBatch:
        """Return the batch of the rows in ``index`` (a slice or an index tensor), columns trimmed to them."""
        mask = self.attention_mask[index]
        width = int(mask.sum(dim=1).max()) if mask.numel() else 0
        values: dict[str, Any] = {
            name: None if (tensor := getattr(self, name)) is None else tensor[index][:, :width]
            for name in self.__slots__
        }
        return TrainBatch(**values)

    def to(self, device: Any) -> TrainBatch:
        """Return the same batch with its tensors on ``device``."""
        values: dict[str, Any] = {
            name: None if (tensor := getattr(self, name)) is None else tensor.to(device)
            for name in self.__slots__
        }
        return TrainBatch(**values)


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """What one optimizer step reports: the loss, the gradient norm and the diagnostics by name."""

    loss: float
    grad_norm: float
    metrics: Mapping[str, float] = field(default_factory=dict)
