"""The language-model head with its log-probabilities, without ever holding all logits.

N tokens, H hidden size, V vocabulary. The head is a plain linear map: ``logits = hidden @ weight.T``. Two
ways to its gradients:

- ``head_logprobs``: any loss. The forward keeps one number per token, the backward computes the logits again:
  four matrix products forward and backward.
- ``one_pass_head``: losses whose derivative at a token is known from that token alone. Logits,
  log-probability, derivative and both gradients are made block by block: three products, nothing kept.

The products run in the dtype of the weight, all else in fp32 (fp64 for fp64), a few rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Derivatives of the loss of tokens [start, stop) by their log-probabilities and by their entropies.
Derivatives = Callable[[slice, Tensor, Tensor | None], tuple[Tensor | None, Tensor | None]]


@dataclass(frozen=True, slots=True)
class _Blocks:
    """How many rows of logits are worked on at a time."""

    product: int  # rows per matrix product: enough to be fast, few enough to stay in the last cache
    stored: int  # rows whose dlogits are kept for one product into the weight's gradient

    @classmethod
    def of(cls, weight: Tensor) -> _Blocks:
        """For the weight's device and precision."""
        if weight.device.type != "cpu":
            return cls(2048, 4096)
        # A 16-bit gradient is added to an fp32 one of V·H numbers after each product: seldom, then.
        stored = 1024 if weight.element_size() < 4 else 256
        return cls(256, stored)


