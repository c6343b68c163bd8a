"""A reference that follows the policy."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trimtab.models.moving_average import MovingAverage


def pair(dtype: torch.dtype) -> tuple[nn.Linear, nn.Linear]:
    """Two layers whose weights are all 1 and all 2."""
    made = []
    for value in (1.0, 2.0):
        layer = nn.Linear(3, 2).to(dtype)
        for p in layer.parameters():
            nn.init.constant_(p, value)
        made.append(layer)
    return made[0], made[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_moves_by_hand(dtype: torch.dtype) -> None:
    """R10: 100 moves of a thousandth go 1 − 0.999^100 of the way, also in bf16, whose weights alone would
    not move at all; the other model stays."""
    mine, other = pair(dtype)
    average = MovingAverage(mine)
    for _ in range(100):
        average.move(other, 0.001)
    expected = 2 - 0.999**100
    assert mine.weight.flatten().tolist() == pytest.approx([expected] * 6, rel=2**-8)
    assert other.weight.eq(2).all()
    alone, _ = pair(dtype)
    with torch.no_grad():
        for _ in range(100):
            alone.weight.lerp_(other.weight, 0.001)
    assert (dtype == torch.bfloat16) == bool(alone.weight.eq(1).all())


def test_goes_on_where_it_stopped() -> None:
    """R15: saved and loaded after 30 of 60 moves it ends bit for bit where it would have."""
    whole, other = pair(torch.bfloat16)
    average = MovingAverage(whole)
    for _ in range(60):
        average.move(other, 0.003)
    first, _ = pair(torch.bfloat16)
    part = MovingAverage(first)
    for _ in range(30):
        part.move(other, 0.003)
    second, _ = pair(torch.bfloat16)
    second.load_state_dict(first.state_dict())
    resumed = MovingAverage(second)
    resumed.load_state({name: rest.clone() for name, rest in part.state().items()})
    for _ in range(30):
        resumed.move(other, 0.003)
    assert torch.equal(whole.weight, second.weight)
