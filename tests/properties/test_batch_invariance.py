"""Trap 4: loss and gradient do not depend on how the batch is cut, padded or ordered (fp32, 1e-6)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.functional import cispo_loss, clipped_policy_loss, kl_loss, loss_denominator, reduce_loss

from .batches import Batch, random_batch, seeds

REDUCTIONS = ("token_mean", "sequence_mean", "fixed_length")
TOLERANCE = 1e-6


def _token_loss(batch: Batch, form: str) -> torch.Tensor:
    if form == "cispo":
        loss = cispo_loss(batch.logprobs, batch.old_logprobs, batch.advantages, 3.0, mask=batch.mask)
    else:
        loss = clipped_policy_loss(
            batch.logprobs,
            batch.old_logprobs,
            batch.advantages,
            batch.mask,
            0.2,
            0.3,
            dual_clip=3.0,
            ratio=form,
        )
    kl = kl_loss(batch.logprobs, batch.ref_logprobs, "k3", batch.old_logprobs, mask=batch.mask)
    return loss + 0.1 * kl


def _loss_and_gradient(
    batch: Batch, form: str, kind: str, splits: list[slice]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum over micro-batches of their shares, and the accumulated gradient, as a trainer would."""
    leaf = batch.logprobs.clone().requires_grad_()
    whole = Batch(leaf, batch.old_logprobs, batch.ref_logprobs, batch.advantages, batch.mask)
    denominator = loss_denominator(batch.mask, kind, max_new_tokens=11)
    total = torch.zeros(())
    for part in splits:
        share = reduce_loss(_token_loss(whole.rows(part), form), batch.mask[part], kind, denominator)
        share.backward()
        total += share.detach()
    return total, leaf.grad


def _difference(one: tuple[torch.Tensor, torch.Tensor], two: tuple[torch.Tensor, torch.Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("kind", REDUCTIONS)
@pytest.mark.parametrize("form", ["token", "sequence", "sequence_token", "cispo"])
@given(seed=seeds, size=st.integers(1, 6), order=st.permutations(range(6)), left=st.integers(0, 3))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_split_padding_and_order(form, kind, seed, size, order, left):
    """R12, trap 4: any micro-batch size, row order and padding."""
    batch = random_batch(seed)
    reference = _loss_and_gradient(batch, form, kind, [slice(None)])
    splits = [slice(start, start + size) for start in range(0, 6, size)]
    assert _difference(reference, _loss_and_gradient(batch, form, kind, splits)) <= TOLERANCE

    shuffled = _loss_and_gradient(batch.rows(order), form, kind, splits)
    back = torch.argsort(torch.tensor(order))
    assert _difference(reference, (shuffled[0], shuffled[1][back])) <= TOLERANCE

    padded = _loss_and_gradient(batch.padded(left, 2), form, kind, splits)
    assert padded[1][:, :left].abs().sum() + padded[1][:, left + 9 :].abs().sum() == 0
    assert _difference(reference, (padded[0], padded[1][:, left : left + 9])) <= TOLERANCE


def test_local_denominators_would_not_do():
    """Trap 4: the same test with the mean of micro-batch means fails by far, so the test can fail."""
    batch = random_batch(3)
    reference, _ = _loss_and_gradient(batch, "token", "token_mean", [slice(None)])
    means = []
    for part in (slice(0, 2), slice(2, 6)):
        mask = batch.mask[part]
        loss = _token_loss(batch.rows(part), "token")
        means.append(reduce_loss(loss, mask, "token_mean", loss_denominator(mask, "token_mean")))
    assert abs(float(sum(means) / 2 - reference)) > 1e-3


def test_largest_differences(capsys):
    """Trap 4: the figures, over 50 batches; shown with `pytest -s`."""
    rows = []
    for form in ("token", "sequence", "cispo"):
        for kind in REDUCTIONS:
            worst = 0.0
            for seed in range(50):
                batch = random_batch(seed)
                whole = _loss_and_gradient(batch, form, kind, [slice(None)])
                ones = _loss_and_gradient(batch, form, kind, [slice(i, i + 1) for i in range(6)])
                worst = max(worst, _difference(whole, ones))
            rows.append(f"{form:>9} {kind:>14} {worst:.1e}")
            assert worst <= TOLERANCE
    print("\nlargest difference, 1 micro-batch against 6 (loss and gradient, fp32)\n" + "\n".join(rows))
