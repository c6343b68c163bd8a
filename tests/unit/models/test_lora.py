"""Adapters: the start is the base, the base never moves, gradients are those of base + scale · B A."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.models.tiny import PAD, random_prompts, tiny_model, tiny_tokenizer
from tests.unit.rollout.test_engine_logprobs import BOUNDS, learner_and_engine
from torch import Tensor, nn

from trimtab.config.model import LoraConfig
from trimtab.distributed.worker import Reference, WorkerSettings, exact_kl, policy_learner
from trimtab.errors import CheckpointError, ConfigError, ModelError
from trimtab.models.load import load_sequence_classifier
from trimtab.models.lora import (
    AdapterOff,
    adapter_off,
    add_adapter,
    has_adapter,
    load_trainable_state,
    merged_state,
    trainable_state,
)
from trimtab.models.save import save_model
from trimtab.rollout.engine import SamplingParams, build_engine
from trimtab.rollout.native import NativeEngine
from trimtab.trainers.objectives import Supervised
from trimtab.types import TrainBatch

pytest.importorskip("peft")
IDS = torch.tensor(random_prompts(12, 12, seed=4))


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def moved(model: Any) -> Any:
    """Give every adapter matrix random numbers, as if it had been trained."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1, generator=generator)
    return model


def batch() -> TrainBatch:
    present = torch.arange(12) < torch.tensor([[12], [9]])
    completion = present & (torch.arange(12) >= 5)
    return TrainBatch(IDS, present, completion, torch.ones(2, 12))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ["Llama", "Gemma2", "GPT2"])
def test_a_new_adapter_changes_nothing(architecture: str, dtype: torch.dtype) -> None:
    """Issue 3 (3): before the first update, and with the adapter off after it, it is the base bit for bit."""
    expected = logits(tiny_model(architecture, dtype))
    model = add_adapter(tiny_model(architecture, dtype), LoraConfig(rank=4))
    assert has_adapter(model) and not model.training
    assert torch.equal(logits(model), expected)
    moved(model)
    assert not torch.allclose(logits(model), expected, atol=0.05)
    with adapter_off(model):
        assert torch.equal(logits(model), expected)
    assert torch.equal(logits(AdapterOff(model)), expected)
    assert not torch.equal(logits(model), expected)
    assert {p.dtype for p in model.parameters()} == {dtype}


def test_a_part_of_the_base_has_the_adapter_off_too() -> None:
    """Issue 3 (3): a reference that runs the trunk by itself does not see the adapter either."""
    model = moved(add_adapter(tiny_model(), LoraConfig(rank=4)))
    base = AdapterOff(model)
    trunk = getattr(base, base.base_model_prefix)
    with torch.no_grad():
        found = model.get_output_embeddings()(trunk(input_ids=IDS, use_cache=False).last_hidden_state)
    assert torch.equal(found, logits(tiny_model()))
    assert base.dtype == torch.float32 and base.config is model.config


