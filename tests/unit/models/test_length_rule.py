"""Rows whose lengths choose other rotary frequencies: each is what it is alone in plain transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from benchmarks.families import forget_lengths, make_batch, plain_logprobs
from tests.unit.models.tiny import VOCABULARY, tiny_tokenizer
from torch import Tensor

from trimtab.distributed.passes import PolicyPass, WorkerSettings
from trimtab.distributed.worker import policy_learner
from trimtab.models.forward import trunk_hidden
from trimtab.models.length_rule import LengthRule, length_rule
from trimtab.models.row_parts import row_parts
from trimtab.rollout.engine import SamplingParams, build_engine

BORDER = 24
_SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
_SHAPE = {**_SIZES, "num_key_value_heads": 2, "vocab_size": VOCABULARY, "pad_token_id": 0, "eos_token_id": 2}
ROPES: dict[str, tuple[str, dict[str, Any], int]] = {
    "longrope": (
        "Phi3",
        {
            "rope_type": "longrope",
            "short_factor": [1.0] * 4,
            "long_factor": [4.0, 6.0, 8.0, 9.0],
            "original_max_position_embeddings": BORDER,
            "rope_theta": 10000.0,
        },
        256,
    ),
    "dynamic": ("Llama", {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}, BORDER),
}


def pair(kind: str) -> tuple[Any, Any]:
    """Two equal models: ours, and one that stays untouched."""
    architecture, rope, context = ROPES[kind]
    found = []
    for implementation in ("trimtab", "sdpa"):
        config = getattr(transformers, f"{architecture}Config")(
            **_SHAPE, rope_parameters=dict(rope), max_position_embeddings=context
        )
        if kind == "longrope":
            config.original_max_position_embeddings = BORDER
        from trimtab.models.attention import register

        register()
        config._attn_implementation = implementation
        torch.manual_seed(0)
        model = getattr(transformers, f"{architecture}ForCausalLM")(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim >= 2:
                    parameter.normal_(std=0.2)
        found.append(model)
    return found[0], found[1]


def rows() -> list[tuple[list[int], list[int]]]:
    """On both sides of the border: 14, 24, 25, 26, 40 and 50 tokens."""
    generator = torch.Generator().manual_seed(3)
    sizes = [(8, 6), (10, 14), (10, 15), (20, 6), (30, 10), (42, 8)]
    return [
        tuple(torch.randint(3, VOCABULARY, (n,), generator=generator).tolist() for n in size)  # type: ignore[misc]
        for size in sizes
    ]


def worst(found: Tensor, batch: Any, plain: Any) -> float:
    right = torch.cat([plain_logprobs(plain, row) for row in rows()])
    return float((found[batch.completion_mask] - right).abs().max())


def test_which_lengths_run_together() -> None:
    rule = LengthRule((32,), ())
    assert rule.key(32) == (0,) and rule.key(33) == rule.key(99) == (1,)
    assert rule.crosses(30, 33) and not rule.crosses(10, 32) and not rule.crosses(33, 99)
    grows = LengthRule((), (32,))
    assert grows.key(3) == grows.key(32) == (0,) and grows.key(34) == (2,) and grows.crosses(33, 34)


def test_the_rule_is_read_off_the_config() -> None:
    assert length_rule(pair("longrope")[0]) == LengthRule((BORDER,), ())
    assert length_rule(pair("dynamic")[0]) == LengthRule((), (BORDER,))
    for kind in ("default", "linear", "yarn", "llama3"):
        config = transformers.LlamaConfig(**_SHAPE)
        config.rope_parameters = {"rope_type": kind, "rope_theta": 1e4}
        assert length_rule(type("M", (), {"config": config})) is None
    layers = {"full_attention": {"rope_type": "dynamic"}, "sliding_attention": {"rope_type": "default"}}
    config = transformers.Gemma3TextConfig(max_position_embeddings=77)
    config.rope_parameters = layers
    assert length_rule(type("M", (), {"config": config})) == LengthRule((), (77,))


def test_parts_by_hand() -> None:
    """Left padding moves to the right; unequal keys part; what may stay is left as it is."""
    left = torch.tensor([[0, 1, 1], [1, 1, 1]]).bool()
    (part,) = row_parts(left, None) or []
    assert part.columns.tolist() == [[1, 2, 0], [0, 1, 2]]
    right = torch.tensor([[1, 0, 0], [1, 1, 1]]).bool()
    assert row_parts(right, None) is None and row_parts(right, LengthRule((3,), ())) is None
    short, long = row_parts(right, LengthRule((2,), ())) or []
    assert short.columns.tolist() == [[0]] and long.columns.tolist() == [[0, 1, 2]]
    # Padding counts as length in transformers: a batch wider than its rows is cut.
    (cut,) = row_parts(torch.tensor([[1, 1, 0]]).bool(), LengthRule((2,), ())) or []
    assert cut.columns.tolist() == [[0, 1]]
    assert row_parts(torch.tensor([[1, 0, 1]]).bool(), None) is None


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("packing", [True, False], ids=["packing", "padded"])
@pytest.mark.parametrize("kind", ROPES)
def test_a_row_does_not_depend_on_its_company(kind: str, packing: bool, side: str) -> None:
    model, plain = pair(kind)
    learner = policy_learner(model, WorkerSettings(learning_rate=1e-4, packing=packing))
    batch = make_batch(rows(), side)
    for _ in range(2):  # nothing is remembered from one batch to the next
        assert worst(learner.logprobs(batch), batch, plain) < 1e-5


@pytest.mark.parametrize("kind", ROPES)
def test_gradients_are_those_of_the_rows_alone(kind: str) -> None:
    model, plain = pair(kind)
    batch = make_batch(rows())
    PolicyPass(model, WorkerSettings(learning_rate=1e-4)).scores(batch).logprobs.sum().backward()
    for row in rows():
        plain_logprobs(plain, row, with_gradient=True).sum().backward()
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-4 * float(other.grad.abs().max()))


@pytest.mark.parametrize("kind", ROPES)
def test_hidden_states_of_a_trunk(kind: str) -> None:
    model, plain = pair(kind)
    batch = make_batch(rows(), "left")
    found = trunk_hidden(model.model, batch.token_ids, batch.attention_mask)
    for number, (prompt, completion) in enumerate(rows()):
        forget_lengths(plain)
        alone = plain.model(torch.tensor([prompt + completion])).last_hidden_state[0]
        torch.testing.assert_close(found[number][batch.attention_mask[number]], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("engine", ["native", "generate"])
def test_the_engine_says_what_the_learner_says(engine: str) -> None:
    """Short prompts, long ones, and one whose completion grows over the border."""
    from trimtab.config.rollout import RolloutConfig

    model, plain = pair("longrope")
    sampler = build_engine(model, tiny_tokenizer(), RolloutConfig(engine=engine))  # type: ignore[arg-type]
    prompts = [rows()[index][0] for index in (0, 4, 3)]  # 8, 30 and 20 tokens; 10 new ones
    params = SamplingParams(max_new_tokens=10, min_new_tokens=10, seed=5)
    groups = sampler.generate(prompts, 2, params)
    for prompt, group in zip(prompts, groups, strict=True):
        for completion in group:
            right = plain_logprobs(plain, (prompt, list(completion.token_ids)))
            assert float((right - torch.tensor(completion.logprobs)).abs().max()) < 1e-5
    # Company changes no text: neither that of other prompts nor their order.
    alone = [sampler.generate([prompts[0]], 2, params)[0], groups[0]]
    assert alone[0] == alone[1]
    # What crosses was drawn from another distribution than the row has, and that one is kept.
    assert all(c.sampling_logprobs and c.sampling_logprobs != c.logprobs for c in groups[2])
    if engine == "generate":  # the cache of transformers 5.3 is not the row's
        return
    full = SamplingParams(max_new_tokens=10, seed=5)
    assert all(not c.sampling_logprobs for group in sampler.generate(prompts[:2], 2, full) for c in group)
