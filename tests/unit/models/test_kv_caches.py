"""The compiled key-value cache, and the modules that run faster while sampling, say what plain torch says."""

from __future__ import annotations

import shutil

import pytest
import torch
from tests.unit.models.tiny import ARCHITECTURES, random_prompts, tiny_model, tiny_tokenizer
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from trimtab.models.attention import ScoreRule
from trimtab.models.elementwise import elementwise_kernels
from trimtab.models.fast_modules import fast_modules
from trimtab.models.kv_context import PromptSpans
from trimtab.models.kv_kernel import KernelCache, kernel_for
from trimtab.models.kv_rows import Room, RowState
from trimtab.models.kv_torch import TorchCache
from trimtab.rollout.engine import SamplingParams
from trimtab.rollout.native import NativeEngine, sampling_mode

needs_compiler = pytest.mark.skipif(
    not (shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")), reason="no C compiler here"
)
ROOM = Room(rows=5, prompts=2, prompt_tokens=21, new_tokens=40)


def filled(kind: type, heads: int, size: int, dtype: torch.dtype) -> TorchCache | KernelCache:
    """A cache with prompts of 21 and 6 tokens; rows 0, 1, 3 on the first, 2 and 4 on the second."""
    generator = torch.Generator().manual_seed(1)
    cache = kind(RowState(ROOM, "cpu"))
    for slot, length in enumerate((21, 6)):
        cache.state.prompt_lengths[slot] = length
        keys, values = torch.randn(2, heads, length, size, generator=generator).to(dtype)
        cache.write_prompts(0, PromptSpans([slot], [length], "cpu"), keys, values)
    cache.state.start(torch.tensor([0, 1, 3]), 0)
    cache.state.start(torch.tensor([2, 4]), 1)
    cache.arrange()
    return cache


def run(
    cache: TorchCache | KernelCache, shape: tuple[int, int, int], dtype: torch.dtype, rule: ScoreRule
) -> list[Tensor]:
    """Forty steps; a row rests at step 9 and starts again at 12, and the batch shrinks at step 30."""
    generator = torch.Generator().manual_seed(2)
    (heads, group, size), outputs = shape, []
    for step in range(ROOM.new_tokens):
        if step == 9:
            cache.state.stop(torch.tensor([1]))
        if step == 12:
            cache.state.start(torch.tensor([1]), 1)
            cache.arrange()
        if step == 30:
            kept = torch.tensor([0, 2, 3])
            cache.keep(kept)
            cache.state.keep(kept)
            cache.arrange()
        draw = torch.randn(5, heads * (group + 2), 1, size, generator=generator).to(dtype)
        query, key, value = draw[: cache.state.num_rows].split((heads * group, heads, heads), dim=1)
        output = cache.attend(0, query, key, value, rule)
        outputs.append(output[cache.state.is_running.bool()].float())
        cache.state.advance()
        cache.stepped()
    return outputs


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(("heads", "group", "size"), [(3, 3, 64), (1, 6, 32), (2, 1, 16), (2, 4, 128)])
@pytest.mark.parametrize("limits", [{}, {"softcap": 2.0}, {"window": 9}], ids=["plain", "cap", "window"])
def test_the_kernel_attends_like_torch(
    heads: int, group: int, size: int, dtype: torch.dtype, limits: dict[str, float]
) -> None:
    """Issue 3, trap 17: ragged rows, shared prompts, windows and caps; rows that rest, restart and leave."""
    if kernel_for(dtype, size, group) is None:
        pytest.skip("the compiler here cannot build the kernel")
    rule = ScoreRule(size**-0.5, **limits)  # type: ignore[arg-type]
    ours = run(filled(KernelCache, heads, size, dtype), (heads, group, size), dtype, rule)
    plain = run(filled(TorchCache, heads, size, dtype), (heads, group, size), dtype, rule)
    tolerance = 2e-6 if dtype == torch.float32 else 0.03
    for step, (one, other) in enumerate(zip(ours, plain, strict=True)):
        assert torch.allclose(one, other, atol=tolerance, rtol=0), step


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fast_modules_change_nothing_and_leave_no_trace(architecture: str, dtype: torch.dtype) -> None:
    """Issue 3, trap 17: with packed weights and compiled norms logits stay; afterwards all is as before."""
    model = tiny_model(architecture, dtype)
    if elementwise_kernels(model) is None:
        pytest.skip("the compiler here cannot build the kernels")
    ids = torch.tensor(random_prompts(9))
    step = ids[:, :1].expand(4, 1)  # one token per row: the rotary kernel's case
    with sampling_mode(model):
        plain = [model(input_ids=x, use_cache=False).logits.float() for x in (ids, step)]
        with fast_modules(model, 4):
            fast = [model(input_ids=x, use_cache=False).logits.float() for x in (ids, step)]
        again = [model(input_ids=x, use_cache=False).logits.float() for x in (ids, step)]
    for one, other, third in zip(plain, fast, again, strict=True):
        scale = float(one.std())
        assert float((one - other).pow(2).mean().sqrt()) <= scale * (1e-5 if dtype == torch.float32 else 0.05)
        assert torch.equal(one, third)
    assert not any("forward" in vars(module) for module in model.modules())


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_compiled_steps_equal_transformers(dtype: torch.dtype) -> None:
    """Issue 3: rotary positions (also where cosine and sine differ between the halves), norm and gate, and
    their gradients, are transformers' own in fp64 within one rounding."""
    kernels = elementwise_kernels(tiny_model("Llama", dtype))
    if kernels is None:
        pytest.skip("the compiler here cannot build the kernels")
    generator = torch.Generator().manual_seed(3)
    cosine, sine = torch.randn(2, 2, 70, 64, generator=generator)
    x = torch.randn(2, 70, 3, 64, generator=generator).to(dtype).transpose(1, 2)
    stream = torch.randn(2, 70, 64, generator=generator)
    weight = torch.randn(64, generator=generator).to(dtype)
    gate, up = (8 * torch.randn(2, 2, 70, 64, generator=generator)).to(dtype)

    def plain_norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        norm = LlamaRMSNorm(64, eps=1e-5).double()
        # Its own forward goes through fp32; the exact one does not.
        return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon))

    def plain_rotary(x: torch.Tensor) -> torch.Tensor:
        return apply_rotary_pos_emb(x, x, cosine, sine)[0]

    cases = [
        (lambda x: kernels.rotate(x, cosine, sine), plain_rotary, [x]),
        (lambda x, w: kernels.rms_norm(x, w, 1e-5), plain_norm, [stream, weight]),
        (kernels.silu_multiply, lambda g, u: torch.nn.functional.silu(g) * u, [gate, up]),
    ]
    step = 2e-6 if dtype == torch.float32 else 2**-7
    for ours, plain, inputs in cases:
        leaves = [v.detach().clone().requires_grad_() for v in inputs]
        exact = [v.detach().double().requires_grad_() for v in inputs]
        found, expected = ours(*leaves), plain(*exact)
        grad = torch.randn(found.shape, generator=generator).to(dtype)
        found.backward(grad)
        expected.backward(grad.double())
        pairs = [(found, expected), *((a.grad, b.grad) for a, b in zip(leaves, exact, strict=True))]
        for one, other in pairs:
            slack = step * float(other.detach().abs().max()) / 8
            assert torch.allclose(one.double(), other, rtol=step, atol=slack)
        with torch.no_grad():
            assert torch.equal(ours(*(v.clone() for v in inputs)), found)


