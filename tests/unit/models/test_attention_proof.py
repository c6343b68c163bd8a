"""What is proved of a model's attention when it is loaded, and what is found when it is wrong."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tests.unit.models.tiny import tiny_model, tiny_tokenizer
from torch import Tensor, nn

import trimtab.models.attention as attention
from trimtab.config.model import ModelConfig
from trimtab.errors import ModelError
from trimtab.models.attention_proof import proof_of, settle_attention
from trimtab.models.load import load_causal_lm
from trimtab.models.packed_forward import find_leak, find_packing_fault


def plain(architecture: str = "Llama", dtype: torch.dtype = torch.float32) -> Any:
    """A model with the attention that transformers would give it."""
    kind = {"GPT2": "GPT2LMHeadModel"}.get(architecture, f"{architecture}ForCausalLM")
    own = "sdpa" if getattr(transformers, kind)._supports_sdpa else "eager"  # 5.24: no soft cap in sdpa
    return tiny_model(architecture, dtype, attention=own)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("architecture", ["Llama", "Mistral", "Gemma2", "GPT2"])
def test_ours_is_proved(architecture: str, dtype: torch.dtype) -> None:
    model = plain(architecture, dtype)
    own = model.config._attn_implementation
    proof = settle_attention(model, "trimtab")
    assert (proof.in_use, proof.cause, proof.own) == ("trimtab", None, own)
    assert proof_of(model) == proof and model.config._attn_implementation == "trimtab"


@pytest.mark.parametrize("scale", [1.0, 1e-3], ids=["wide", "tiny"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_an_attention_that_sees_the_future_is_found(
    dtype: torch.dtype, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However small the weights are: the family's own is kept, and why is said."""
    from torch.nn.functional import scaled_dot_product_attention

    def blind(module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Any, **_: Any) -> Any:
        return scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2), None

    model = plain(dtype=dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter *= scale
    monkeypatch.setattr(attention, "trimtab_attention", blind)
    attention.register()
    try:
        proof = settle_attention(model, "trimtab")
    finally:
        monkeypatch.undo()
        attention.register()
    assert proof.cause is not None and proof.in_use == "sdpa"
    assert model.config._attn_implementation == "sdpa"
    assert "transformers' generate samples, which is slower" in proof.sentence


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_family_that_sees_the_future_is_refused(dtype: torch.dtype) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    config = transformers.BertConfig(vocab_size=99, **sizes)  # no decoder: it looks both ways
    model = transformers.BertLMHeadModel(config).to(dtype).eval()
    with pytest.raises(ModelError, match=r"is no causal language model.*is_decoder = true"):
        settle_attention(model, "trimtab")
    config.is_decoder = True
    assert settle_attention(transformers.BertLMHeadModel(config).to(dtype).eval(), "trimtab").cause is None


def test_the_probe_leaves_no_trace(tmp_path: Path) -> None:
    """Runs are the same bit for bit: no random number is drawn, nothing stays on the module."""
    model = plain()
    state = torch.random.get_rng_state()
    hooks = [len(m._forward_hooks) for m in model.modules()]
    settle_attention(model, "trimtab")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [len(m._forward_hooks) for m in model.modules()] == hooks
    assert not model.training and all(p.grad is None for p in model.parameters())
    model.save_pretrained(tmp_path)
    assert "trimtab" not in (tmp_path / "config.json").read_text()


def test_what_is_done_to_a_module_may_not_change_what_it_says() -> None:
    """``prepare`` comes after the untouched module spoke."""

    def spoil(model: Any) -> None:
        with torch.no_grad():
            model.model.embed_tokens.weight.mul_(-1)

    with pytest.raises(ModelError, match="with such, what it says differs"):
        settle_attention(plain(), "trimtab", spoil)


def test_another_model_in_train_mode_cannot_be_recomputed(tmp_path: Path) -> None:
    """PhiMoE draws its experts at random there, and gradient checkpointing needs train mode."""
    from benchmarks.families import draw_wide
    from benchmarks.family_configs import tiny_config

    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(tiny_config("phimoe"))
    draw_wide(model)
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="another model in train mode"):
        load_causal_lm(tmp_path, ModelConfig(gradient_checkpointing=True), dtype="float32", device="cpu")
    assert not load_causal_lm(tmp_path, dtype="float32", device="cpu").training


def test_a_model_that_keeps_its_state_can_be_copied(tmp_path: Path) -> None:
    """RecurrentGemma keeps what it saw on its modules; RL's reference is a copy of the policy."""
    from benchmarks.families import draw_wide
    from benchmarks.family_configs import tiny_config

    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(tiny_config("recurrent_gemma"))
    draw_wide(model)
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    copy.deepcopy(load_causal_lm(tmp_path, dtype="float32", device="cpu"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_faint_convolution_over_a_packed_row_is_found(dtype: torch.dtype) -> None:
    """It moves the hidden states by less than bf16 rounds; its gradient tells it."""
    model = tiny_model(dtype=dtype)
    assert find_leak(model) is None and find_packing_fault(model) is None

    def faint(_: nn.Module, args: Any, output: Any) -> Any:
        first = output[0] if isinstance(output, tuple) else output
        mixed = first + 1e-3 * first.roll(1, dims=1)
        return (mixed, *output[1:]) if isinstance(output, tuple) else mixed

    model.model.layers[1].register_forward_hook(faint)
    fault = find_packing_fault(model)
    assert fault is not None and "carries tokens over" in fault