def test_the_same_seed_draws_the_same_adapter() -> None:
    """Issue 2 (same recipe, same weights): drawn from the seed; the global generator is left alone."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (add_adapter(tiny_model(), LoraConfig(), seed) for seed in (1, 1, 2))
    torch.manual_seed(5)
    add_adapter(one, None)
    assert torch.equal(torch.rand(3), expected)
    name = next(name for name, p in one.named_parameters() if "lora_A" in name)
    first, second, third = (dict(m.named_parameters())[name] for m in (one, same, other))
    assert torch.equal(first, second) and not torch.equal(first, third)


def test_gradients_of_the_adapter() -> None:
    """Issue 3 (3): dA = scale · Bᵀ dW, dB = scale · dW Aᵀ, with dW from a plain padded forward of W + Δ."""
    model = moved(add_adapter(tiny_model(), LoraConfig(rank=4, alpha=12.0)))
    policy_learner(model, WorkerSettings(1e-3)).forward_backward(batch(), Supervised(1.0))
    plain = tiny_model()
    plain.load_state_dict(merged_state(model))
    rows = batch()
    scores = plain(input_ids=rows.token_ids, attention_mask=rows.attention_mask.long()).logits.log_softmax(-1)
    picked = scores[:, :-1].gather(-1, rows.token_ids[:, 1:, None]).squeeze(-1)
    (-(picked * rows.completion_mask[:, 1:]).sum()).backward()
    layers = [(n, m) for n, m in model.named_modules() if hasattr(m, "lora_A") and isinstance(m, nn.Module)]
    assert len(layers) == 3 * 7
    for name, layer in layers:
        down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        dense = plain.get_submodule(name).weight.grad
        torch.testing.assert_close(down.grad, 3.0 * up.T @ dense, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(up.grad, 3.0 * dense @ down.T, atol=1e-4, rtol=1e-4)
    assert all(p.grad is None for name, p in model.named_parameters() if "lora_" not in name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_update_moves_the_policy_and_not_the_base(dtype: torch.dtype) -> None:
    """Issue 3 (3): after an update the base is the same bit for bit, and the reference says what it said."""
    model = add_adapter(tiny_model(dtype=dtype), LoraConfig(rank=4))
    settings = WorkerSettings(1e-2)
    learner, reference = policy_learner(model, settings), Reference(AdapterOff(model), settings)
    before, base = learner.logprobs(batch()), tiny_model(dtype=dtype)
    assert torch.equal(reference.logprobs(batch()), before)
    assert float(exact_kl(model, reference.model, batch(), settings).abs().max()) == 0
    learner.forward_backward(batch(), Supervised(1.0))
    assert learner.clip_gradients(1.0) > 0
    learner.optimizer_step(1e-2)
    assert not torch.allclose(learner.logprobs(batch()), before, atol=1e-3)
    assert torch.equal(reference.logprobs(batch()), before)
    with adapter_off(model):
        assert torch.equal(logits(model), logits(base))
    frozen = {n.replace(".base_layer", ""): p for n, p in model.named_parameters() if not p.requires_grad}
    assert all(torch.equal(p, frozen[name]) for name, p in base.named_parameters())


@pytest.mark.parametrize("dtype", BOUNDS, ids=["fp32", "bf16"])
def test_sampling_runs_through_the_adapter(dtype: torch.dtype) -> None:
    """Trap 17, issue 3 (3): the native engine says of an adapted model what the learner computes."""
    model, prompts = moved(add_adapter(tiny_model(dtype=dtype), LoraConfig(rank=4))), random_prompts(5, 12)
    engine = build_engine(model, tiny_tokenizer())
    assert isinstance(engine, NativeEngine)
    groups = engine.generate(prompts, 4, SamplingParams(16, temperature=0.8, seed=3))
    difference = (torch.subtract(*learner_and_engine(model, prompts, groups, 0.8))).abs()
    assert float(difference.max()) <= BOUNDS[dtype][0] and float(difference.mean()) <= BOUNDS[dtype][1]
    off, sampled = learner_and_engine(AdapterOff(model), prompts, groups, 0.8)
    assert float((off - sampled).abs().mean()) > 0.1


def test_exact_kl_of_one_module_with_itself() -> None:
    """R10, issue 3 (3): the KL between adapter on and off is that between two plain models."""
    model, settings = moved(add_adapter(tiny_model(), LoraConfig(rank=4))), WorkerSettings(1e-3)
    plain = tiny_model()
    plain.load_state_dict(merged_state(model))
    found = exact_kl(model, Reference(AdapterOff(model), settings).model, batch(), settings)
    expected = exact_kl(plain, tiny_model(), batch(), settings)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
    assert float(expected.max()) > 0.01
    assert any(p.requires_grad for p in model.parameters())


def test_a_base_that_carries_the_policy_cannot_be_replaced() -> None:
    """Issue 3 (3): refreshing the reference is refused in one sentence."""
    model = add_adapter(tiny_model(), LoraConfig())
    with pytest.raises(ConfigError, match=r"rl\.reference_refresh_steps to 0"):
        Reference(AdapterOff(model), WorkerSettings(1e-3)).refresh(model)


@pytest.mark.parametrize("architecture", ["Llama", "GPT2"])
def test_merged_weights_answer_like_the_adapter(architecture: str, tmp_path: Path) -> None:
    """R3: what is saved loads in plain transformers and answers the same; peft reads the adapter alone."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = tiny_model(architecture)
    save_model(base, tiny_tokenizer(), tmp_path / "base")
    model = moved(add_adapter(tiny_model(architecture), LoraConfig(rank=4)))
    before = logits(model)
    for _ in range(2):  # the second one replaces the first
        save_model(model, tiny_tokenizer(), tmp_path / "policy", keep_adapter=True)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "policy").eval()
    assert not has_adapter(plain)
    torch.testing.assert_close(logits(plain), before, atol=1e-4, rtol=1e-4)
    start = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    adapted = PeftModel.from_pretrained(start, str(tmp_path / "policy" / "adapter")).eval()
    torch.testing.assert_close(logits(adapted), before, atol=1e-4, rtol=1e-4)
    assert torch.equal(logits(model), before)
    save_model(base, tiny_tokenizer(), tmp_path / "policy")
    assert not (tmp_path / "policy" / "adapter").exists()


