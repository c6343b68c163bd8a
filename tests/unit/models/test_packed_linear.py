"""Linear maps over packed weights: what they multiply, and that a row does not depend on the others (R26)."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.models import packed_linear as module_under_test
from trimtab.models.kernels.build import load_kernel
from trimtab.models.packed_linear import packed_gate, packed_linear

needs_kernel = pytest.mark.skipif(
    load_kernel("linear", {"IS_BF16": 1}) is None, reason="no compiler, or a processor without bf16"
)


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel where it can be had, whatever is faster here."""
    monkeypatch.setenv("TRIMTAB_CHOICES", "own")


def _map(size: int, width: int, *, bias: bool = False) -> nn.Linear:
    torch.manual_seed(size * 1000 + width)
    return nn.Linear(size, width, bias=bias).to(torch.bfloat16)


def _exact(linear: nn.Linear, x: Tensor) -> Tensor:
    bias = None if linear.bias is None else linear.bias.double()
    return F.linear(x.double(), linear.weight.double(), bias)


def _is_rounded(found: Tensor, exact: Tensor) -> bool:
    """Within half a unit of bf16's last place, and what fp32 sums lose."""
    return bool(((found.double() - exact).abs() <= exact.abs() * 2**-8 + 1e-5).all())


@torch.no_grad()
@pytest.mark.parametrize("kernel", [pytest.param(True, marks=needs_kernel), False])
@pytest.mark.parametrize("rows", [1, 2, 12, 13, 14, 27, 64])
@pytest.mark.parametrize(
    ("size", "width", "bias"), [(2, 16, False), (34, 48, True), (64, 32, True), (96, 80, False)]
)
def test_it_multiplies(
    monkeypatch: pytest.MonkeyPatch, kernel: bool, rows: int, size: int, width: int, bias: bool
) -> None:
    """Every height of a tile, an odd and an even number of panels, with bias and without."""
    if not kernel:
        monkeypatch.setattr(module_under_test, "_kernel", lambda: None)
    linear = _map(size, width, bias=bias)
    x = torch.randn(rows, 1, size).to(torch.bfloat16)
    fast = packed_linear(linear, rows)
    assert (fast is None) == (not kernel and not module_under_test.has_onednn())
    found = (fast or linear)(x)
    assert found.dtype == torch.bfloat16 and found.shape == (rows, 1, width)
    assert _is_rounded(found, _exact(linear, x))


@needs_kernel
def test_a_kernel_that_compiles_is_used() -> None:
    """Its own trial multiplication does not refuse it."""
    assert module_under_test._kernel() is not None


@needs_kernel
@torch.no_grad()
def test_a_row_does_not_depend_on_the_others() -> None:
    """Bit for bit: a completion is the same whatever is sampled beside it."""
    linear = _map(64, 48)
    fast = packed_linear(linear, 64)
    assert fast is not None
    x = torch.randn(41, 64).to(torch.bfloat16)
    together = fast(x)
    for row in range(len(x)):
        assert torch.equal(fast(x[row : row + 1]), together[row : row + 1])


@needs_kernel
@torch.no_grad()
def test_a_wide_result_is_the_rounded_one() -> None:
    linear = _map(64, 48, bias=True)
    narrow, wide = (packed_linear(linear, 8, is_wide=is_wide) for is_wide in (False, True))
    assert narrow is not None and wide is not None
    x = torch.randn(15, 64).to(torch.bfloat16)
    assert wide(x).dtype == torch.float32
    assert torch.equal(wide(x), narrow(x).float())
    assert torch.equal(wide(x.float()), wide(x))  # a stream of fp32 is rounded on its way in


@needs_kernel
@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 13, 30])
def test_the_gate_is_two_maps_and_a_silu(rows: int) -> None:
    """With every intermediate result rounded as transformers rounds it."""
    gate, up = _map(34, 48), _map(34, 48)
    torch.manual_seed(3)
    up.weight.data = torch.randn_like(up.weight)
    x = (3 * torch.randn(1, rows, 34)).to(torch.bfloat16)
    fast, maps = packed_gate(gate, up, 8), [packed_linear(linear, rows) for linear in (gate, up)]
    assert fast is not None and maps[0] is not None and maps[1] is not None
    rounded = F.silu(maps[0](x).float()).to(torch.bfloat16).float() * maps[1](x).float()
    assert fast(x).shape == (1, rows, 48)
    assert ((fast(x).float() - rounded).abs() <= rounded.abs() * 2**-7).all()


@needs_kernel
def test_what_does_not_fit_goes_another_way() -> None:
    """An odd input, a width of no whole panels, a bias or a hook on a gate, another precision."""
    plain = _map(34, 48)
    assert packed_gate(plain, plain, 8) is not None
    assert packed_gate(_map(33, 48), _map(33, 48), 8) is None
    assert packed_gate(_map(34, 40), _map(34, 40), 8) is None
    assert packed_gate(_map(34, 48, bias=True), plain, 8) is None
    assert packed_gate(plain, _map(34, 64), 8) is None
    assert packed_linear(nn.Linear(34, 48), 8) is None
    mixed = _map(34, 48, bias=True)
    mixed.bias.data = mixed.bias.data.float()
    assert packed_linear(mixed, 8) is None
    hooked = _map(34, 48)
    hooked.register_forward_hook(lambda *_: None)
    assert packed_gate(hooked, plain, 8) is None
    odd = packed_linear(_map(33, 40), 8)
    x = torch.randn(3, 33).to(torch.bfloat16)
    with torch.no_grad():
        assert odd is None or _is_rounded(odd(x), _exact(_map(33, 40), x))
