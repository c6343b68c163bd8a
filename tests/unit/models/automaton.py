"""A Llama that says what it is told: each token is followed by one other, whatever came before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


def byte_tokenizer(template: str, specials: tuple[str, ...], **settings: Any) -> PreTrainedTokenizerFast:
    """One token per byte after ``specials``; ``settings`` name ``eos_token``, ``pad_token`` and the like."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate((*specials, *alphabet))}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    others = [token for token in specials if token not in settings.values()]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, extra_special_tokens=others, **settings)
    tokenizer.chat_template = template
    return tokenizer


def automaton(follows: Mapping[int, int], rows: int, **config: Any) -> LlamaForCausalLM:
    """A model of ``rows`` tokens after which ``follows`` says what comes; tokens without an entry repeat."""
    size = -(-rows // 8) * 8
    settings = LlamaConfig(
        vocab_size=rows,
        hidden_size=size,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
        **{"max_position_embeddings": 256, "eos_token_id": None, "bos_token_id": None, **config},
    )
    model = LlamaForCausalLM(settings)
    with torch.no_grad():
        for parameter in model.model.layers.parameters():
            if parameter.ndim >= 2:
                parameter.zero_()  # the layer adds nothing: a token's embedding reaches the head
        model.model.embed_tokens.weight.copy_(torch.eye(rows, size))
        model.lm_head.weight.zero_()
        for token in range(rows):
            model.lm_head.weight[follows.get(token, token), token] = 1.0
    return model.eval()
