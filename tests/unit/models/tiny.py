"""A tiny tokenizer and tiny random models of several architectures, made in code; no downloads."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from trimtab.models.attention import register

SPECIALS = ("<|pad|>", "<|im_start|>", "<|im_end|>")
PAD, EOS = 0, 2
VOCABULARY = len(SPECIALS) + 256
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SIZES = {"num_hidden_layers": 3, "hidden_size": 48, "num_attention_heads": 4, "vocab_size": VOCABULARY}
_GQA = {**_SIZES, "num_key_value_heads": 2, "intermediate_size": 64, "max_position_embeddings": 256}
_IDS = {"pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": 1}
CONFIGS: dict[str, dict[str, Any]] = {
    "Llama": {**_GQA},
    "Qwen2": {**_GQA},
    "Qwen3": {**_GQA, "head_dim": 16},
    "Mistral": {**_GQA, "sliding_window": 7},
    "Gemma": {**_GQA, "head_dim": 16},
    "Gemma2": {**_GQA, "head_dim": 16, "sliding_window": 7, "query_pre_attn_scalar": 16},
    "Gemma3Text": {**_GQA, "head_dim": 16, "sliding_window": 7, "sliding_window_pattern": 2},
    "GPT2": {"n_layer": 3, "n_embd": 48, "n_head": 4, "n_positions": 256, "vocab_size": VOCABULARY},
}
_CAUSAL = {"GPT2": "GPT2LMHeadModel", "Gemma3Text": "Gemma3ForCausalLM"}
ARCHITECTURES = tuple(CONFIGS)


def tiny_tokenizer(pad: str | None = SPECIALS[0], template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """One token per byte, after the three special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate((*SPECIALS, *alphabet))}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=SPECIALS[2],
        pad_token=pad,
        additional_special_tokens=[SPECIALS[1]],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = template
    return tokenizer


def tiny_model(
    architecture: str = "Llama", dtype: torch.dtype = torch.float32, seed: int = 0, attention: str = "trimtab"
) -> Any:
    """A random model whose attention matters: weights are drawn wide, so that a wrong mask shows."""
    register()
    config = getattr(transformers, f"{architecture}Config")(**CONFIGS[architecture], **_IDS)
    config._attn_implementation = attention
    torch.manual_seed(seed)
    model = getattr(transformers, _CAUSAL.get(architecture, f"{architecture}ForCausalLM"))(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(std=0.15)
    return model.to(dtype).eval()


def random_prompts(*lengths: int, seed: int = 1) -> list[list[int]]:
    """Prompts of random tokens, none of them special."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, VOCABULARY, (n,), generator=generator).tolist() for n in lengths]
