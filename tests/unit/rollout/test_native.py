"""The native engine: groups, departures, stops, seeds, and the traces that it must not leave."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from tests.unit.models.tiny import ARCHITECTURES, EOS, PAD, random_prompts, tiny_model, tiny_tokenizer
from transformers import GenerationConfig

from trimtab.errors import DivergedError, RolloutError
from trimtab.rollout.engine import SamplingParams, build_engine
from trimtab.rollout.generate_engine import GenerateEngine
from trimtab.rollout.memory import Limits
from trimtab.rollout.native import NativeEngine
from trimtab.rollout.self_test import find_fault
from trimtab.types import Completion

TOKENIZER = tiny_tokenizer()


def engine_of(model: object, eos: frozenset[int] = frozenset({EOS}), **options: object) -> NativeEngine:
    return NativeEngine(model, TOKENIZER, eos, **options)  # type: ignore[arg-type]


def ids_of(groups: list[list[Completion]]) -> list[list[tuple[int, ...]]]:
    return [[c.token_ids for c in group] for group in groups]


@pytest.mark.parametrize("architecture", ["Llama", "Mistral", "Gemma2", "GPT2"])
def test_group_sharing_equals_separate_prompts(architecture: str) -> None:
    """R12: one prefill for a group gives what a prefill for every row gives."""
    model, (prompt,) = tiny_model(architecture), random_prompts(11)
    params = SamplingParams(15, greedy=True)
    (shared,) = engine_of(model).generate([prompt], 3, params)
    separate = engine_of(model, limits=Limits(1)).generate([prompt], 3, params)[0]
    for one, other in zip(shared, separate, strict=True):
        assert one.token_ids == other.token_ids
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_equals_generate(architecture: str) -> None:
    """R12: greedy tokens are those of transformers' own loop with its own attention and cache."""
    prompts = random_prompts(6, 13)
    ours = engine_of(tiny_model(architecture)).generate(prompts, 1, SamplingParams(16, greedy=True))
    plain = tiny_model(architecture, attention="eager")
    plain.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=16, eos_token_id=EOS, pad_token_id=PAD
    )
    for prompt, (completion,) in zip(prompts, ours, strict=True):
        theirs = plain.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)))
        assert list(completion.token_ids) == theirs[0, len(prompt) :].tolist()


def test_rows_that_leave_do_not_change_the_others() -> None:
    """R12: with many end tokens rows leave all the time; what remains is a prefix of the run without ends."""
    model, prompts = tiny_model(), random_prompts(4, 9, 7)
    ends = frozenset(range(0, 259, 12))
    free = engine_of(model, frozenset()).generate(prompts, 8, SamplingParams(40, seed=2))
    stopped = engine_of(model, ends).generate(prompts, 8, SamplingParams(40, seed=2))
    lengths = set()
    for group, other in zip(free, stopped, strict=True):
        for long, short in zip(group, other, strict=True):
            n = len(short.token_ids)
            lengths.add(n)
            assert short.token_ids == long.token_ids[:n]
            assert short.logprobs == pytest.approx(long.logprobs[:n], abs=1e-5)
            is_ended = short.token_ids[-1] in ends
            assert short.finish_reason == ("stop" if is_ended else "length") and (is_ended or n == 40)
            assert not set(short.token_ids[:-1]) & ends
    assert len(lengths) > 8


@pytest.mark.parametrize("max_rows", [1, 3, 4, 10])
def test_same_seed_same_text_whatever_the_batches(max_rows: int) -> None:
    """R12: row g of prompt p draws from its own stream, however rows are put together."""
    model, prompts = tiny_model("Qwen3"), random_prompts(5, 12, 9)
    params = SamplingParams(12, temperature=1.2, top_p=0.9, seed=7)
    whole = engine_of(model).generate(prompts, 4, params)
    assert ids_of(engine_of(model, limits=Limits(max_rows)).generate(prompts, 4, params)) == ids_of(whole)
    assert ids_of(engine_of(model).generate(prompts, 2, params)) == [group[:2] for group in ids_of(whole)]
    shorter = SamplingParams(6, temperature=1.2, top_p=0.9, seed=7)
    assert ids_of(engine_of(model).generate(prompts[:2], 4, shorter)) == [
        [ids[:6] for ids in group] for group in ids_of(whole)[:2]
    ]
    other = SamplingParams(12, temperature=1.2, top_p=0.9, seed=8)
    assert ids_of(engine_of(model).generate(prompts, 4, other)) != ids_of(whole)


