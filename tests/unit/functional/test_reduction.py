from __future__ import annotations

import pytest
import torch

from trimtab.errors import ConfigError
from trimtab.functional import loss_denominator, reduce_loss

LOSS = torch.tensor([[1.0, 2.0, 3.0], [5.0, 99.0, 99.0], [99.0, 99.0, 99.0]])
MASK = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])


@pytest.mark.parametrize(
    ("kind", "denominator", "loss"),
    [("token_mean", 4.0, 11 / 4), ("sequence_mean", 2.0, (2 + 5) / 2), ("fixed_length", 24.0, 11 / 24)],
)
def test_reductions_by_hand(kind, denominator, loss):
    """R9: sums 6 and 5 over 3 and 1 tokens, an empty row, 8 new tokens at most."""
    assert loss_denominator(MASK, kind, max_new_tokens=8) == denominator
    assert float(reduce_loss(LOSS, MASK, kind, denominator)) == pytest.approx(loss)


@pytest.mark.parametrize("kind", ["token_mean", "sequence_mean", "fixed_length"])
def test_parts_add_up(kind):
    """Trap 4: with the global denominator the shares of single rows add up to the loss."""
    denominator = loss_denominator(MASK, kind, 8)
    whole = float(reduce_loss(LOSS, MASK, kind, denominator))
    parts = [float(reduce_loss(LOSS[i : i + 1], MASK[i : i + 1], kind, denominator)) for i in range(3)]
    assert sum(parts) == pytest.approx(whole)


def test_empty_batch_and_bad_denominators():
    """Trap 4: nothing to train is loss 0 with a graph; a local or missing denominator is refused."""
    loss = LOSS.clone().requires_grad_()
    empty = torch.zeros_like(MASK)
    value = reduce_loss(loss, empty, "token_mean", loss_denominator(empty, "token_mean"))
    assert float(value.detach()) == 0.0
    assert torch.autograd.grad(value, loss)[0].abs().sum() == 0
    for bad in (-1.0, float("nan"), float("inf"), 0.0):
        with pytest.raises(ValueError, match="denominator"):
            reduce_loss(LOSS, MASK, "token_mean", bad)
    with pytest.raises(ConfigError, match="max_new_tokens"):
        loss_denominator(MASK, "fixed_length")
    with pytest.raises(ConfigError, match="did you mean 'token_mean'"):
        reduce_loss(LOSS, MASK, "token_men", 1.0)
