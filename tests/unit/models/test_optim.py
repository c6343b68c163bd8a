"""The optimizer: AdamW where parameters are fp32, fp32 memory where they are not."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from trimtab.errors import CheckpointError
from trimtab.models.halves import part
from trimtab.models.optim import MasterAdamW, learning_rate_at


def layers(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 1)).to(dtype)


def train(model: nn.Module, optimizer: MasterAdamW, steps: int, rate: float = 1e-2, first: int = 0) -> None:
    for i in range(first, first + steps):
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(i)).to(next(model.parameters()).dtype)
        model(x).float().square().mean().backward()
        optimizer.clip_grad_norm(0.5)
        optimizer.step(rate)
        optimizer.zero_grad()


def plain_adamw(parameters: Iterable[Tensor], rate: float, decay: float) -> torch.optim.AdamW:
    tensors = list(parameters)
    groups = [
        {"params": [p for p in tensors if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in tensors if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, fused=True)


def test_fp32_equals_torch_adamw() -> None:
    """R11, issue 3 (3): on fp32 parameters it is torch's AdamW with clipping, bit for bit."""
    ours, theirs = layers(), layers()
    optimizer = MasterAdamW(ours.named_parameters(), 1e-2, weight_decay=0.1)
    assert all(torch.equal(optimizer.master(name), p) for name, p in ours.named_parameters())
    train(ours, optimizer, 5)
    adamw = plain_adamw(theirs.parameters(), 1e-2, 0.1)
    for i in range(5):
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(i))
        theirs(x).square().mean().backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        adamw.step()
        adamw.zero_grad()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)


def test_bf16_is_adamw_on_fp32_masters() -> None:
    """Issue 3 (3): bf16 gradients, summed in fp32, update an fp32 copy; the parameter is the copy rounded."""
    ours, theirs = layers(torch.bfloat16), layers(torch.bfloat16)
    optimizer = MasterAdamW(ours.named_parameters(), 1e-2, weight_decay=0.1)
    copies = [p.detach().float() for p in theirs.parameters()]
    adamw = plain_adamw(copies, 1e-2, 0.1)
    for i in range(4):
        for copy in copies:
            copy.grad = torch.zeros_like(copy)
        for j in range(3):  # micro-batches
            x = torch.randn(8, 6, generator=torch.Generator().manual_seed(10 * i + j)).bfloat16()
            for model in (ours, theirs):
                model(x).float().square().mean().backward()
            for copy, p in zip(copies, theirs.parameters(), strict=True):
                assert copy.grad is not None and p.grad is not None
                copy.grad += p.grad.float()
                p.grad = None
        optimizer.step(1e-2)
        optimizer.zero_grad()
        adamw.step()
        with torch.no_grad():
            for copy, p in zip(copies, theirs.parameters(), strict=True):
                p.copy_(copy.bfloat16())
    for (name, _), copy in zip(ours.named_parameters(), copies, strict=True):
        assert torch.equal(optimizer.master(name), copy)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other) and one.dtype == torch.bfloat16


def test_one_step_by_hand() -> None:
    """R11: Adam with decoupled decay, second step of two, from its formulas (Loshchilov and Hutter 2019)."""
    weight = nn.Parameter(torch.tensor([[2.0]]))
    optimizer = MasterAdamW([("w", weight)], 0.1, weight_decay=0.5)
    w, m, v = 2.0, 0.0, 0.0
    for step, grad in enumerate((3.0, -1.0), start=1):
        weight.grad = torch.tensor([[grad]])
        optimizer.step()
        m, v = 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad**2
        w -= 0.1 * 0.5 * w
        w -= 0.1 * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)) ** 0.5 + 1e-8)
        assert float(weight.detach()) == pytest.approx(w, rel=1e-6)


def test_a_step_makes_no_copies() -> None:
    """Issue 3 (3): accumulating, clipping, updating and publishing bf16 numbers allocates next to nothing."""
    count = 1 << 20
    weight = nn.Parameter(torch.ones(1024, 1024, dtype=torch.bfloat16))
    optimizer = MasterAdamW([("w", weight)], 1e-3)
    for _ in range(2):  # the first step makes the moments
        weight.sum().backward()
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as accumulating:
            weight.backward(torch.ones_like(weight))
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as stepping:
            optimizer.clip_grad_norm(1.0)
            optimizer.step()
    bf16, fp32 = 2 * count, 4 * count
    assert _largest(accumulating) <= bf16
    # Pieces come and go; no more than a few are there at a time.
    assert _largest(stepping) <= 1 << 20 < fp32 / 3


@pytest.mark.parametrize("first", [0, 32767, 32768, 32769, 65535, 98304])
def test_masters_are_whole(first: int) -> None:
    """Issue 3 (3): 16 bits of the parameter and 16 more are the master, also halfway between two bf16 numbers
    (98304 is 1.5 units, where rounding to even would leave 32768 more than 16 bits hold)."""
    bits = torch.tensor([[0x3F80_0000 + first, 0xBF80_0000 - 2**32 + first, first, 0x7F7E_0000 + first]])
    masters = bits.to(torch.int32).view(torch.float32)
    weight = nn.Parameter(torch.zeros(1, 4, dtype=torch.bfloat16))
    optimizer = MasterAdamW([("w", weight)], 0.0)
    rest = torch.zeros(1, 4, dtype=torch.int16)
    part(masters.clone(), weight.data, rest)
    optimizer.load_state_dict({"w.rest": rest})
    assert torch.equal(optimizer.master("w"), masters)
    off = (weight.data.float() - masters).abs() / masters.abs().clamp(min=1e-45)
    assert float(off[0, :2].max()) <= 2**-8


