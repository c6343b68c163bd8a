"""Scoring tokens: the learner's log-probabilities, with the head run on the needed positions only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from trimtab.errors import ModelError
from trimtab.functional.logprobs import logprobs_and_entropy


@dataclass(frozen=True, slots=True)
class TokenScores:
    """What a language model says of the completion tokens of a batch, aligned to ``token_ids``."""

    logprobs: Tensor  # [B, T] fp32, 0 outside the completion
    entropy: Tensor | None = None  # [B, T] fp32, 0 outside the completion
    logits: Tensor | None = None  # [N, V], not divided by the temperature: the completion tokens, row by row


def token_scores(
    model: Any,
    token_ids: Tensor,
    attention_mask: Tensor,
    completion_mask: Tensor,
    *,
    temperature: float = 1.0,
    with_entropy: bool = False,
    with_logits: bool = False,
) -> TokenScores:
    """Log-probability of each completion token given the tokens before it, with gradients.

    Shapes: all three tensors ``[B, T]``; padding may be on either side. ``logprobs[:, t]`` is that of
    ``token_ids[:, t]`` under ``softmax(logits / temperature)``, in nats; it is exactly 0 where
    ``completion_mask`` is False, and in column 0, which nothing predicts. Logits are those of the positions
    ``completion_mask[:, 1:]`` in row order, so ``x[mask] = per_position(scores.logits)`` puts them back.
    """
    scores, _ = scores_and_hidden(
        model,
        token_ids,
        attention_mask,
        completion_mask,
        temperature=temperature,
        with_entropy=with_entropy,
        with_logits=with_logits,
    )
    return scores


def scores_and_hidden(
    model: Any,
    token_ids: Tensor,
    attention_mask: Tensor,
    completion_mask: Tensor,
    *,
    temperature: float = 1.0,
    with_entropy: bool = False,
    with_logits: bool = False,
) -> tuple[TokenScores, Tensor]:
    """``token_scores``, and the last hidden states ``[B, T, H]`` of the same pass."""
    mask = completion_mask.bool().clone()
    mask[:, 0] = False
    predicting = F.pad(mask[:, 1:], (0, 1))  # the position before each completion token
    logits, hidden = selected_logits(model, token_ids, attention_mask, predicting)
    flat, flat_entropy = logprobs_and_entropy(logits, token_ids[mask], temperature, with_entropy)
    blank = torch.zeros(token_ids.shape, dtype=flat.dtype, device=flat.device)
    return TokenScores(
        logprobs=blank.masked_scatter(mask, flat),
        entropy=blank.masked_scatter(mask, flat_entropy) if with_entropy else None,
        logits=logits if with_logits else None,
    ), hidden


def selected_logits(
    model: Any, token_ids: Tensor, attention_mask: Tensor, positions: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits ``[N, V]`` at the True ``positions [B, T]`` in row order, and the hidden states ``[B, T, H]``.

    The module's own forward runs, so whatever it does to logits (soft cap, scale) is done; only the rows that
    enter its head are picked, just before the head.
    """
    seen: list[Tensor] = []

    def pick(hidden: Tensor) -> Tensor:
        seen.append(hidden)
        return hidden[positions].unsqueeze(0)

    with head_input(model, pick):
        logits = model(**model_inputs(token_ids, attention_mask), use_cache=False).logits
    return logits.squeeze(0), seen[0]


@contextmanager
def head_input(model: Any, select: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let ``select`` replace the hidden states that enter the model's head.

    Raises:
        ModelError: the model has no head module.
    """
    head = model.get_output_embeddings()
    if head is None:
        raise ModelError(f"{type(model).__name__} has no language-model head; use a causal language model")
    handle = head.register_forward_pre_hook(lambda _, args: (select(args[0]), *args[1:]))
    try:
        yield
    finally:
        handle.remove()


def model_inputs(token_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
    """The arguments of a forward over padded rows; padding on the left shifts the positions.

    Padding on the right is never seen by a causal model, so it needs no mask and the faster kernel runs.
    """
    mask = attention_mask.bool()
    if bool((mask[:, 1:] <= mask[:, :-1]).all()):
        positions = torch.arange(token_ids.shape[1], device=token_ids.device).expand_as(token_ids)
        return {
            "input_ids": token_ids,
            "attention_mask": torch.ones_like(token_ids),
            "position_ids": positions,
        }
    positions = (mask.long().cumsum(dim=1) - 1).clamp(min=0)
    return {"input_ids": token_ids, "attention_mask": mask.long(), "position_ids": positions}


def sequence_scores(model: Any, token_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Score ``[B]`` (fp32) that a classifier gives each row, read where transformers reads it.

    That is the last token that is not the model's padding (``config.pad_token_id``): where the padding is
    also the end token, the token before the end. Of two labels the score is the second's logit minus the
    first's.
    The score head runs in fp32 on that token only, also when the trunk is bf16: bf16 would round rewards of
    size 4 to steps of 0.03.
    """
    trunk = getattr(model, model.base_model_prefix)
    hidden = trunk(**model_inputs(token_ids, attention_mask), use_cache=False).last_hidden_state
    columns = torch.arange(token_ids.shape[1], device=token_ids.device)
    real, pad = attention_mask.bool(), model.config.pad_token_id
    last = (columns * (real if pad is None else real & (token_ids != pad))).argmax(dim=1)
    rows = torch.arange(len(token_ids), device=token_ids.device)
    logits = score_head(model, hidden[rows, last])
    return logits[:, 1] - logits[:, 0] if logits.shape[-1] == 2 else logits.squeeze(-1)


def step_logits(model: Any, token_ids: Tensor, attention_mask: Tensor, step_ends: Tensor) -> Tensor:
    """Logits ``[N]`` (fp32) that a token classifier gives to "this step is right", at the True ``step_ends``.

    All three tensors ``[B, T]``; the N positions are in row order. A classifier with one label says the logit
    itself, one with two labels (TRL's) the second minus the first. The head runs there only, in fp32.

    Raises:
        ModelError: the classifier has no ``score`` head, or neither one nor two labels.
    """
    trunk = getattr(model, model.base_model_prefix)
    hidden = trunk(**model_inputs(token_ids, attention_mask), use_cache=False).last_hidden_state
    logits = score_head(model, hidden[step_ends.bool()])
    if logits.shape[-1] not in (1, 2):
        raise ModelError(
            f"{type(model).__name__} has {logits.shape[-1]} labels; a process reward model has 1 or 2"
        )
    return logits[:, 1] - logits[:, 0] if logits.shape[-1] == 2 else logits[:, 0]


def score_head(model: Any, hidden: Tensor) -> Tensor:
    """Apply a classifier's ``score`` head in fp32: ``[..., H]`` → ``[..., num_labels]``.

    Raises:
        ModelError: the classifier has no ``score`` head.
    """
    head = getattr(model, "score", None)
    if head is None:
        raise ModelError(f"{type(model).__name__} has no score head; use a classifier of a causal trunk")
    bias = None if head.bias is None else head.bias.float()
    return F.linear(hidden.float(), head.weight.float(), bias)
