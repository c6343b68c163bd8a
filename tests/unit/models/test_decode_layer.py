"""Decode steps without the layers' own Python: the same numbers, and only where that is so (R12)."""

from typing import Any

import pytest
import torch
import transformers
from tests.unit.models.tiny import EOS, VOCABULARY, random_prompts, tiny_tokenizer
from torch import nn

from trimtab.models import fast_modules as fast
from trimtab.models.attention import register
from trimtab.models.decode_layer import decode_layer
from trimtab.models.elementwise import CpuElementwise, elementwise_kernels
from trimtab.rollout.engine import SamplingParams
from trimtab.rollout.native import NativeEngine, sampling_mode
from trimtab.types import Completion

_SIZES = {
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "intermediate_size": 96,
    "max_position_embeddings": 256,
    "vocab_size": VOCABULARY,
}
_FAST = {"Llama": {}, "Qwen2": {}, "Mistral": {"sliding_window": 7}}
_OWN = {
    "Qwen3": {},
    "Granite": {"residual_multiplier": 0.5},
    "Gemma2": {},
}  # other parts, or the same otherwise wired
_DTYPES = [torch.float32, torch.bfloat16]


def _model(architecture: str, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    register()
    config = getattr(transformers, f"{architecture}Config")(
        **{**_SIZES, **options}, pad_token_id=0, eos_token_id=EOS
    )
    config._attn_implementation = "trimtab"
    torch.manual_seed(0)
    model = getattr(transformers, f"{architecture}ForCausalLM")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(mean=float(parameter.ndim == 1), std=0.15)
    return model.to(dtype).eval()


def _kernels(model: Any) -> CpuElementwise:
    kernels = elementwise_kernels(model)
    if not isinstance(kernels, CpuElementwise):
        pytest.skip("no compiler here")
    return kernels


def _sample(model: Any) -> list[list[Completion]]:
    engine = NativeEngine(model, tiny_tokenizer(), frozenset({EOS}), cache="kernel")
    return engine.generate(random_prompts(5, 12), 3, SamplingParams(24, min_new_tokens=20, seed=4))


def _count_fast(model: Any) -> int:
    with sampling_mode(model), fast.fast_modules(model, 8):
        return sum("forward" in vars(layer) for layer in model.model.layers)


@pytest.mark.parametrize("dtype", _DTYPES, ids=str)
@pytest.mark.parametrize("architecture", _FAST)
def test_the_same_completions_bit_for_bit(
    architecture: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With biases, with a window (which the layer's own attention tells), with rows that leave."""
    model = _model(architecture, dtype, **_FAST[architecture])
    _kernels(model)
    assert _count_fast(model) == len(model.model.layers)
    ours = _sample(model)
    monkeypatch.setattr(fast, "decode_layer", lambda layer, kernels: None)
    assert _count_fast(model) == 0
    assert _sample(model) == ours


@pytest.mark.parametrize("architecture", _OWN)
def test_other_layers_are_left_alone(architecture: str) -> None:
    model = _model(architecture, **_OWN[architecture])
    _kernels(model)
    assert _count_fast(model) == 0


def test_a_layer_that_something_listens_to_is_left_alone() -> None:
    model = _model("Llama")
    layer, kernels = model.model.layers[0], _kernels(model)
    with sampling_mode(model):
        assert decode_layer(layer, kernels) is not None
        handle = layer.self_attn.register_forward_hook(lambda *_: None)
        assert decode_layer(layer, kernels) is None
        handle.remove()
        layer.self_attn.q_norm = nn.Identity()
        assert decode_layer(layer, kernels) is None


def test_nothing_stays_on_the_module() -> None:
    """Trap 8: after sampling every layer's forward is its class's again."""
    model = _model("Llama")
    _kernels(model)
    _sample(model)
    assert not any("forward" in vars(module) for module in model.modules())


def test_whole_rows_go_the_layers_own_way() -> None:
    """Only a context of one token per row is a decode step."""
    model = _model("Llama")
    _kernels(model)
    ids = torch.tensor(random_prompts(9))
    with torch.no_grad():
        plain = model(input_ids=ids, use_cache=False).logits
        with sampling_mode(model), fast.fast_modules(model, 8):
            found = model(input_ids=ids, use_cache=False).logits
    assert torch.allclose(found, plain, atol=1e-4)
