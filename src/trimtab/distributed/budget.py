"""How many tokens a micro-batch may hold when the recipe does not say: an estimate from the free memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from trimtab.models.memory import free_memory

SMALLEST = 256  # fewer tokens make the matrix products slow
LARGEST = {"cpu": 2048, "other": 16384}  # more make them no faster (measured on a CPU: 2048 rows are enough)
FRUGAL = 512  # fewer make the matrix products of a CPU slower (measured)
SMALL = 2**28  # bytes of activations that are not worth saving on
SHARE = 0.25  # of the memory that is free once gradients and optimizer are there


def choose_max_tokens(model: Any) -> int:
    """Tokens of a packed micro-batch whose activations take at most a quarter of the free memory.

    A multiple of 256, at least 256, at most 2048 on a CPU and 16384 on an accelerator. Gradients and
    AdamW's moments (12 bytes per trained parameter) are taken off first: at the first batch they are not
    there yet.
    """
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    room = SHARE * max(0.0, free_memory(model.device) - 12 * trained)
    fitting = int(room / activation_bytes(model)) // SMALLEST * SMALLEST
    cap = LARGEST["cpu" if model.device.type == "cpu" else "other"]
    return max(SMALLEST, min(cap, fitting))


_chosen: dict[str, int] = {}


def remembered_max_tokens(model: Any) -> int:
    """``choose_max_tokens``, asked once per process for models of one size.

    The free memory is another at every moment, and sums over other micro-batches round otherwise: a resumed
    run takes the numbers that its checkpoint has.
    """
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    key = f"{model.device.type}/{activation_bytes(model):.0f}/{trained}"
    if key not in _chosen:
        _chosen[key] = choose_max_tokens(model)
    return _chosen[key]


def chosen_tokens() -> dict[str, int]:
    """What was chosen so far; for a checkpoint."""
    return dict(_chosen)


def choose_tokens_as(chosen: Mapping[str, int]) -> None:
    """Forget what was chosen, and take over ``chosen`` instead; with nothing, choose anew."""
    _chosen.clear()
    _chosen.update(chosen)


def least_tokens(model: Any) -> int:
    """Tokens of a micro-batch on a CPU that are enough: 512, or as many as take 256 MiB of activations."""
    return max(FRUGAL, int(SMALL / activation_bytes(model)))


def activation_bytes(model: Any) -> float:
    """Bytes per token that the backward of a decoder keeps, for the usual block of norms, attention and MLP.

    Per layer, in numbers of the parameters' size: 10 of the hidden size (norm outputs, queries, keys, values,
    attention's output) and 4 of the MLP's width (gate, up, activation, product); and 16 bytes per hidden
    number for the norms, which compute in fp32. With gradient checkpointing only one layer's, and one hidden
    state per layer.
    """
    config = model.config.get_text_config()
    hidden = config.hidden_size
    width = getattr(config, "intermediate_size", None) or 4 * hidden
    size = model.dtype.itemsize
    layer = (10 * hidden + 4 * width) * size + 16 * hidden
    if is_checkpointing(model):
        return float(layer + config.num_hidden_layers * hidden * size)
    return float(layer * config.num_hidden_layers)


def is_checkpointing(module: nn.Module) -> bool:
    """Whether some part of the module recomputes its activations (in train mode only, says transformers)."""
    return any(getattr(part, "gradient_checkpointing", False) for part in module.modules())
