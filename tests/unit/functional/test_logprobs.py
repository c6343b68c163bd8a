from __future__ import annotations

import math

import pytest
import torch

from trimtab.functional import gather_logprobs, logprobs_and_entropy


def _random(rows=(2, 3), vocabulary=7, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(*rows, vocabulary, generator=generator, dtype=dtype)
    return logits, torch.randint(vocabulary, rows, generator=generator)


def test_gather_by_hand():
    """R9: logits log 1, log 2, log 5 are probabilities 1/8, 2/8, 5/8."""
    logits = torch.tensor([1.0, 2.0, 5.0]).log().expand(3, 3)
    expected = torch.tensor([1 / 8, 2 / 8, 5 / 8]).log()
    torch.testing.assert_close(gather_logprobs(logits, torch.arange(3)), expected)
    logprobs, entropy = logprobs_and_entropy(logits, torch.arange(3))
    torch.testing.assert_close(logprobs, expected)
    by_hand = -(1 / 8 * math.log(1 / 8) + 2 / 8 * math.log(2 / 8) + 5 / 8 * math.log(5 / 8))
    torch.testing.assert_close(entropy, torch.full((3,), by_hand))


def test_temperature_is_part_of_the_distribution():
    """Trap 9: log-probabilities are those of softmax(logits / temperature), as the sampler's."""
    logits, ids = _random()
    logprobs, entropy = logprobs_and_entropy(logits, ids, temperature=0.8)
    reference = torch.log_softmax(logits / 0.8, dim=-1)
    torch.testing.assert_close(logprobs, reference.gather(-1, ids[..., None]).squeeze(-1))
    torch.testing.assert_close(entropy, -(reference.exp() * reference).sum(-1))
    with pytest.raises(ValueError, match="temperature"):
        logprobs_and_entropy(logits, ids, temperature=0.0)


@pytest.mark.parametrize("rows_per_block", [1, 2, 5, 128])
def test_blocks_change_nothing(rows_per_block):
    """R12: any block size gives the values and gradients of plain autograd, entropy included."""
    logits, ids = _random()
    plain = logits.clone().requires_grad_()
    blocked = logits.clone().requires_grad_()
    weights = torch.randn(2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    table = torch.log_softmax(plain / 1.3, dim=-1)
    expected = (weights[0] * table.gather(-1, ids[..., None]).squeeze(-1)).sum()
    expected = expected - (weights[1] * (table.exp() * table).sum(-1)).sum()
    logprobs, entropy = logprobs_and_entropy(blocked, ids, temperature=1.3, rows_per_block=rows_per_block)
    actual = (weights[0] * logprobs).sum() + (weights[1] * entropy).sum()
    torch.testing.assert_close(actual, expected)
    expected.backward()
    actual.backward()
    torch.testing.assert_close(blocked.grad, plain.grad)


def test_gradient_against_finite_differences():
    """R9: the hand-written backward pass is the derivative of the forward pass."""
    logits, ids = _random(rows=(3,), vocabulary=4)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: logprobs_and_entropy(x, ids, 0.7, True, 2), (logits,))
    assert torch.autograd.gradcheck(lambda x: logprobs_and_entropy(x, ids, 0.7, False, 2)[0], (logits,))


def test_forbidden_tokens_have_no_entropy():
    """R17: logits of −inf (a truncated vocabulary) give a finite entropy and finite gradients."""
    logits = torch.tensor([[0.0, 0.0, -torch.inf]], requires_grad=True)
    logprobs, entropy = logprobs_and_entropy(logits, torch.tensor([1]))
    assert entropy.tolist() == pytest.approx([math.log(2)])
    (logprobs + entropy).sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[-0.5, 0.5, 0.0]]))


def test_bf16_logits_are_computed_in_fp32():
    """R9: fp32 arithmetic on bf16 logits, gradient in the dtype of the logits."""
    logits, ids = _random(dtype=torch.bfloat16)
    logits.requires_grad_()
    logprobs, entropy = logprobs_and_entropy(logits, ids)
    assert logprobs.dtype == entropy.dtype == gather_logprobs(logits, ids).dtype == torch.float32
    torch.testing.assert_close(logprobs, gather_logprobs(logits.detach().float(), ids))
    logprobs.sum().backward()
    assert logits.grad.dtype == torch.bfloat16


def test_without_entropy_and_misaligned():
    """R9: entropy can be left out; one position too many (the shift by one) is refused."""
    logits, ids = _random()
    assert logprobs_and_entropy(logits, ids, with_entropy=False)[1].abs().sum() == 0
    with pytest.raises(ValueError, match="cut both to the same positions"):
        logprobs_and_entropy(logits, ids[:, 1:])
    with pytest.raises(ValueError, match="cut both to the same positions"):
        gather_logprobs(logits, ids[:, 1:])
