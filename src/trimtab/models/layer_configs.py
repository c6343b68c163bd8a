"""The config of every layer: most families have one for all, some (Gemma 4) let layers differ."""

from __future__ import annotations

from typing import Any


def layer_configs(config: Any) -> list[Any]:
    """The configs of the layers of a text config, in order."""
    own = getattr(config, "per_layer_config", None)  # transformers 5.10 and newer
    count = int(config.num_hidden_layers)
    return [config] * count if own is None else [own[layer] for layer in range(count)]


def head_size(layer: Any) -> int:
    """Numbers per attention head of a layer with this config."""
    return int(getattr(layer, "head_dim", None) or layer.hidden_size // layer.num_attention_heads)
