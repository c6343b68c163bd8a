from __future__ import annotations

import math

import pytest
import torch

from trimtab.errors import ConfigError
from trimtab.functional import full_kl, kl_estimate, kl_loss

POLICY = torch.tensor([0.3, -1.2, 0.8, 0.1, -0.4], dtype=torch.float64)
REFERENCE = torch.tensor([-0.5, 0.6, 0.2, -0.9, 0.7], dtype=torch.float64)
OLD = torch.tensor([0.6, -0.8, 0.1, 0.4, -1.0], dtype=torch.float64)


def _exact():
    """KL of the 5-token policy to the reference and its gradient, by the definition."""
    theta = POLICY.clone().requires_grad_()
    p = torch.softmax(theta, 0)
    value = (p * (p.log() - torch.log_softmax(REFERENCE, 0))).sum()
    return value.detach(), torch.autograd.grad(value, theta)[0]


def _expected_gradient(loss_of_tokens, sampled_by):
    """E over tokens of the sampler of the gradient of each token's loss: full enumeration, no sampling."""
    theta = POLICY.clone().requires_grad_()
    losses = loss_of_tokens(torch.log_softmax(theta, 0))
    return torch.autograd.grad((torch.softmax(sampled_by, 0) * losses).sum(), theta)[0]


def test_estimates_by_hand():
    """R6: d = log 2: k1 = log 2, k2 = (log 2)²/2, k3 = 1/2 − 1 + log 2; d = −log 2 likewise."""
    logprobs, reference = (
        torch.tensor([math.log(0.5), math.log(0.2)]),
        torch.tensor([math.log(0.25), math.log(0.4)]),
    )
    log2 = math.log(2)
    expected = {
        "k1": [log2, -log2],
        "kl": [log2, -log2],
        "k2": [log2**2 / 2, log2**2 / 2],
        "mse": [log2**2 / 2, log2**2 / 2],
        "k3": [0.5 - 1 + log2, 2 - 1 - log2],
        "abs": [log2, log2],
    }
    for kind, values in expected.items():
        torch.testing.assert_close(kl_estimate(logprobs, reference, kind), torch.tensor(values))


def test_k1_and_k3_are_unbiased():
    """Trap 15: over all 5 tokens the expectations of k1 and k3 are the exact KL; that of k2 is not."""
    exact, _ = _exact()
    log_p, log_q = torch.log_softmax(POLICY, 0), torch.log_softmax(REFERENCE, 0)
    for kind in ("k1", "k3"):
        torch.testing.assert_close((log_p.exp() * kl_estimate(log_p, log_q, kind)).sum(), exact)
    assert (log_p.exp() * kl_estimate(log_p, log_q, "k2")).sum() != pytest.approx(float(exact), rel=1e-3)


def test_full_kl_is_exact():
    """R6: `full` is the KL over the vocabulary at every position, with its gradient; 0 for equal models."""
    exact, gradient = _exact()
    theta = POLICY.clone().requires_grad_()
    value = full_kl(theta.expand(2, 3, 5), REFERENCE.expand(2, 3, 5))
    torch.testing.assert_close(value, exact.expand(2, 3))
    torch.testing.assert_close(torch.autograd.grad(value[0, 0], theta)[0], gradient)
    assert float(full_kl(POLICY, POLICY)) == 0.0
    hot = full_kl(POLICY, REFERENCE, temperature=2.0)
    torch.testing.assert_close(hot, full_kl(POLICY / 2, REFERENCE / 2))


def test_full_kl_with_forbidden_tokens():
    """R6: a token that neither model can say adds nothing."""
    policy, reference = torch.tensor([0.0, 0.0, -torch.inf]), torch.tensor([0.0, 0.0, -torch.inf])
    policy.requires_grad_()
    value = full_kl(policy, reference)
    assert value.tolist() == 0.0
    assert torch.isfinite(torch.autograd.grad(value, policy)[0]).all()


@pytest.mark.parametrize("estimator", ["k2", "mse", "k3"])
def test_loss_has_the_reverse_kl_gradient_on_policy(estimator):
    """Trap 1: the expected gradient of the loss term is the gradient of the exact KL."""
    reference = torch.log_softmax(REFERENCE, 0)
    actual = _expected_gradient(lambda lp: kl_loss(lp, reference, estimator), sampled_by=POLICY)
    torch.testing.assert_close(actual, _exact()[1], rtol=0, atol=1e-14)


@pytest.mark.parametrize("estimator", ["k2", "mse", "k3"])
def test_loss_has_the_reverse_kl_gradient_off_policy(estimator):
    """Trap 1: the same when an older policy sampled the tokens, thanks to the ratio."""
    reference, old = torch.log_softmax(REFERENCE, 0), torch.log_softmax(OLD, 0)
    actual = _expected_gradient(lambda lp: kl_loss(lp, reference, estimator, old), sampled_by=OLD)
    torch.testing.assert_close(actual, _exact()[1], rtol=0, atol=1e-14)