def test_a_reward_model_keeps_its_head_trainable(tmp_path: Path) -> None:
    """R4, issue 3 (3): the trunk gets the adapter, the new score head learns in full, and both are saved."""
    save_model(tiny_model(), tiny_tokenizer(), tmp_path / "base")
    model = load_sequence_classifier(tmp_path / "base", pad_token_id=PAD, dtype="float32", device="cpu")
    moved(add_adapter(model, LoraConfig(rank=4)))
    assert model.score.weight.requires_grad and not hasattr(model.score, "lora_A")
    save_model(model, tiny_tokenizer(), tmp_path / "rm")
    again = load_sequence_classifier(tmp_path / "rm", pad_token_id=PAD, dtype="float32", device="cpu")
    torch.testing.assert_close(logits(again), logits(model), atol=1e-4, rtol=1e-4)


def test_only_what_is_trained_is_kept() -> None:
    """Issue 3 (3): a checkpoint holds the adapter without the frozen base, and refuses another's."""
    model = moved(add_adapter(tiny_model(), LoraConfig(rank=4)))
    state = {name: value.clone() for name, value in trainable_state(model).items()}
    assert state and all(".lora_" in name for name in state)
    fresh = add_adapter(tiny_model(), LoraConfig(rank=4), seed=3)
    load_trainable_state(fresh, state)
    assert torch.equal(logits(fresh), logits(model))
    with pytest.raises(CheckpointError, match="does not match"):
        load_trainable_state(fresh, dict(list(state.items())[1:]))
    with pytest.raises(CheckpointError, match="size mismatch"):
        load_trainable_state(add_adapter(tiny_model(), LoraConfig(rank=2)), state)
    assert trainable_state(tiny_model()).keys() == tiny_model().state_dict().keys()


@pytest.mark.parametrize(
    ("target", "words"),
    [("q_prj", r"names no linear layer \(did you mean 'q_proj'\?\)"), ("lm_head", "is the model's head")],
)
def test_targets_that_cannot_be(target: str, words: str) -> None:
    """Issue 2: a wrong target is one sentence that names the nearest layer."""
    with pytest.raises(ConfigError, match=words):
        add_adapter(tiny_model(), LoraConfig(target_modules=[target]))


def test_targets_by_name() -> None:
    """Issue 3 (3): only the named layers get an adapter; all others stay as they are."""
    model = add_adapter(tiny_model(), LoraConfig(target_modules=["q_proj", "self_attn.v_proj"]))
    adapted = {name.rsplit(".", 1)[-1] for name, m in model.named_modules() if hasattr(m, "lora_A")}
    assert adapted == {"q_proj", "v_proj"}


def test_peft_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 2: a missing library is one sentence with the command that installs it."""
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModelError, match=r"pip install 'trimtab\[peft\]'"):
        add_adapter(tiny_model(), LoraConfig())
