"""Log-probabilities and entropies of tokens, from logits, without keeping a second copy of the vocabulary.

All arithmetic is fp32 (or fp64 for fp64 logits) whatever the logits are stored in. Temperature divides the
logits here exactly as in the sampler, so the ratio of a token compares the same two distributions (trap 9).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def gather_logprobs(logits: Tensor, token_ids: Tensor) -> Tensor:
    """Log-probability of each token. Shapes: ``logits [..., V]``, ``token_ids [...]`` → ``[...]``, in nats.

    The caller aligns them: ``logits[..., :]`` must be those that predict ``token_ids[...]``.
    """
    _check_aligned("gather_logprobs", logits, token_ids)
    wide = _at_least_fp32(logits)
    chosen = wide.gather(-1, token_ids.unsqueeze(-1)).squeeze(-1)
    return chosen - torch.logsumexp(wide, dim=-1)


def logprobs_and_entropy(
    logits: Tensor,
    token_ids: Tensor,
    temperature: float = 1.0,
    with_entropy: bool = True,
    rows_per_block: int = 128,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each token and entropy of its distribution, of ``softmax(logits / temperature)``.

    Shapes: ``logits [..., V]``, ``token_ids [...]`` → two ``[...]`` tensors, in nats; both carry gradients.
    Works block by block forward and backward, so beyond the logits and their gradient it needs memory for
    ``rows_per_block`` rows only. Without ``with_entropy`` the second tensor is zeros.

    Raises:
        ValueError: shapes do not match, or the temperature is not above 0.
    """
    _check_aligned("logprobs_and_entropy", logits, token_ids)
    if not temperature > 0:
        raise ValueError(f"logprobs_and_entropy: temperature = {temperature} must be above 0")
    rows, ids = logits.reshape(-1, logits.shape[-1]), token_ids.reshape(-1)
    logprobs, entropy = _BlockedLogprobs.apply(  # type: ignore[no-untyped-call]
        rows, ids, float(temperature), with_entropy, int(rows_per_block)
    )
    return logprobs.view(token_ids.shape), entropy.view(token_ids.shape)


class _BlockedLogprobs(torch.autograd.Function):
    """Saves the logits it was given and one number per row; the softmax is recomputed per block backward."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        token_ids: Tensor,
        temperature: float,
        with_entropy: bool,
        rows_per_block: int,
    ) -> tuple[Tensor, Tensor]:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        logprobs = torch.empty(len(logits), dtype=dtype, device=logits.device)
        normaliser = torch.empty_like(logprobs)
        entropy = torch.zeros_like(logprobs)
        for block in _blocks(len(logits), rows_per_block):
            scaled = logits[block].to(dtype) / temperature
            normaliser[block] = torch.logsumexp(scaled, dim=-1)
            logprobs[block] = scaled.gather(-1, token_ids[block, None]).squeeze(-1) - normaliser[block]
            if with_entropy:
                probs = torch.exp(scaled - normaliser[block, None])
                entropy[block] = torch.special.entr(probs).sum(dim=-1)
        ctx.save_for_backward(logits, token_ids, normaliser, entropy)
        ctx.options = (temperature, with_entropy, rows_per_block)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_logprobs, grad_entropy = grads
        logits, token_ids, normaliser, entropy = ctx.saved_tensors
        temperature, with_entropy, rows_per_block = ctx.options
        grad_logits = torch.empty_like(logits)
        for block in _blocks(len(logits), rows_per_block):
            probs = torch.exp(logits[block].to(normaliser.dtype) / temperature - normaliser[block, None])
            grad = -probs * grad_logprobs[block, None]
            grad.scatter_add_(-1, token_ids[block, None], grad_logprobs[block, None])
            if with_entropy:
                # dH/dz_j = −p_j (log p_j + H); entr(p) is −p log p, and 0 at p = 0.
                slope = torch.special.entr(probs) - probs * entropy[block, None]
                grad += slope * grad_entropy[block, None]
            grad_logits[block] = (grad / temperature).to(logits.dtype)
        return grad_logits, None, None, None, None


def _blocks(num_rows: int, rows_per_block: int) -> list[slice]:
    return [slice(start, start + rows_per_block) for start in range(0, num_rows, rows_per_block)]


def _at_least_fp32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _check_aligned(function: str, logits: Tensor, token_ids: Tensor) -> None:
    if logits.shape[:-1] != token_ids.shape:
        raise ValueError(
            f"{function}: token_ids has shape {list(token_ids.shape)} but logits {list(logits.shape)} "
            f"predict {list(logits.shape[:-1])} tokens; cut both to the same positions"
        )
