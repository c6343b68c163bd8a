"""Drawing tokens by inverse CDF: one uniform per row, a cumulative sum, a search.

Rows A, vocabulary V. The log-probability of the drawn token falls out of the same sum.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trimtab.errors import DivergedError
from trimtab.rollout.draws import NOT_FINITE, Draws, kernel_drawer
from trimtab.rollout.engine import SamplingParams

_LIKELY = 64  # likeliest tokens that are looked at before a row is sorted
_BLOCK = 256  # tokens per block: sum the blocks, find the block, then search inside it


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
        self,
        params: SamplingParams,
        eos_ids: Iterable[int],
        device: Any = "cpu",
        kernel_dtype: torch.dtype | None = None,
    ) -> None:
        """``kernel_dtype``: draw with the compiled kernel for logits of this type, where one can be had."""
        self.params = params
        self._eos = torch.tensor(sorted(eos_ids), dtype=torch.long, device=device)
        self._kernel = kernel_drawer(kernel_dtype, params, self._eos)

    def __call__(self, logits: Tensor, uniforms: Tensor, steps: Tensor | int) -> Draws:
        """``logits [A, V]``, ``uniforms [A]`` → one token for each row.

        ``steps [A]`` are the numbers of tokens that the rows have already: the end token is barred before
        ``min_new_tokens``.

        Raises:
            DivergedError: logits are not finite.
        """
        params = self.params
        barred = torch.as_tensor(steps) < params.min_new_tokens
        if self._kernel is not None and logits.dtype == self._kernel.dtype and logits.is_contiguous():
            return self._kernel(logits, uniforms, barred)
        scaled = logits.float()
        if params.scale != 1.0:
            scaled = scaled / params.scale
        allowed = scaled
        if len(self._eos) and bool(barred.any()):
            barred = barred.expand(len(scaled)).to(scaled.device)
            allowed = scaled.clone()
            allowed[:, self._eos] = allowed[:, self._eos].masked_fill(barred[:, None], float("-inf"))
        if params.is_greedy:
            _highest(allowed)
            tokens, logprobs = allowed.argmax(dim=-1), None
        elif params.top_k:
            tokens, logprobs = draw_top_k(allowed, uniforms, params.top_k, params.top_p), None
        else:
            tokens, logprobs = draw(allowed, uniforms, params.top_p)
        if logprobs is None or allowed is not scaled:
            logprobs = scaled.gather(1, tokens[:, None]).squeeze(1) - torch.logsumexp(scaled, dim=-1)
        if not params.is_truncated:
            return Draws(tokens, logprobs, None)
        kept = kept_mass(allowed, params.top_k, params.top_p).log().to(logprobs)
        if allowed is not scaled:
            kept = kept + torch.logsumexp(allowed, dim=-1) - torch.logsumexp(scaled, dim=-1)
        return Draws(tokens, logprobs, logprobs - kept)


def draw(scaled: Tensor, uniforms: Tensor, top_p: float = 1.0) -> tuple[Tensor, Tensor]:
    """Draw from ``softmax(scaled)``, or from its nucleus; tokens ``[A]`` and their log-probabilities ``[A]``.

    Log-probabilities are of ``softmax(scaled)`` in either case. The nucleus is the shortest list of likeliest
    tokens (at equal weight the lower id first) whose mass reaches ``top_p``. It is drawn from by rejection,
    which needs no sorting: a token is in the nucleus when those ahead of it weigh less than ``top_p``; if it
    is not, neither is any token behind it, and the draw is repeated without them.
    """
    weights, highest = _weigh(scaled)
    tokens, rest, total = _locate(weights, uniforms)
    chosen = (scaled.gather(1, tokens[:, None]) - highest).squeeze(1)
    if top_p == 1.0:
        return tokens, (chosen - total.log()).float()
    limit, todo = top_p * total, torch.arange(len(tokens), device=tokens.device)
    while True:
        ahead = _ahead(weights, tokens[todo])
        outside = (torch.where(ahead, weights, 0.0).sum(dim=-1) >= limit[todo]).nonzero().squeeze(1)
        if not len(outside):
            break
        weights = torch.where(ahead[outside], weights[outside], 0.0)
        todo, rest = todo[outside], rest[outside]
        tokens[todo], rest, _ = _locate(weights, rest)
    chosen = (scaled.gather(1, tokens[:, None]) - highest).squeeze(1)
    return tokens, (chosen - total.log()).float()


def draw_unchecked(scaled: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """As ``draw`` from the whole distribution, without ever asking the device: where logits are not finite
    the log-probability is not either."""
    highest = scaled.amax(dim=-1, keepdim=True)
    tokens, _, total = _locate(_weights(scaled, highest), uniforms)
    chosen = (scaled.gather(1, tokens[:, None]) - highest).squeeze(1)
    return tokens, (chosen - total.log()).float()


def kept_mass(scaled: Tensor, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Share ``[A]`` (fp64, at most 1) of ``softmax(scaled)`` that top-k and then the nucleus leave.

    What a token's probability is divided by when it is drawn from what is left. Most nuclei are short: the
    likeliest few tokens settle them, and only the rows where they do not are sorted.
    """
    weights = torch.exp(scaled - scaled.max(dim=-1, keepdim=True).values)
    total = weights.sum(dim=-1, dtype=torch.float64)
    vocabulary = scaled.shape[1]
    width = min(top_k or _LIKELY, vocabulary)
    likeliest = weights.topk(width, dim=-1).values.double()
    within = likeliest.sum(dim=-1) if top_k else total
    kept = _nucleus(likeliest, top_p * within)
    short = likeliest.sum(dim=-1) < top_p * within
    if not top_k and width < vocabulary and bool(short.any()):
        ordered = weights[short].sort(dim=-1, descending=True).values.double()
        kept[short] = _nucleus(ordered, top_p * within[short])
    return (kept / total).clamp(max=1.0)


