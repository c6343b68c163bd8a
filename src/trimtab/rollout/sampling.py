"""Drawing tokens by inverse CDF: one uniform per row, a cumulative sum, a search.

Rows A, vocabulary V. The log-probability of the drawn token falls out of the same sum.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from trimtab.rollout.engine import SamplingParams

_BLOCK = 256  # tokens per block: sum the blocks, find the block, then search inside it
_LIKELIEST = 256  # a nucleus seldom holds more tokens; sorting the vocabulary is the slow way


def uniform_table(seed: int, rows: Iterable[tuple[int, int]], num_draws: int) -> Tensor:
    """Uniforms in [0, 1) ``[R, num_draws]`` (fp64), one stream for each (prompt, generation) of ``rows``.

    A stream depends on nothing but the seed and its own pair; more draws only continue it.
    """
    streams = [
        np.random.Generator(
            np.random.Philox(key=np.array([seed % 2**64, prompt << 32 | generation], np.uint64))
        )
        for prompt, generation in rows
    ]
    return torch.from_numpy(np.stack([stream.random(num_draws) for stream in streams]))


class Sampler:
    """Draws one token per row from logits, as ``params`` say."""

    def __init__(
        self, params: SamplingParams, eos_ids: Iterable[int], device: torch.device | str = "cpu"
    ) -> None:
        self.params = params
        self._eos = torch.tensor(sorted(eos_ids), dtype=torch.long, device=device)

    def __call__(self, logits: Tensor, uniforms: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """``logits [A, V]``, ``uniforms [A]`` → tokens ``[A]`` and log-probabilities ``[A]`` (fp32).

        ``step`` is the number of tokens that the rows have already: the end token is barred before
        ``min_new_tokens``. Log-probabilities are of ``softmax(logits / temperature)``, truncated or not.
        """
        params = self.params
        scaled = logits.float()
        if params.scale != 1.0:
            scaled = scaled / params.scale
        allowed = scaled
        if step < params.min_new_tokens and len(self._eos):
            allowed = scaled.index_fill(1, self._eos, float("-inf"))
        if params.is_greedy:
            return _with_logprobs(scaled, allowed.argmax(dim=-1))
        if params.top_k or params.top_p < 1.0:
            return _with_logprobs(scaled, draw_truncated(allowed, uniforms, params.top_k, params.top_p))
        tokens, logprobs = draw(allowed, uniforms)
        return (tokens, logprobs) if allowed is scaled else _with_logprobs(scaled, tokens)


def _with_logprobs(scaled: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    chosen = scaled.gather(1, tokens[:, None]).squeeze(1)
    return tokens, chosen - torch.logsumexp(scaled, dim=-1)


def draw(scaled: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Draw from ``softmax(scaled)`` and return tokens and their log-probabilities, both ``[A]``.

    The sum is taken in two levels, so a row costs one pass over the vocabulary and two short searches.
    """
    rows, vocabulary = scaled.shape
    num_blocks = -(-vocabulary // _BLOCK)
    highest = scaled.max(dim=-1, keepdim=True).values
    weights = scaled.new_zeros(rows, num_blocks * _BLOCK)
    torch.sub(scaled, highest, out=weights[:, :vocabulary]).exp_()
    blocks = weights.view(rows, num_blocks, _BLOCK)
    edges = blocks.sum(dim=-1, dtype=torch.float64).cumsum(dim=-1)  # [A, blocks]: mass up to each block's end
    total = edges[:, -1:]
    target = uniforms.to(total)[:, None] * total
    block = _search(edges, target)
    before = torch.where(block > 0, edges.gather(1, (block - 1).clamp(min=0)), 0.0)
    inside = blocks.gather(1, block[..., None].expand(-1, 1, _BLOCK)).squeeze(1)
    offset = _search(inside.cumsum(dim=-1, dtype=torch.float64), target - before)
    tokens = (block * _BLOCK + offset).squeeze(1)
    chosen = scaled.gather(1, tokens[:, None]) - highest
    return tokens, (chosen - total.log()).squeeze(1).float()


def draw_truncated(scaled: Tensor, uniforms: Tensor, top_k: int, top_p: float) -> Tensor:
    """Draw from the likeliest tokens of ``softmax(scaled)``: the first k, then of those the nucleus of top_p.

    The nucleus is the shortest list of likeliest tokens whose mass reaches ``top_p`` of what top_k left; it
    holds at least one token. Tokens ``[A]`` are drawn in proportion to their probability.
    """
    vocabulary = scaled.shape[1]
    probs = torch.softmax(scaled, dim=-1)
    if top_k:
        return _draw_nucleus(*probs.topk(min(top_k, vocabulary), dim=-1), uniforms, top_p)
    if vocabulary <= 4 * _LIKELIEST:
        return _draw_nucleus(*probs.sort(dim=-1, descending=True, stable=True), uniforms, top_p)
    likeliest, ids = probs.topk(_LIKELIEST, dim=-1)
    tokens = _draw_nucleus(likeliest, ids, uniforms, top_p, mass=1.0)
    flat = (likeliest.sum(dim=-1, dtype=torch.float64) < top_p).nonzero().squeeze(1)
    if len(flat):
        ranked, ids = probs[flat].sort(dim=-1, descending=True, stable=True)
        tokens[flat] = _draw_nucleus(ranked, ids, uniforms[flat], top_p, mass=1.0)
    return tokens


def _draw_nucleus(
    probs: Tensor, ids: Tensor, uniforms: Tensor, top_p: float, mass: float | None = None
) -> Tensor:
    """``probs`` and ``ids`` ``[A, K]``, likeliest first; ``mass`` is that of the whole list they start."""
    edges = probs.cumsum(dim=-1, dtype=torch.float64)
    limit = top_p * (edges[:, -1:] if mass is None else mass)
    # The nucleus ends with the first token that brings the mass to the limit.
    last = (edges < limit).sum(dim=-1, keepdim=True).clamp(max=probs.shape[1] - 1)
    kept = edges.gather(1, last)
    place = torch.minimum(_search(edges, uniforms.to(edges)[:, None] * kept), last)
    return ids.gather(1, place).squeeze(1)


def _search(edges: Tensor, target: Tensor) -> Tensor:
    """Index ``[A, 1]`` of the first edge above the target: never that of an entry without mass."""
    # Rounding may leave the target at the last edge: the last entry with mass takes it.
    below_end = torch.minimum(target, torch.nextafter(edges[:, -1:], torch.zeros_like(target)))
    return torch.searchsorted(edges.contiguous(), below_end, right=True).clamp(max=edges.shape[1] - 1)
