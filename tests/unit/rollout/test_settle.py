"""What an engine settles before its first step, and that every way says the same (B.12)."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.unit.models.tiny import CONFIGS, tiny_model, tiny_tokenizer

from trimtab.models import choice
from trimtab.models.attention_proof import TOLERANCE
from trimtab.models.choice import chosen, follow_choices
from trimtab.models.kernels.build import load_kernel
from trimtab.models.packed_choice import _plan, cpu_kernel, packed_way
from trimtab.models.packed_compiled import CompiledKernel
from trimtab.models.packed_linear import _keeps_rows, packed_linear
from trimtab.models.trials import OWN, PACKED, TORCH, WAYS, Choice
from trimtab.rollout.engine import SamplingParams
from trimtab.rollout.native import NativeEngine
from trimtab.rollout.settle import settle_choices

needs_kernels = pytest.mark.skipif(
    load_kernel("decode", {"IS_BF16": 0, "HEAD_SIZE": 32, "GROUP": 2}) is None, reason="no C compiler"
)


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(choice, "_folder", lambda: tmp_path / "choices")
    sizes = {"hidden_size": 128, "head_dim": 32, "intermediate_size": 64}  # what the kernels take
    monkeypatch.setitem(CONFIGS, "Llama", {**CONFIGS["Llama"], **sizes})
    follow_choices({}, None)
    yield
    follow_choices({}, None)


@pytest.mark.parametrize(
    "command", [["-m", "trimtab.cli", "--help"], ["-c", "import trimtab.rollout.native"]]
)
def test_nothing_is_measured_by_help_or_import(tmp_path: Path, command: list[str]) -> None:
    environment = {**os.environ, "TRIMTAB_CHOICES": "measure", "XDG_CACHE_HOME": str(tmp_path)}
    subprocess.run([sys.executable, *command], env=environment, capture_output=True, check=True)
    assert list(tmp_path.iterdir()) == []


@torch.no_grad()
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bias", [True, False])
def test_every_way_multiplies_alike(monkeypatch: pytest.MonkeyPatch, way: str, bias: bool) -> None:
    """bf16, against fp64: within a rounding of the result and what sums of 64 products lose."""
    monkeypatch.setenv("TRIMTAB_CHOICES", way)
    torch.manual_seed(1)
    linear = torch.nn.Linear(64, 48, bias=bias).to(torch.bfloat16)
    x = torch.randn(20, 64).to(torch.bfloat16)
    found = (packed_linear(linear, 20) or linear)(x).double()
    added = None if linear.bias is None else linear.bias.double()
    exact = torch.nn.functional.linear(x.double(), linear.weight.double(), added)
    assert bool(((found - exact).abs() <= exact.abs() * 2**-7 + 1e-4).all())


def test_a_row_that_depends_on_its_batch_is_seen() -> None:
    x = torch.randn(16, 8)
    assert _keeps_rows(lambda rows: rows * 2, x)
    assert not _keeps_rows(lambda rows: rows + 1e-3 * len(rows), x)
    assert not _keeps_rows(lambda rows: rows + torch.arange(len(rows))[:, None], x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_that_learns_is_the_same_in_both_ways(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    """Output and gradients of the compiled kernel and of torch's; they share nothing but the plan."""
    plan = _plan()
    tokens = plan.input_ids.shape[1]
    assert tokens == sum(plan.segments) == plan.completions[-1][1]
    torch.manual_seed(2)
    q, k, v, grad = (torch.randn(1, heads, tokens, 16).to(dtype) for heads in (4, 2, 2, 4))
    results = []
    for way in (OWN, TORCH):
        monkeypatch.setenv("TRIMTAB_CHOICES", way)
        kernel = cpu_kernel(plan, q, k)
        assert way == OWN or not isinstance(kernel, CompiledKernel)
        output, sums, more = kernel.forward(q, k, v, 0.25)
        results.append([output, *kernel.backward(grad, (q, k, v, output, sums, *more), 0.25)])
    for one, other in zip(*results, strict=True):
        limit = 1e-4 if dtype == torch.float32 else 2e-2
        assert float((one.float() - other.float()).abs().max()) <= limit * float(other.abs().max())


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_way_samples_what_the_model_says(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """Log-probabilities of the drawn tokens, against the untouched module's own forward."""
    prompts, params = [[5, 6, 7], [9, 8]], SamplingParams(max_new_tokens=4, min_new_tokens=4, seed=3)
    for way in WAYS:
        monkeypatch.setenv("TRIMTAB_CHOICES", way)
        model = tiny_model("Llama", dtype)
        groups = NativeEngine(model, tiny_tokenizer(), frozenset({2}), cache="kernel").generate(
            prompts, 2, params
        )
        for prompt, group in zip(prompts, groups, strict=True):
            for completion in group:
                ids = torch.tensor([[*prompt, *completion.token_ids]])
                with torch.no_grad():
                    logits = model.float()(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
                model.to(dtype)
                places = range(len(prompt) - 1, ids.shape[1] - 1)
                said = torch.stack([logits[at, ids[0, at + 1]] for at in places])
                error = (said - torch.tensor(completion.logprobs)).abs().max()
                assert float(error) <= 3 * TOLERANCE[dtype] * float(logits.std())


@needs_kernels
@pytest.mark.parametrize("way", ["own", "measure"])
def test_a_row_is_the_same_in_every_batch(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """R26, bit for bit: alone, in a small batch and in one that is larger than what was measured."""
    monkeypatch.setenv("TRIMTAB_CHOICES", way)
    model, params = tiny_model("Llama", torch.bfloat16), SamplingParams(max_new_tokens=6, seed=3)
    engine = NativeEngine(model, tiny_tokenizer(), frozenset({2}), cache="kernel", rows=16)
    prompts = [[5, 6, 7 + number] for number in range(12)]
    whole = engine.generate(prompts, 4, params)
    assert engine.generate(prompts[:1], 4, params) == whole[:1]
    assert engine.generate(prompts[:3], 4, params) == whole[:3]


@needs_kernels
def test_an_engine_asks_when_it_is_built_and_never_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """One class of rows for all its batches: two would let a row's rounding depend on its batch."""
    monkeypatch.setenv("TRIMTAB_CHOICES", "measure")
    monkeypatch.setattr(choice, "measure", lambda ways, *_: Choice(TORCH, dict.fromkeys([*ways, TORCH], 1.0)))
    model = tiny_model("Llama", torch.bfloat16)
    engine = NativeEngine(model, tiny_tokenizer(), frozenset({2}), cache="kernel", rows=40)
    settled = chosen()
    assert set(settled.values()) == {TORCH}
    assert {name for name in settled if name.startswith("linear")} == {
        f"linear 48x{module.in_features}x{module.out_features} bf16"
        for module in model.modules()
        if type(module) is torch.nn.Linear
    }
    for prompts, generations in (([[5, 6]], 1), ([[5, 6], [7, 8, 9]], 30)):
        engine.generate(prompts, generations, SamplingParams(max_new_tokens=2))
    assert chosen() == settled


def test_a_model_takes_no_more_than_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one shape spends the next has not: the seconds left never grow."""
    monkeypatch.setenv("TRIMTAB_CHOICES", "measure")
    left: list[float] = []

    def measure(ways: object, fallback: str, seconds: float) -> Choice:
        left.append(seconds)
        return Choice(fallback)

    monkeypatch.setattr(choice, "measure", measure)
    settle_choices(tiny_model("Llama", torch.bfloat16), 16)
    assert left == sorted(left, reverse=True) and all(seconds <= 1.5 for seconds in left)


def test_a_kernel_that_is_off_is_never_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_NO_KERNELS", "1")
    plan = _plan()
    q = torch.zeros(1, 4, plan.input_ids.shape[1], 16)
    assert not isinstance(cpu_kernel(plan, q, q), CompiledKernel)


def test_forced_ways_go_where_they_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    for way, expected in ((OWN, OWN), (TORCH, TORCH), (PACKED, OWN)):  # attention has no packed way
        monkeypatch.setenv("TRIMTAB_CHOICES", way)
        assert packed_way(torch.float32, 4, 2, 16) == expected