def _nucleus(ordered: Tensor, limit: Tensor) -> Tensor:
    """Weight ``[A]`` of the shortest head of ``ordered [A, K]`` that reaches ``limit [A]``."""
    ends = ordered.cumsum(dim=-1)
    last = ((ends - ordered) < limit[:, None]).sum(dim=-1, keepdim=True) - 1
    return ends.gather(1, last.clamp(min=0)).squeeze(1)


def draw_top_k(scaled: Tensor, uniforms: Tensor, top_k: int, top_p: float = 1.0) -> Tensor:
    """Draw tokens ``[A]`` from the ``top_k`` likeliest, or from the nucleus of ``top_p`` of their mass."""
    likeliest, ids = scaled.topk(min(top_k, scaled.shape[1]), dim=-1)
    places, _ = draw(likeliest, uniforms, top_p)
    return ids.gather(1, places[:, None]).squeeze(1)


def _weigh(scaled: Tensor) -> tuple[Tensor, Tensor]:
    """``_weights``, and the highest value ``[A, 1]``."""
    highest = _highest(scaled)
    return _weights(scaled, highest), highest


def _weights(scaled: Tensor, highest: Tensor) -> Tensor:
    """``exp(scaled − highest)``, padded with zeros to whole blocks."""
    rows, vocabulary = scaled.shape
    weights = scaled.new_empty(rows, -(-vocabulary // _BLOCK) * _BLOCK)
    weights[:, vocabulary:] = 0.0
    torch.sub(scaled, highest, out=weights[:, :vocabulary]).exp_()
    return weights


def _highest(scaled: Tensor) -> Tensor:
    """The highest value ``[A, 1]`` of each row; NaN and infinity anywhere in a row end up here."""
    highest = scaled.max(dim=-1, keepdim=True).values
    if not bool(torch.isfinite(highest).all()):
        raise DivergedError(NOT_FINITE)
    return highest


def _locate(weights: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find the token ``[A]`` under each uniform; also what is left of the uniform, and the total weight.

    The sum is taken in two levels: one pass over the vocabulary and two short searches. Within the interval
    of the token that it hit, a uniform is uniform again: that rest ``[A]`` serves for a second draw.
    """
    blocks = weights.view(len(weights), -1, _BLOCK)
    edges = blocks.sum(dim=-1).cumsum(dim=-1, dtype=torch.float64)  # weight up to the end of each block
    total = edges[:, -1:]
    target = uniforms.to(total)[:, None] * total
    block = _search(edges, target)
    inside = blocks.gather(1, block[..., None].expand(-1, 1, _BLOCK)).squeeze(1)
    inner = inside.cumsum(dim=-1, dtype=torch.float64)
    target = (target - _start(edges, block)).clamp(min=0.0)
    offset = _search(inner, target)
    rest = (target - _start(inner, offset)) / inside.gather(1, offset)
    tokens = (block * _BLOCK + offset).squeeze(1)
    return tokens, rest.squeeze(1).clamp(0.0, 1.0 - 1e-12), total.squeeze(1)


def _ahead(weights: Tensor, tokens: Tensor) -> Tensor:
    """Which tokens ``[A, V]`` are likelier than ``tokens [A]``, or as likely with a lower id."""
    mine = weights.gather(1, tokens[:, None])
    ahead, equal = weights > mine, weights == mine
    if int(equal.sum()) > len(tokens):
        ids = torch.arange(weights.shape[1], device=weights.device)
        ahead |= equal & (ids < tokens[:, None])
    return ahead


def _search(edges: Tensor, target: Tensor) -> Tensor:
    """Index ``[A, 1]`` of the first edge above the target: never that of an entry without weight."""
    # Rounding may leave the target at the last edge: the last entry with weight takes it.
    below_end = torch.minimum(target, torch.nextafter(edges[:, -1:], torch.zeros_like(target)))
    return torch.searchsorted(edges.contiguous(), below_end, right=True).clamp(max=edges.shape[1] - 1)


def _start(edges: Tensor, index: Tensor) -> Tensor:
    """Where entry ``index [A, 1]`` starts: the edge before it, 0 for the first."""
    return torch.where(index > 0, edges.gather(1, (index - 1).clamp(min=0)), 0.0)
