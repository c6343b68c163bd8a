"""On a CUDA device: the Triton cache, captured graphs and the packed pass say what plain torch says."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from tests.unit.models.test_kv_caches import ROOM
from tests.unit.models.tiny import random_prompts, tiny_model, tiny_tokenizer
from torch import Tensor

from trimtab.models.attention import ScoreRule
from trimtab.models.kv_context import PromptSpans
from trimtab.models.kv_rows import RowState
from trimtab.models.kv_torch import TorchCache
from trimtab.rollout.engine import SamplingParams
from trimtab.rollout.native import NativeEngine, compiled_cache

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


def outputs(kind: object, shape: tuple[int, int, int], dtype: torch.dtype, rule: ScoreRule) -> list[Tensor]:
    """Forty steps of five rows over two prompts; a row rests and restarts, the batch shrinks."""
    heads, group, size = shape
    generator = torch.Generator().manual_seed(1)
    cache = kind(RowState(ROOM, "cuda"))  # type: ignore[operator]
    for slot, length in enumerate((21, 6)):
        cache.state.prompt_lengths[slot] = length
        keys, values = torch.randn(2, heads, length, size, generator=generator).to("cuda", dtype)
        cache.write_prompts(0, PromptSpans([slot], [length], "cuda"), keys, values)
    cache.state.start(torch.tensor([0, 1, 3], device="cuda"), 0)
    cache.state.start(torch.tensor([2, 4], device="cuda"), 1)
    cache.arrange()
    found = []
    for step in range(ROOM.new_tokens):
        if step == 9:
            cache.state.stop(torch.tensor([1], device="cuda"))
        if step == 12:
            cache.state.start(torch.tensor([1], device="cuda"), 1)
            cache.arrange()
        if step == 30:
            kept = torch.tensor([0, 2, 3], device="cuda")
            cache.keep(kept)
            cache.state.keep(kept)
            cache.arrange()
        draw = torch.randn(5, heads * (group + 2), 1, size, generator=generator).to("cuda", dtype)
        new = draw[: cache.state.num_rows].split((heads * group, heads, heads), dim=1)
        output = cache.attend(0, *new, rule)
        found.append(output[cache.state.is_running.bool()].float())
        cache.state.advance()
        cache.stepped()
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("shape", [(3, 3, 64), (1, 6, 32), (2, 1, 16), (2, 7, 128)])
@pytest.mark.parametrize("limits", [{}, {"softcap": 2.0}, {"window": 9}], ids=["plain", "cap", "window"])
def test_the_triton_cache_attends_like_torch(
    shape: tuple[int, int, int], dtype: torch.dtype, limits: dict[str, float]
) -> None:
    """Issue 3, trap 17."""
    rule = ScoreRule(shape[2] ** -0.5, **limits)  # type: ignore[arg-type]
    ours = outputs(compiled_cache, shape, dtype, rule)
    plain = outputs(TorchCache, shape, dtype, rule)
    tolerance = 1e-5 if dtype == torch.float32 else 0.03
    for step, (one, other) in enumerate(zip(ours, plain, strict=True)):
        assert torch.allclose(one, other, atol=tolerance, rtol=0), step


def test_graphs_change_nothing_and_see_new_weights() -> None:
    """Issue 3: the same tokens with and without graphs, call after call, also after an update in place."""
    model, prompts = tiny_model("Qwen3").cuda(), random_prompts(5, 12, 9)
    ends = frozenset(range(0, 259, 16))
    graphs = NativeEngine(model, tiny_tokenizer(), ends, cache="kernel")
    eager = NativeEngine(model, tiny_tokenizer(), ends, cache="kernel", cuda_graphs=False)
    for seed, size in ((1, 4), (2, 4), (3, 2)):
        params = SamplingParams(24, temperature=0.8, seed=seed)
        one = list(chain(*graphs.generate(prompts, size, params)))
        other = list(chain(*eager.generate(prompts, size, params)))
        assert [c.token_ids for c in one] == [c.token_ids for c in other]
        for a, b in zip(one, other, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
        with torch.no_grad():
            model.model.layers[0].self_attn.q_proj.weight.mul_(1.1)