def test_why_k1_and_bare_k3_are_not_losses():
    """Trap 1: k1 has zero expected gradient on-policy, bare k3 that of the forward KL."""
    reference = torch.log_softmax(REFERENCE, 0)
    k1 = _expected_gradient(lambda lp: kl_estimate(lp, reference, "k1"), sampled_by=POLICY)
    torch.testing.assert_close(k1, torch.zeros_like(k1), rtol=0, atol=1e-14)
    k3 = _expected_gradient(lambda lp: kl_estimate(lp, reference, "k3"), sampled_by=POLICY)
    forward = torch.softmax(POLICY, 0) - torch.softmax(REFERENCE, 0)
    torch.testing.assert_close(k3, forward, rtol=0, atol=1e-14)
    assert (k3 - _exact()[1]).abs().max() > 0.1


@pytest.mark.parametrize("estimator", ["k1", "kl", "abs"])
def test_wrong_losses_are_refused(estimator):
    """Trap 1: the error names what to do instead."""
    with pytest.raises(ConfigError, match=r"use 'k3' or 'k2', or put the KL in the reward"):
        kl_loss(POLICY, REFERENCE, estimator)


def test_unknown_kinds_name_the_nearest():
    """R6: an unknown estimator is one sentence; `full` says that it needs logits."""
    with pytest.raises(ConfigError, match="kind = 'k4'"):
        kl_estimate(POLICY, REFERENCE, "k4")
    with pytest.raises(ConfigError, match="full_kl"):
        kl_estimate(POLICY, REFERENCE, "full")
    with pytest.raises(ValueError, match="same shape"):
        kl_estimate(POLICY, REFERENCE[:2])


def test_masked_tokens_have_no_kl():
    """Traps 7 and 18: outside the mask the estimate is 0 and the gradient exactly 0, whatever is there."""
    logprobs = torch.tensor([[-1.0, -2000.0, math.nan]], requires_grad=True)
    reference = torch.tensor([[-2.0, 0.0, 0.0]])
    mask = torch.tensor([[True, False, False]])
    assert kl_estimate(logprobs, reference, "k3", mask=mask)[0, 1:].tolist() == [0.0, 0.0]
    for estimator in ("k2", "k3"):
        loss = kl_loss(logprobs, reference, estimator, torch.zeros(1, 3), mask=mask)
        (gradient,) = torch.autograd.grad(loss.sum(), logprobs)
        assert gradient[0, 0] == pytest.approx(math.exp(-1))
        assert gradient[0, 1:].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("gap", [-1e4, -100.0, -20.5, 20.5, 100.0, 1e4])
@pytest.mark.parametrize("estimator", ["k2", "k3"])
@pytest.mark.parametrize("old_gap", [None, 0.0, -100.0, 100.0])
def test_any_log_ratio_gives_a_finite_loss_and_gradient(gap, estimator, old_gap):
    """R14: a token that reference or old policy see utterly otherwise costs a number, not the update."""
    logprobs = torch.tensor([-3.0, -3.0], requires_grad=True)
    reference = logprobs.detach() - torch.tensor([gap, 0.1])
    old = None if old_gap is None else logprobs.detach() - torch.tensor([old_gap, 0.0])
    loss = kl_loss(logprobs, reference, estimator, old)
    loss.sum().backward()
    assert bool(torch.isfinite(loss).all() and torch.isfinite(logprobs.grad).all())
    assert bool(torch.isfinite(logprobs.grad.square()).all()), "the norm of gradients squares them"
    # The reverse KL is lowered by moving towards the reference, and not at all where the policy never goes.
    assert float(logprobs.grad[0]) * gap >= 0
    assert logprobs.grad[1] == pytest.approx(0.1, rel=1e-5)
    for kind in ("k1", "k2", "k3", "abs"):
        assert bool(torch.isfinite(kl_estimate(logprobs, reference, kind)).all())


def test_the_bound_of_k3_by_hand():
    """Up to an exponent of 20 k3 is exact; at 100 it is e²⁰ − 1 − 100, and its slope keeps its sign."""
    d = torch.tensor([-19.0, -100.0], dtype=torch.float64, requires_grad=True)
    value = kl_estimate(d, torch.zeros(2, dtype=torch.float64), "k3")
    assert value.tolist() == pytest.approx([math.exp(19) - 20, math.exp(20) - 101])
    value.sum().backward()
    assert d.grad.tolist() == pytest.approx([1 - math.exp(19), 1 - math.exp(20)])