def test_prompt_slots_are_used_again() -> None:
    """Issue 3: twenty prompts through five slots and four rows: every completion comes, as without limits."""
    model, prompts = tiny_model("Qwen3"), random_prompts(*range(4, 24))
    params = SamplingParams(9, seed=3)
    ends = frozenset(range(0, 259, 9))
    narrow = engine_of(model, ends, limits=Limits(4)).generate(prompts, 3, params)
    assert ids_of(narrow) == ids_of(engine_of(model, ends).generate(prompts, 3, params))
    assert all(ids for group in ids_of(narrow) for ids in group)


def test_end_token_is_part_of_the_completion() -> None:
    """Trap 13: the end token closes the ids and has a log-probability; it is not in the text."""
    model, prompts = tiny_model(), random_prompts(5, 5)
    ends = frozenset(range(100, 259))
    found = list(chain(*engine_of(model, ends).generate(prompts, 8, SamplingParams(30))))
    assert all(c.finish_reason == "stop" and c.token_ids[-1] in ends for c in found)
    assert all(len(c.logprobs) == len(c.token_ids) for c in found)
    model.lm_head.weight.data[EOS] = model.lm_head.weight.data[50]
    model.lm_head.weight.data[EOS] *= 50  # the end token now is either certain or impossible
    (c,) = engine_of(model).generate(random_prompts(5), 1, SamplingParams(30, greedy=True))[0]
    assert TOKENIZER.eos_token not in c.text


def test_min_new_tokens_bars_the_end() -> None:
    """R12: no end token before min_new_tokens."""
    ends = frozenset(range(100, 259))
    params = SamplingParams(20, min_new_tokens=8)
    for c in chain(*engine_of(tiny_model(), ends).generate(random_prompts(5), 8, params)):
        assert len(c.token_ids) >= 9 or not set(c.token_ids) & ends
        assert not set(c.token_ids[:8]) & ends


def test_stop_strings_cut_the_text_but_not_the_ids() -> None:
    """R12, trap 12: the text ends before the stop string; ids stay as sampled up to the completing token."""
    model, prompts = tiny_model(), random_prompts(5, 8)
    engine = engine_of(model, frozenset())
    free = list(chain(*engine.generate(prompts, 4, SamplingParams(30))))
    stop = free[0].text[10:12]
    assert stop in free[0].text
    cut = list(chain(*engine.generate(prompts, 4, SamplingParams(30, stop=(stop, "?!")))))
    assert cut[0].finish_reason == "stop" and cut[0].text == free[0].text.split(stop)[0]
    for short, long in zip(cut, free, strict=True):
        assert short.token_ids == long.token_ids[: len(short.token_ids)]
        assert stop not in short.text
        text = TOKENIZER.decode(short.token_ids)
        assert (stop in text) == (short.finish_reason == "stop")
        assert stop not in TOKENIZER.decode(short.token_ids[:-1])


def test_training_state_is_left_alone() -> None:
    """Trap 8: dropout is off while sampling, every mode flag comes back, and gradients still flow."""
    model = tiny_model("GPT2", attention="sdpa")
    model.train()
    model.transformer.h[1].eval()
    before = [module.training for module in model.modules()]
    state = {name: p.clone() for name, p in model.named_parameters()}
    rng = torch.get_rng_state()
    engine = engine_of(model)
    params = SamplingParams(8, seed=1)
    assert ids_of(engine.generate(random_prompts(5), 2, params)) == ids_of(
        engine.generate(random_prompts(5), 2, params)
    )
    assert [module.training for module in model.modules()] == before
    assert model.config._attn_implementation == "sdpa"
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(p, state[name]) and p.requires_grad for name, p in model.named_parameters())
    model(torch.tensor(random_prompts(5))).logits.sum().backward()
    assert not model._forward_pre_hooks and not model.lm_head._forward_pre_hooks


