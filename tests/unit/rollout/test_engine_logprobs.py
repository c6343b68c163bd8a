"""The engine says what the learner computes, for every architecture; ``pytest -s`` prints the table."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from tests.unit.models.tiny import ARCHITECTURES, random_prompts, tiny_model, tiny_tokenizer
from torch import Tensor

from trimtab.models.forward import token_scores
from trimtab.rollout.engine import SamplingParams, build_engine
from trimtab.rollout.generate_engine import GenerateEngine
from trimtab.rollout.native import NativeEngine
from trimtab.types import Completion

# Measured on these models: fp32 3e-6 at most. bf16 0.07 at most and 0.012 on average over tokens whose
# log-probabilities are around 5: two of bf16's rounding steps in the logits.
BOUNDS = {torch.float32: (1e-5, 2e-6), torch.bfloat16: (0.15, 0.03)}


def learner_and_engine(
    model: object, prompts: list[list[int]], groups: list[list[Completion]], temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of all completion tokens, flat: the learner's, the engine's."""
    rows = [(prompt, c) for prompt, group in zip(prompts, groups, strict=True) for c in group]
    width = max(len(prompt) + len(c.token_ids) for prompt, c in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    completion_mask = torch.zeros(len(rows), width, dtype=torch.bool)
    attention_mask = completion_mask.clone()
    for i, (prompt, c) in enumerate(rows):
        end = len(prompt) + len(c.token_ids)
        ids[i, :end] = torch.tensor([*prompt, *c.token_ids])
        attention_mask[i, :end] = True
        completion_mask[i, len(prompt) : end] = True
    with torch.no_grad():
        scores = token_scores(model, ids, attention_mask, completion_mask, temperature=temperature)
    engine = torch.tensor([lp for _, c in rows for lp in c.logprobs])
    return scores.logprobs[completion_mask], engine


@pytest.mark.parametrize("dtype", BOUNDS, ids=["fp32", "bf16"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_engine_and_learner_agree(architecture: str, dtype: torch.dtype) -> None:
    """Trap 17, R12: same weights, same log-probabilities, with groups, ragged prompts and departures."""
    model, prompts = tiny_model(architecture, dtype), random_prompts(5, 12, 9)
    engine = build_engine(model, tiny_tokenizer())
    assert isinstance(engine, NativeEngine)
    engine.eos_ids = frozenset(range(0, 259, 16))  # so that rows leave at all times
    groups = engine.generate(prompts, 4, SamplingParams(24, temperature=0.8, seed=3))
    assert len({len(c.token_ids) for group in groups for c in group}) > 1
    learner, sampled = learner_and_engine(model, prompts, groups, 0.8)
    difference = (learner - sampled).abs()
    largest, mean = float(difference.max()), float(difference.mean())
    name = str(dtype).removeprefix("torch.")
    print(
        f"\n| {architecture:10} | {name:8} | {len(sampled):4} tokens | max {largest:.1e} | mean {mean:.1e} |"
    )
    assert largest <= BOUNDS[dtype][0] and mean <= BOUNDS[dtype][1]


@pytest.mark.parametrize(
    "truncation", [{"top_p": 0.7}, {"top_k": 5}, {"min_new_tokens": 3}, {"greedy": True}]
)
def test_truncation_does_not_change_what_is_reported(truncation: dict[str, float]) -> None:
    """Trap 9: log-probabilities are of the full temperature-scaled distribution, whatever could be drawn."""
    model, prompts = tiny_model(), random_prompts(6, 4)
    engine = NativeEngine(model, tiny_tokenizer(), frozenset({2}))
    params = SamplingParams(10, temperature=1.3, **truncation)  # type: ignore[arg-type]
    learner, sampled = learner_and_engine(model, prompts, engine.generate(prompts, 3, params), 1.3)
    assert torch.allclose(learner, sampled, atol=1e-5)


def test_generate_engine_agrees_with_native() -> None:
    """R12, trap 17: the fall-back draws the same tokens and reports the same log-probabilities."""
    model, prompts, tokenizer = tiny_model("Qwen3"), random_prompts(5, 12, 9), tiny_tokenizer()
    params = SamplingParams(12, temperature=0.9, top_p=0.95, seed=5, stop=("a",))
    native = NativeEngine(model, tokenizer, frozenset({2, 40})).generate(prompts, 3, params)
    slow = GenerateEngine(model, tokenizer, frozenset({2, 40}), 0).generate(prompts, 3, params)
    for one, other in zip(chain(*native), chain(*slow), strict=True):
        assert (one.token_ids, one.text, one.finish_reason) == (
            other.token_ids,
            other.text,
            other.finish_reason,
        )
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_a_detached_cache_would_be_seen() -> None:
    """Trap 17: the comparison has teeth: weights changed behind the engine's back are noticed."""
    model, prompts = tiny_model(), random_prompts(5)
    groups = NativeEngine(model, tiny_tokenizer(), frozenset({2})).generate(prompts, 2, SamplingParams(8))
    with torch.no_grad():
        model.model.layers[1].self_attn.k_proj.weight.mul_(1.01)
    learner, sampled = learner_and_engine(model, prompts, groups, 1.0)
    assert float((learner - sampled).abs().max()) > 1e-4