@needs_compiler
def test_a_bf16_model_learns_with_a_wide_stream() -> None:
    """Issue 3: with the compiled modules a bf16 gradient is nearer to that of fp32, and its rounded embedding
    gradient adds up in fp32."""
    exact, rounded = tiny_model("Llama"), tiny_model("Llama", torch.bfloat16)
    exact.load_state_dict(rounded.state_dict())
    ids = torch.randint(3, 200, (1, 64), generator=torch.Generator().manual_seed(1))
    ids[0, ::2] = 7  # one token many times: its gradient is a long sum

    def gradient(model: torch.nn.Module) -> torch.Tensor:
        model.zero_grad()
        logits = model(input_ids=ids, use_cache=False).logits.float()
        torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:]).backward()
        return torch.cat([p.grad.double().flatten() for p in model.parameters() if p.grad is not None])

    def distance(other: torch.Tensor) -> float:
        return 1 - float(torch.cosine_similarity(right, other, dim=0))

    right, plain = gradient(exact), gradient(rounded)
    with fast_modules(rounded):
        wide = gradient(rounded)
    assert distance(wide) < 0.85 * distance(plain)
    assert torch.equal(gradient(rounded), plain)


@needs_compiler
def test_weights_that_move_between_calls_are_sampled_from() -> None:
    """Trap 17: packed copies live for one call, so an update of the weights is never missed."""
    model, prompts = tiny_model("Qwen3", torch.bfloat16), random_prompts(5)
    engine = NativeEngine(model, tiny_tokenizer(), frozenset({2}), cache="kernel")
    before = engine.generate(prompts, 2, SamplingParams(8, greedy=True))
    with torch.no_grad():
        model.lm_head.weight.mul_(-1.0)
    after = engine.generate(prompts, 2, SamplingParams(8, greedy=True))
    fresh = NativeEngine(model, tiny_tokenizer(), frozenset({2}), cache="kernel")
    right = fresh.generate(prompts, 2, SamplingParams(8, greedy=True))
    assert before[0][0].token_ids != after[0][0].token_ids == right[0][0].token_ids