def _largest(recorded: profile) -> int:
    return max(event.self_cpu_memory_usage for event in recorded.events())


def test_large_gradients_accumulate_in_pieces() -> None:
    """Issue 3 (3): adding piece by piece is adding; also where a gradient is not contiguous."""
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(700, 800, generator=generator).bfloat16() for _ in range(2)]
    for first, second in (parts, [x.T for x in parts]):
        weight = nn.Parameter(torch.zeros(first.shape, dtype=torch.bfloat16))
        optimizer = MasterAdamW([("w", weight)], 1e-3)
        for grad in (first, second):
            weight.backward(grad)
        assert torch.equal(optimizer.gradients["w"], first.float() + second.float())


def test_masters_keep_small_updates() -> None:
    """R6 (bf16): steps of 1e-4 on a weight of 1 are lost in bf16 one by one and kept in the master."""
    kept, lost = (nn.Parameter(torch.ones(4, dtype=torch.bfloat16)) for _ in range(2))
    optimizer = MasterAdamW([("w", kept)], 1e-4)
    plain = torch.optim.AdamW([lost], lr=1e-4, weight_decay=0.0)
    for _ in range(100):
        kept.grad = lost.grad = None
        kept.sum().backward()
        lost.sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        plain.step()
    assert lost.tolist() == [1.0] * 4
    assert kept.tolist() == pytest.approx([0.99] * 4, abs=0.004)
    assert optimizer.master("w").tolist() == pytest.approx([0.99] * 4, abs=1e-5)


def test_bf16_gradients_accumulate_in_fp32() -> None:
    """Trap 4: 300 micro-batches of 1 add up to 300, which bf16 (8 bits) cannot count to."""
    weight = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    optimizer = MasterAdamW([("w", weight)], 1e-3)
    for _ in range(301):
        weight.sum().backward()
    assert optimizer.grad_norm() == 301
    assert optimizer.clip_grad_norm(1.0) == 301 and optimizer.grad_norm() == pytest.approx(1.0)
    optimizer.zero_grad()
    assert optimizer.grad_norm() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_goes_on_where_it_stopped(dtype: torch.dtype) -> None:
    """Threats (runs): 6 steps equal 3 steps, save, load into new objects, 3 steps: bit for bit."""
    whole = layers(dtype)
    train(whole, MasterAdamW(whole.named_parameters(), 1e-2), 6)
    first = layers(dtype)
    optimizer = MasterAdamW(first.named_parameters(), 1e-2)
    train(first, optimizer, 3)
    state = {key: value.clone() for key, value in optimizer.state_dict().items()}
    second = layers(dtype)
    second.load_state_dict(first.state_dict())
    resumed = MasterAdamW(second.named_parameters(), 1e-2)
    resumed.load_state_dict(state)
    train(second, resumed, 3, first=3)
    for one, other in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_state_of_another_model_is_refused() -> None:
    """R25: a tensor too few, too many, or of another shape is named."""
    model = layers(torch.bfloat16)
    optimizer = MasterAdamW(model.named_parameters(), 1e-2)
    train(model, optimizer, 1)
    state = optimizer.state_dict()
    with pytest.raises(CheckpointError, match=r"lacks 0\.weight\.exp_avg_sq"):
        optimizer.load_state_dict({k: v for k, v in state.items() if k != "0.weight.exp_avg_sq"})
    with pytest.raises(CheckpointError, match=r"has 9\.weight\.rest"):
        optimizer.load_state_dict({**state, "9.weight.rest": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"0\.weight\.rest of shape \[5, 6\]"):
        optimizer.load_state_dict({**state, "0.weight.rest": torch.zeros(2)})


def test_reload_masters() -> None:
    """R10: after someone else wrote the parameters, the next step starts from them."""
    model = layers(torch.bfloat16)
    optimizer = MasterAdamW(model.named_parameters(), 0.0)
    with torch.no_grad():
        model[0].weight.fill_(2.0)
    optimizer.reload_masters()
    train(model, optimizer, 1, rate=0.0)
    assert (model[0].weight == 2.0).all()


def test_learning_rates_by_hand() -> None:
    """R11: warm-up counts from the first step; the schedules end towards 0."""
    rates = [learning_rate_at(s, 2.0, "linear", 2, 6) for s in range(7)]
    assert rates == pytest.approx([1.0, 2.0, 2.0, 1.5, 1.0, 0.5, 0.0])
    assert [learning_rate_at(s, 2.0, "constant", 0, 3) for s in range(3)] == [2.0, 2.0, 2.0]
    assert [learning_rate_at(s, 2.0, "cosine", 0, 4) for s in (0, 2, 4, 9)] == pytest.approx([2, 1, 0, 0])
    with pytest.raises(ValueError, match="unknown schedule"):
        learning_rate_at(0, 1.0, "step", 0, 1)
