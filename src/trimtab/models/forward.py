"""Scoring tokens: the learner's log-probabilities, with the head run on the needed positions only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from trimtab.errors import ModelError
from trimtab.functional.logprobs import logprobs_and_entropy
from trimtab.models.length_rule import length_rule
from trimtab.models.row_parts import joined, row_parts


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
    parts = row_parts(attention_mask, length_rule(model))
    if parts is None:
        return _selected(model, token_ids, attention_mask, positions)
    numbers = positions.flatten().cumsum(dim=0).view_as(positions) - 1  # of each position in row order
    found, places = [], []
    for part in parts:
        picked = part.take(positions)
        found.append(_selected(model, part.take(token_ids), part.take(attention_mask), picked))
        places.append(part.take(numbers)[picked])
    logits = torch.cat([logits for logits, _ in found])
    blank = logits.new_zeros(int(positions.sum()), logits.shape[-1])
    hidden = joined(parts, [hidden for _, hidden in found], token_ids.shape)
    return blank.index_copy(0, torch.cat(places), logits), hidden


def _selected(
    model: Any, token_ids: Tensor, attention_mask: Tensor, positions: Tensor
) -> tuple[Tensor, Tensor]:
    seen: list[Tensor] = []

    def pick(hidden: Tensor) -> Tensor:
        seen.append(hidden)
        return hidden[positions].unsqueeze(0)

    with head_input(model, pick):
        output = _forward(model, token_ids, attention_mask)
    return output.logits.squeeze(0), seen[0]


def trunk_hidden(trunk: Any, token_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Last hidden states ``[B, T, H]`` of a model without a head, each row as if it were alone."""
    parts = row_parts(attention_mask, length_rule(trunk))
    if parts is None:
        return _forward(trunk, token_ids, attention_mask).last_hidden_state
    found = [_forward(trunk, part.take(token_ids), part.take(attention_mask)) for part in parts]
    return joined(parts, [output.last_hidden_state for output in found], token_ids.shape)


def _forward(model: Any, token_ids: Tensor, attention_mask: Tensor) -> Any:
    if (rule := length_rule(model)) is not None:
        rule.reset(model)
    return model(**model_inputs(token_ids, attention_mask, model), **accepted(model, use_cache=False))


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


def model_inputs(token_ids: Tensor, attention_mask: Tensor, model: Any = None) -> dict[str, Tensor]:
    """The arguments of a forward over padded rows; padding on the left shifts the positions.

    Padding on the right is never seen by a causal model, so it needs no mask and the faster kernel runs.
    With ``model``, what its forward does not take is left out.
    """
    mask = attention_mask.bool()
    if is_right_padded(mask):
        positions = torch.arange(token_ids.shape[1], device=token_ids.device).expand_as(token_ids)
        seen = torch.ones_like(token_ids)
    else:
        positions, seen = (mask.long().cumsum(dim=1) - 1).clamp(min=0), mask.long()
    inputs = {"attention_mask": seen, "position_ids": positions}
    return {"input_ids": token_ids, **(inputs if model is None else accepted(model, **inputs))}


def is_right_padded(mask: Tensor) -> bool:
    """Whether rows ``[B, T]`` start at column 0 and have no holes."""
    return bool((mask[:, 1:] <= mask[:, :-1]).all())


def accepted(model: Any, **options: Any) -> dict[str, Any]:
    """Those of the ``options`` that the forward of ``model`` takes."""
    kind: type = type(getattr(model.forward, "__self__", model))
    names = _parameters(kind)
    return options if names is None else {name: x for name, x in options.items() if name in names}


@cache
def _parameters(kind: type) -> frozenset[str] | None:
    """The parameters of a class's forward; None where it takes any."""
    found = signature(kind.forward).parameters.values()  # type: ignore[attr-defined]
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in found):
        return None
    return frozenset(parameter.name for parameter in found)


def sequence_scores(model: Any, token_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Score ``[B]`` (fp32) that a classifier gives each row, read where transformers reads it.

    That is the last token that is not the model's padding (``config.pad_token_id``): where the padding is
    also the end token, the token before the end. Of two labels the score is the second's logit minus the
    first's.
    The score head runs in fp32 on that token only, also when the trunk is bf16: bf16 would round rewards of
    size 4 to steps of 0.03.
    """
    trunk = getattr(model, model.base_model_prefix)
    hidden = trunk_hidden(trunk, token_ids, attention_mask)
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
    hidden = trunk_hidden(trunk, token_ids, attention_mask)
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