def head_logprobs(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0, with_entropy: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Log-probability of each target, and entropy of its distribution, of ``softmax(logits / temperature)``.

    Shapes: ``hidden [N, H]``, ``weight [V, H]``, ``targets [N]`` → ``[N]`` and ``[N]`` (None without
    ``with_entropy``), fp32, in nats; both carry gradients into ``hidden`` and ``weight``.

    Raises:
        ValueError: shapes do not match, or the temperature is not above 0.
    """
    _check(hidden, weight, targets, temperature)
    logprobs, entropy = _TwoPass.apply(  # type: ignore[no-untyped-call]
        hidden, weight, targets, float(temperature), with_entropy
    )
    return logprobs, entropy if with_entropy else None


@torch.no_grad()
def one_pass_head(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    derivatives: Derivatives,
    temperature: float = 1.0,
    with_entropy: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Gradients of a token-level loss with respect to ``hidden [N, H]`` and ``weight [V, H]``.

    ``derivatives(rows, logprobs, entropy)`` is called once per block with a slice of the N tokens and their
    log-probabilities (and entropies ``with_entropy``), ``[n]`` fp32; it returns the derivatives of the loss
    by both, ``[n]`` or None for zeros. The second result is None when ``weight`` takes no gradient.

    Raises:
        ValueError: shapes do not match, or the temperature is not above 0.
    """
    _check(hidden, weight, targets, temperature)

    def visit(rows: slice, logits: Tensor) -> None:
        logprobs, normaliser, entropy = _statistics(logits, targets[rows], temperature, with_entropy)
        coefficients = derivatives(rows, logprobs, entropy)
        _differentiate(logits, targets[rows], (normaliser, entropy), coefficients, temperature)

    grad_hidden, grad_weight = _gradients(hidden, weight, visit, (True, weight.requires_grad))
    assert grad_hidden is not None
    return grad_hidden, grad_weight


class _TwoPass(torch.autograd.Function):
    """Keeps the inputs and one or two numbers per token; the logits are computed again backward."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, with_entropy: bool
    ) -> tuple[Tensor, Tensor]:
        dtype = torch.promote_types(weight.dtype, torch.float32)
        logprobs, normaliser, entropy = torch.zeros(3, len(hidden), dtype=dtype, device=hidden.device)
        for rows in _slices(len(hidden), _Blocks.of(weight).product):
            found = _statistics(hidden[rows] @ weight.T, targets[rows], temperature, with_entropy)
            logprobs[rows], normaliser[rows] = found[:2]
            if found[2] is not None:
                entropy[rows] = found[2]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(hidden, weight, targets, normaliser, entropy)
        ctx.temperature = temperature
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, normaliser, entropy = ctx.saved_tensors

        def visit(rows: slice, logits: Tensor) -> None:
            parts = [None if grad is None else grad[rows] for grad in grads]
            state = (normaliser[rows], entropy[rows])
            _differentiate(logits, targets[rows], state, (parts[0], parts[1]), ctx.temperature)

        return (*_gradients(hidden, weight, visit, ctx.needs_input_grad[:2]), None, None, None)


def _gradients(
    hidden: Tensor, weight: Tensor, visit: Callable[[slice, Tensor], None], needed: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Let ``visit`` turn each block of logits into dlogits in place; return dhidden and dweight."""
    blocks = _Blocks.of(weight)
    grad_hidden = torch.empty_like(hidden) if needed[0] else None
    total: Tensor | None = None
    store = hidden.new_empty(min(blocks.stored, len(hidden)), len(weight))
    for span in _slices(len(hidden), blocks.stored):
        for part in _slices(span.stop - span.start, blocks.product):
            rows = slice(span.start + part.start, span.start + part.stop)
            logits = torch.mm(hidden[rows], weight.T, out=store[part])
            visit(rows, logits)
            if grad_hidden is not None:
                torch.mm(logits, weight, out=grad_hidden[rows])
        if needed[1]:
            total = _accumulate(total, store[: span.stop - span.start], hidden[span])
    if needed[1] and total is None:
        total = torch.zeros_like(weight)
    return grad_hidden, None if total is None else total.to(weight.dtype)


def _accumulate(total: Tensor | None, dlogits: Tensor, hidden: Tensor) -> Tensor:
    """Add ``dlogits.T @ hidden`` to ``total [V, H]``; from the second block on in fp32."""
    if total is None:
        return dlogits.T @ hidden
    if total.element_size() >= 4 and dlogits.dtype == total.dtype:
        return total.addmm_(dlogits.T, hidden)
    return total.float().add_(dlogits.T @ hidden)


def _statistics(
    logits: Tensor, targets: Tensor, temperature: float, with_entropy: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Log-probability of the targets, log-normaliser and entropy, ``[n]`` each, of ``logits [n, V]``."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    logprobs, normaliser, entropy = torch.empty(3, len(logits), dtype=dtype, device=logits.device)
    for rows in _slices(len(logits), _pointwise_rows(logits)):
        scaled = _scaled(logits[rows], temperature, dtype)
        probs, total = _softmax(scaled)
        largest = scaled.amax(dim=-1)
        # Of the likeliest token, whose probability is never rounded to 0; cheaper than a second exponential.
        above = total.log() - probs.amax(dim=-1).log()
        normaliser[rows] = largest + above
        logprobs[rows] = scaled.gather(-1, targets[rows, None]).squeeze(-1) - largest - above
        if with_entropy:
            entropy[rows] = normaliser[rows] - torch.linalg.vecdot(probs, scaled) / total
    return logprobs, normaliser, entropy if with_entropy else None


def _differentiate(
    logits: Tensor,
    targets: Tensor,
    state: tuple[Tensor, Tensor | None],
    coefficients: tuple[Tensor | None, Tensor | None],
    temperature: float,
) -> None:
    """Overwrite ``logits [n, V]`` by the derivative of the loss; ``state`` is normaliser and entropy."""
    normaliser, entropy = state
    by_logprob = torch.zeros_like(normaliser) if coefficients[0] is None else coefficients[0]
    by_logprob = by_logprob.to(normaliser.dtype)[:, None] / temperature
    by_entropy = coefficients[1]
    for rows in _slices(len(logits), _pointwise_rows(logits)):
        scaled = _scaled(logits[rows], temperature, normaliser.dtype)
        slope, total = _softmax(scaled)
        scale = 1.0 / total[:, None]
        if by_entropy is None or entropy is None:
            slope.mul_(-by_logprob[rows] * scale)
        else:
            # dH/dz_j = −p_j (log p_j + H)
            weights = scaled.sub_((normaliser[rows] - entropy[rows])[:, None])
            weights.mul_(-by_entropy[rows, None].to(normaliser.dtype) / temperature * scale)
            slope.mul_(weights.sub_(by_logprob[rows] * scale))
        slope.scatter_add_(-1, targets[rows, None], by_logprob[rows])
        logits[rows].copy_(slope)


def _softmax(scaled: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax of each row, and what it adds up to.

    On a CPU torch adds the exponentials one after another: over 49,152 of them it was off by up to 6e-6. The
    sum of the result, taken pairwise, tells by how much; it costs less than an exponential of our own.
    """
    probs = torch.softmax(scaled, dim=-1)
    return probs, probs.sum(dim=-1)


def _scaled(logits: Tensor, temperature: float, dtype: torch.dtype) -> Tensor:
    copy = logits.to(dtype, copy=True)
    return copy if temperature == 1.0 else copy.div_(temperature)


def _pointwise_rows(logits: Tensor) -> int:
    """Rows per pass of the softmax's arithmetic: in fp32 they stay in a core's own cache."""
    return max(1, (2**20 if logits.device.type == "cpu" else 2**27) // logits.shape[-1])


def _slices(length: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def _check(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> None:
    if hidden.shape[1:] != weight.shape[1:] or targets.shape != hidden.shape[:1]:
        raise ValueError(
            f"head: hidden {list(hidden.shape)}, weight {list(weight.shape)} and targets "
            f"{list(targets.shape)} do not fit; give [N, H], [V, H] and [N]"
        )
    if not temperature > 0:
        raise ValueError(f"head: temperature = {temperature} must be above 0")
