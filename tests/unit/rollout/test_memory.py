"""The running batch keeps to its memory."""

from __future__ import annotations

import pytest
import torch
from tests.unit.models.tiny import random_prompts, tiny_model, tiny_tokenizer

from trimtab.errors import RolloutError
from trimtab.rollout import native
from trimtab.rollout.engine import SamplingParams
from trimtab.rollout.memory import GIB, Limits, plan_room, token_bytes
from trimtab.rollout.native import NativeEngine


def test_a_token_costs_what_its_keys_and_values_take() -> None:
    """Issue 3: 2 · layers · key heads · head size · bytes: 2 · 3 · 2 · 16 · 4 for the tiny Qwen3."""
    assert token_bytes(tiny_model("Qwen3")) == 768
    assert token_bytes(tiny_model("Qwen3", torch.bfloat16)) == 384


def test_rows_follow_the_budget() -> None:
    """Issue 3: room for rows of 32 tokens and two prompts of 16 per full group; a byte less takes a row."""
    model = tiny_model("Qwen3")
    budget = (8 * 32 + 5 * 16) * 768 / GIB  # eight rows in groups of four: two groups, five slots at most
    lengths = [9] * 10
    assert plan_room(model, lengths, 4, 20, Limits(256, budget)).rows == 8
    assert plan_room(model, lengths, 4, 20, Limits(256, budget * 0.999)).rows == 7
    assert plan_room(model, lengths, 4, 20, Limits(3, budget)).rows == 3


def test_a_prompt_that_cannot_fit_is_named() -> None:
    """Issue 3: one sentence that says which prompt, how much it needs and what to change."""
    engine = NativeEngine(
        tiny_model("Qwen3"), tiny_tokenizer(), frozenset({2}), limits=Limits(kv_memory_gb=20e-6)
    )
    with pytest.raises(RolloutError, match=r"prompt 1 has 9 tokens .*kv_memory_gb = 2e-05; raise it or"):
        engine.generate(random_prompts(4, 9), 2, SamplingParams(40))


def test_the_cache_stays_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 3: what the cache allocates for many prompts is within the budget, and every completion comes."""
    caches = []

    class Watched(native.TorchCache):
        def __init__(self, state: object) -> None:
            super().__init__(state)  # type: ignore[arg-type]
            caches.append(self)

    monkeypatch.setitem(native.CACHES, "torch", Watched)
    model, budget = tiny_model("Qwen3"), 200_000
    engine = NativeEngine(
        model, tiny_tokenizer(), frozenset(range(0, 259, 9)), limits=Limits(kv_memory_gb=budget / GIB)
    )
    groups = engine.generate(random_prompts(*range(4, 24)), 3, SamplingParams(20, seed=1))
    assert len(groups) == 20 and all(len(group) == 3 for group in groups)
    (cache,) = caches
    stores = [*cache._stores.prompts.values(), *cache._stores.own.values()]
    used = sum(x.untyped_storage().nbytes() for pair in stores for x in pair)
    assert 0 < used <= budget
