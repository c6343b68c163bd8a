"""Samples, and a byte-level tokenizer with a tiny random reward model; made in code."""

from __future__ import annotations

from typing import Any

from trimtab.types import Prompt, Sample

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def sample(completion: str, prompt: str = "你好", **columns: Any) -> Sample:
    """One completion of a row with these columns."""
    return Sample(Prompt("7", ({"role": "user", "content": prompt},), columns), completion)


def toy_tokenizer() -> Any:
    """One token per byte, and three special ones."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<|pad|>", "<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE(vocab={name: index for index, name in enumerate(names)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<|pad|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def toy_reward_model(seed: int = 0, max_positions: int = 512, labels: int = 1) -> Any:
    """A random classifier."""
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=259,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=max_positions,
        num_labels=labels,
        pad_token_id=0,
        eos_token_id=2,
    )
    model = LlamaForSequenceClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(std=0.3)
    return model


def toy_process_model(labels: int = 1, seed: int = 0, max_positions: int = 512) -> Any:
    """A random token classifier."""
    import torch
    from transformers import LlamaConfig, LlamaForTokenClassification

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=259,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=max_positions,
        num_labels=labels,
        pad_token_id=0,
        eos_token_id=2,
        architectures=["LlamaForTokenClassification"],
    )
    model = LlamaForTokenClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(std=0.3)
    return model
