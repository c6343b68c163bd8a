"""Issue 3: the head's two ways give the log-probabilities and gradients of the plain one, block by block."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trimtab.functional.head import head_logprobs, one_pass_head

VOCABULARY, HIDDEN = 41, 8


def inputs(count: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, weight and targets; logits are spread enough for some probabilities near 1."""
    draw = torch.Generator().manual_seed(count)
    hidden = torch.randn(count, HIDDEN, generator=draw, dtype=torch.float64)
    weight = torch.randn(VOCABULARY, HIDDEN, generator=draw, dtype=torch.float64)
    targets = torch.randint(VOCABULARY, (count,), generator=draw)
    return hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), targets


def plain(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy straight from their definitions."""
    logs = torch.log_softmax(hidden @ weight.T / temperature, -1)
    return logs.gather(1, targets[:, None]).squeeze(1), -(logs.exp() * logs).sum(-1)


def loss_of(logprobs: Tensor, entropy: Tensor, at: slice = slice(None)) -> Tensor:
    """A loss of single tokens that is not linear in either score."""
    weights = torch.linspace(-1, 2, 1200, dtype=logprobs.dtype)[at][: len(logprobs)]
    return (weights * logprobs.exp() + 0.3 * weights.cos() * entropy.square()).sum()


@pytest.mark.parametrize("count", [1, 255, 256, 700, 1100])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_both_ways_are_the_plain_one(count: int, temperature: float) -> None:
    """Values and all gradients in fp64, at sizes on both sides of the blocks' borders."""
    hidden, weight, targets = inputs(count)
    scores = plain(hidden, weight, targets, temperature)
    expected = torch.autograd.grad(loss_of(*scores), (hidden, weight))

    logprobs, entropy = head_logprobs(hidden, weight, targets, temperature, with_entropy=True)
    assert entropy is not None
    torch.testing.assert_close((logprobs, entropy), scores, atol=1e-11, rtol=1e-10)
    torch.testing.assert_close(
        torch.autograd.grad(loss_of(logprobs, entropy), (hidden, weight)), expected, atol=1e-10, rtol=1e-9
    )

    def derivatives(rows: slice, lp: Tensor, ent: Tensor | None) -> tuple[Tensor, Tensor]:
        assert ent is not None
        torch.testing.assert_close((lp, ent), (scores[0][rows], scores[1][rows]), atol=1e-11, rtol=1e-10)
        leaves = (lp.requires_grad_(), ent.requires_grad_())
        with torch.enable_grad():
            return torch.autograd.grad(loss_of(*leaves, rows), leaves)  # type: ignore[return-value]

    found = one_pass_head(hidden, weight, targets, derivatives, temperature, with_entropy=True)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precisions(dtype: torch.dtype) -> None:
    """fp32 to rounding; bf16 to its 8 bits, gradients of more than one stored block included."""
    hidden, weight, targets = inputs(1100, dtype)
    exact = tuple(x.detach().double().requires_grad_() for x in (hidden, weight))
    expected = torch.autograd.grad(plain(exact[0], exact[1], targets, 1.0)[0].sum(), exact)

    def ones(rows: slice, logprobs: Tensor, entropy: Tensor | None) -> tuple[Tensor, None]:
        return torch.ones_like(logprobs), None

    one = one_pass_head(hidden, weight, targets, ones)
    two = torch.autograd.grad(head_logprobs(hidden, weight, targets)[0].sum(), (hidden, weight))
    tolerance = 2e-6 if dtype == torch.float32 else 1.5e-2
    for found in (one, two):
        for grad, right in zip(found, expected, strict=True):
            assert grad is not None and grad.dtype == dtype
            assert float((grad.double() - right).abs().max() / right.abs().max()) <= tolerance


def test_large_vocabulary_is_exact() -> None:
    """The sum over 50,000 exponentials does not lose digits: log-probabilities to 1e-6 in fp32, and the
    gradient of each row of logits adds up to 0."""
    draw = torch.Generator().manual_seed(1)
    hidden = torch.randn(4, 6, generator=draw)
    weight = 0.3 * torch.randn(50_000, 6, generator=draw)
    targets = torch.tensor([1, 7, 49_999, 20_000])
    expected = plain(hidden.double(), weight.double(), targets, 1.0)
    found = head_logprobs(hidden, weight, targets, with_entropy=True)
    torch.testing.assert_close(found[0].double(), expected[0], atol=1.5e-6, rtol=0)
    assert found[1] is not None
    torch.testing.assert_close(found[1].double(), expected[1], atol=3e-6, rtol=0)
    # One hidden number of 1 shows the row's dlogits as the weight's gradient; logits as spread as a model's.
    for row in range(4):
        logits = (4 * torch.randn(50_000, 1, generator=draw)).requires_grad_()
        head_logprobs(torch.ones(1, 1), logits, targets[row : row + 1])[0].sum().backward()
        assert logits.grad is not None and abs(float(logits.grad.double().sum())) <= 5e-7


def test_what_is_frozen_gets_no_gradient() -> None:
    """A frozen head (LoRA) costs no third product; an empty batch gives zeros."""
    hidden, weight, targets = inputs(5)

    def ones(rows: slice, logprobs: Tensor, entropy: Tensor | None) -> tuple[Tensor, None]:
        assert entropy is None
        return torch.ones_like(logprobs), None

    assert one_pass_head(hidden, weight.detach(), targets, ones)[1] is None
    head_logprobs(hidden, weight.detach(), targets)[0].sum().backward()
    assert hidden.grad is not None and weight.grad is None
    empty = one_pass_head(hidden[:0], weight, targets[:0], ones)
    assert empty[0].shape == (0, HIDDEN) and empty[1] is not None and not empty[1].any()


def test_wrong_shapes_are_said() -> None:
    """R1: one sentence with the shapes."""
    hidden, weight, targets = inputs(5)
    with pytest.raises(ValueError, match=r"give \[N, H\], \[V, H\] and \[N\]"):
        head_logprobs(hidden, weight, targets[:4])
    with pytest.raises(ValueError, match="must be above 0"):
        head_logprobs(hidden, weight, targets, temperature=0.0)