def test_a_prompt_far_beyond_the_window() -> None:
    """R12: sliding windows cut the shared prompt while decoding; sampling goes on for several windows."""
    for architecture in ("Mistral", "Gemma2", "Gemma3Text"):
        model, prompts = tiny_model(architecture), random_prompts(30, 3)
        native = engine_of(model).generate(prompts, 2, SamplingParams(25, greedy=True))
        slow = GenerateEngine(model, TOKENIZER, frozenset({EOS}), PAD).generate(
            prompts, 2, SamplingParams(25, greedy=True)
        )
        assert ids_of(native) == ids_of(slow)


def test_version_and_weights() -> None:
    """R12: completions carry the policy version; published weights are the ones sampled from."""
    one, other, prompts = tiny_model(seed=0), tiny_model(seed=1), random_prompts(5)
    engine, params = engine_of(one), SamplingParams(8, greedy=True)
    assert engine.generate(prompts, 1, params)[0][0].policy_version == 0
    engine.load_weights(other.state_dict(), 3)
    found = engine.generate(prompts, 1, params)
    assert found[0][0].policy_version == 3 and ids_of(found) == ids_of(
        engine_of(other).generate(prompts, 1, params)
    )
    engine.load_weights(None, 4)
    assert engine.policy_version == 4 and ids_of(engine.generate(prompts, 1, params)) == ids_of(found)


@pytest.mark.parametrize("fault", ["backend", "layers", "wrong"])
def test_unsupported_architecture_falls_back(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """R12: no seam, unknown layers, or logits that differ: one warning, and generate serves."""
    model, prompts = tiny_model("Qwen2"), random_prompts(5, 7)
    expected = engine_of(model).generate(prompts, 2, SamplingParams(6, seed=4))
    if fault == "backend":
        monkeypatch.setattr(type(model), "_supports_attention_backend", False)
    elif fault == "layers":
        model.config.layer_types = ["full_attention", "linear_attention", "full_attention"]
    else:
        monkeypatch.setattr("trimtab.models.kv_rows.RowState.positions", torch.tensor([1, 1, 1]))
    if fault == "layers":  # no module runs with layers that it does not have: only the reason is asked
        assert find_fault(model) == "it has layers of type linear_attention"
        return
    with pytest.warns(UserWarning, match="cannot sample natively") as caught:
        engine = build_engine(model, TOKENIZER)
    assert isinstance(engine, GenerateEngine) and len(caught) == 1
    assert ids_of(engine.generate(prompts, 2, SamplingParams(6, seed=4))) == ids_of(expected)


def test_bad_requests_are_refused_in_a_sentence() -> None:
    """R12: empty prompts, too long ones, impossible parameters and sick models are named."""
    engine = engine_of(tiny_model())
    with pytest.raises(RolloutError, match="prompt 1 is empty"):
        engine.generate([[5], []], 2, SamplingParams(4))
    with pytest.raises(RolloutError, match="exceeds the model's 256 positions"):
        engine.generate(random_prompts(250), 1, SamplingParams(7))
    with pytest.raises(RolloutError, match="num_generations"):
        engine.generate(random_prompts(5), 0, SamplingParams(7))
    for wrong in (
        {"temperature": -1.0},
        {"top_p": 0.0},
        {"top_k": -1},
        {"stop": ("",)},
        {"min_new_tokens": 9},
    ):
        with pytest.raises(RolloutError, match=next(iter(wrong))):
            SamplingParams(4, **wrong)  # type: ignore[arg-type]
    with torch.no_grad():
        engine.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(DivergedError, match="not finite"):
        engine.generate(random_prompts(5), 2, SamplingParams(4))