def test_without_a_compiler_there_is_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 3: kernels are optional: switched off, the portable cache serves."""
    from trimtab.rollout.self_test import choose_cache

    monkeypatch.setenv("TRIMTAB_NO_KERNELS", "1")
    assert kernel_for(torch.float32, 16, 2) is None
    assert choose_cache(tiny_model("Qwen3")) == ("torch", None)


@needs_compiler
def test_no_thread_writes_beyond_the_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 14: the kernel's OpenMP may know of more threads than torch says."""
    library = kernel_for(torch.float32, 64, 2)
    if library is None:
        pytest.skip("the compiler here cannot build the kernel")
    most, said = library.omp_get_max_threads(), torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: said)
    cache = filled(KernelCache, 2, 64, torch.float32)
    assert isinstance(cache, KernelCache)
    guarded = torch.full((16 * cache._scratch.numel(),), 7.0)
    size = cache._scratch.numel()
    cache._scratch = guarded[:size]
    try:
        library.omp_set_num_threads(12)
        run(cache, (2, 2, 64), torch.float32, ScoreRule(0.125))
    finally:
        library.omp_set_num_threads(most)
    assert bool((guarded[:size] != 7.0).any())
    assert bool((guarded[size:] == 7.0).all())


@needs_compiler
def test_the_number_of_threads_may_change_meanwhile() -> None:
    """Issue 14: torch.set_num_threads between two steps gets more scratch, and the same numbers."""
    if kernel_for(torch.float32, 64, 2) is None:
        pytest.skip("the compiler here cannot build the kernel")
    rule, shape, before = ScoreRule(0.125), (2, 2, 64), torch.get_num_threads()
    expected = run(filled(TorchCache, 2, 64, torch.float32), shape, torch.float32, rule)
    cache = filled(KernelCache, 2, 64, torch.float32)
    assert isinstance(cache, KernelCache)
    one = cache._scratch.numel() // before
    try:
        torch.set_num_threads(before + 3)
        found = run(cache, shape, torch.float32, rule)
    finally:
        torch.set_num_threads(before)
    assert cache._scratch.numel() == (before + 3) * one
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
