"""Drawing tokens: exact distributions, exact supports, streams."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from trimtab.errors import DivergedError
from trimtab.rollout.engine import SamplingParams
from trimtab.rollout.sampling import Sampler, draw, draw_top_k, kept_mass, uniform_table


def uniforms(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def check_distribution(tokens: torch.Tensor, probs: torch.Tensor) -> None:
    """Chi-square of counts against exact probabilities; tokens without probability never occur."""
    counts = torch.bincount(tokens, minlength=len(probs)).double()
    assert not counts[probs == 0].any()
    held = probs > 0
    expected = probs[held].double() / probs[held].double().sum() * len(tokens)
    assert int(held.sum()) == 1 or stats.chisquare(counts[held], expected).pvalue > 1e-3


@pytest.mark.parametrize("vocabulary", [7, 256, 300, 1000])
def test_samples_follow_the_exact_probabilities(vocabulary: int) -> None:
    """R12: inverse CDF over one or several blocks, chi-square against softmax."""
    logits = torch.randn(vocabulary, generator=torch.Generator().manual_seed(1)) * 1.5
    n = 40 * vocabulary + 4000
    tokens, logprobs = draw(logits.expand(n, -1), uniforms(n))
    probs = torch.softmax(logits.double(), 0)
    check_distribution(tokens, probs)
    assert torch.allclose(logprobs, probs.log()[tokens].float(), atol=2e-6)


def test_inverse_cdf_by_hand() -> None:
    """R12: with masses 1/2, 1/4, 1/8, 1/8 each uniform falls where the cumulative sum says."""
    logits = torch.tensor([0.5, 0.25, 0.125, 0.125]).log().expand(6, -1)
    points = torch.tensor([0.0, 0.49, 0.5, 0.74, 0.76, 0.999], dtype=torch.float64)
    assert draw(logits, points)[0].tolist() == [0, 0, 1, 1, 2, 3]


@pytest.mark.parametrize(
    ("top_p", "support"),
    [(0.05, [3]), (0.4, [3]), (0.41, [3, 1]), (0.7, [3, 1]), (0.75, [3, 1, 4]), (0.999, [3, 1, 4, 0, 2])],
)
def test_nucleus_has_the_right_support(top_p: float, support: list[int]) -> None:
    """R12: the fewest likeliest tokens whose mass reaches top_p, in proportion, and no other."""
    probs = torch.tensor([0.06, 0.3, 0.04, 0.4, 0.2], dtype=torch.float64)
    tokens, logprobs = draw(probs.log().float().expand(20000, -1), uniforms(20000), top_p)
    kept = torch.zeros_like(probs)
    kept[support] = probs[support]
    check_distribution(tokens, kept)
    assert torch.allclose(logprobs, probs.log()[tokens].float(), atol=1e-6)


@pytest.mark.parametrize("vocabulary", [40, 700])
def test_nucleus_of_a_flat_distribution(vocabulary: int) -> None:
    """R12: ties are broken by id, so that a flat distribution keeps exactly ceil(top_p · V) tokens."""
    tokens, _ = draw(torch.zeros(8000, vocabulary), uniforms(8000), 0.5)
    assert sorted(set(tokens.tolist())) == list(range(vocabulary // 2))


def test_nucleus_against_sorting() -> None:
    """R12: on random distributions the support of many draws is that which sorting gives."""
    logits = torch.randn(5, 600, generator=torch.Generator().manual_seed(4)) * 3
    for row in logits:
        tokens, _ = draw(row.expand(4000, -1), uniforms(4000), 0.8)
        probs, order = torch.softmax(row.double(), 0).sort(descending=True)
        size = int((probs.cumsum(0) < 0.8).sum()) + 1
        kept = torch.zeros(600, dtype=torch.float64)
        kept[order[:size]] = probs[:size]
        assert kept[tokens].all()
        frequent = kept > 5 / len(tokens)
        check_distribution(tokens[frequent[tokens]], torch.where(frequent, kept, 0.0))


def test_top_k_support_and_both_together() -> None:
    """R12: the k likeliest; top_p then counts within their mass."""
    probs = torch.tensor([0.06, 0.3, 0.04, 0.4, 0.2], dtype=torch.float64)
    logits = probs.log().float().expand(20000, -1)
    kept = probs.clone()
    kept[[0, 2]] = 0
    check_distribution(draw_top_k(logits, uniforms(20000), 3), kept)
    # 0.4 of 0.9 is 0.444 and 0.7 of 0.9 is 0.778, so 0.75 of the three is reached by two.
    kept[4] = 0
    check_distribution(draw_top_k(logits, uniforms(20000), 3, 0.75), kept)
    assert set(draw_top_k(logits, uniforms(20000), 99).tolist()) == {0, 1, 2, 3, 4}


def test_temperature_and_greedy() -> None:
    """R12, trap 9: temperature divides the logits; 0 is greedy and reports temperature 1."""
    logits = torch.tensor([[1.0, 2.0, 0.0]]).expand(9000, -1)
    tokens, logprobs, _ = Sampler(SamplingParams(1, temperature=2.0), ())(logits, uniforms(9000), 0)
    probs = torch.softmax(logits[0].double() / 2, 0)
    check_distribution(tokens, probs)
    assert torch.allclose(logprobs, probs.log()[tokens].float(), atol=1e-6)
    tokens, logprobs, _ = Sampler(SamplingParams(1, temperature=0.0), ())(logits[:2], uniforms(2), 0)
    assert tokens.tolist() == [1, 1]
    assert torch.allclose(logprobs, torch.log_softmax(logits[:2], -1)[:, 1])


def test_extreme_logits_and_uniforms() -> None:
    """R12: tokens without mass are never drawn, not even by the last uniform below 1."""
    logits = torch.full((2, 600), float("-inf"))
    logits[0, 599], logits[1, :2] = 5.0, torch.tensor([0.0, -100.0])
    last = torch.tensor([1 - 2**-53] * 2, dtype=torch.float64)
    for top_p in (1.0, 0.9):
        tokens, logprobs = draw(logits, last, top_p)
        assert tokens[0] == 599 and logprobs[0] == 0
        assert tokens[1] == 0


def test_streams_belong_to_their_row() -> None:
    """R12: a stream depends on seed, prompt and generation only, and goes on where it stopped."""
    table = uniform_table(3, [(0, 0), (0, 1), (1, 0)], 50)
    assert torch.equal(uniform_table(3, [(1, 0)], 20)[0], table[2, :20])
    assert len(torch.unique(table)) == table.numel()
    assert not torch.equal(uniform_table(4, [(1, 0)], 20)[0], table[2, :20])
    wide = uniform_table(-1, [(i, 0) for i in range(200)], 100).flatten()
    assert stats.kstest(wide.numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 0.9), (0, 0.3), (0, 0.999), (3, 1.0), (5, 0.8)])
def test_what_truncation_leaves(top_k: int, top_p: float) -> None:
    """Trap 9: sampling_logprobs are of the truncated distribution: its probabilities sum to 1."""
    generator = torch.Generator().manual_seed(3)
    # Row 0 is nearly flat over 300 tokens, so that its nucleus is longer than the quick look.
    logits = torch.randn(4, 300, generator=generator) * torch.tensor([0.01, 1.0, 3.0, 8.0])[:, None]
    mass = kept_mass(logits, top_k, top_p)
    probs = torch.softmax(logits.double(), -1).sort(descending=True).values
    if top_k:
        probs = probs[:, :top_k]
    for row, expected in zip(mass, probs, strict=True):
        cut = expected.cumsum(0)
        wanted = cut[int((cut - expected < top_p * expected.sum() - 1e-12).sum()) - 1]
        assert float(row) == pytest.approx(float(wanted), rel=1e-5)
    params = SamplingParams(1, top_p=top_p, top_k=top_k)
    tokens, logprobs, sampling = Sampler(params, ())(logits, uniforms(4), 0)
    assert sampling is not None
    assert torch.allclose(logprobs - sampling, mass.log().float(), atol=1e-5)
    assert len(tokens) == 4


def test_nothing_is_cut_without_truncation() -> None:
    """Trap 9: without top-p and top-k the engine draws from what the learner computes."""
    assert Sampler(SamplingParams(1), ())(torch.zeros(2, 5), uniforms(2), 0).sampling_logprobs is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("size", [259, 4096, 49152])
@pytest.mark.parametrize("barred", [0, 9])
def test_the_kernel_draws_what_torch_draws(dtype: torch.dtype, size: int, barred: int) -> None:
    """R12, issue 3: the same uniform gives the same token and log-probability, also where ends are barred."""
    generator = torch.Generator().manual_seed(size)
    logits = (3 * torch.randn(64, size, generator=generator)).to(dtype)
    logits[:, 7] = 12.0  # the end token would often be drawn
    uniforms = torch.rand(64, dtype=torch.float64, generator=generator)
    uniforms[:2] = torch.tensor([0.0, 1 - 1e-16])
    params = SamplingParams(10, temperature=0.7, min_new_tokens=barred)
    steps = torch.arange(64) % 10  # the last of ten rows may end
    compiled = Sampler(params, {7}, kernel_dtype=dtype)
    if compiled._kernel is None:
        pytest.skip("no C compiler here")
    ours, plain = compiled(logits, uniforms, steps), Sampler(params, {7})(logits, uniforms, steps)
    assert int((ours.tokens != plain.tokens).sum()) <= 1  # one may lie on an edge
    same = ours.tokens == plain.tokens
    assert torch.allclose(ours.logprobs[same], plain.logprobs[same], atol=2e-5)
    if barred:
        assert ours.sampling_logprobs is not None and plain.sampling_logprobs is not None
        assert torch.allclose(ours.sampling_logprobs[same], plain.sampling_logprobs[same], atol=2e-5)
        assert not bool((ours.tokens[steps < 9] == 7).any())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_the_kernel_refuses_logits_that_are_not_finite(bad: float) -> None:
    """R14: a NaN or an infinity anywhere in a row stops the draw."""
    sampler = Sampler(SamplingParams(4), {7}, kernel_dtype=torch.float32)
    if sampler._kernel is None:
        pytest.skip("no C compiler here")
    for place in (0, 5, 299):
        logits = torch.randn(3, 300)
        logits[1, place] = bad
        with pytest.raises(DivergedError, match="not finite"):
            sampler(logits, torch.rand(3, dtype=torch.float64), 0)
