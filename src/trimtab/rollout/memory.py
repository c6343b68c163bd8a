"""How many rows run together: what fits into the memory that the recipe grants to keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.errors import RolloutError
from trimtab.models.kv_rows import Room
from trimtab.models.layer_configs import head_size, layer_configs
from trimtab.models.memory import free_memory

GIB = 2**30
_SHARE = 0.25  # of the free memory, where no budget is given


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a running batch: rows, and GiB of keys and values (None: a quarter of the free memory)."""

    max_rows: int = 256
    kv_memory_gb: float | None = None


def token_bytes(model: Any) -> int:
    """Bytes of keys and values that one token takes over all layers."""
    config = model.config.get_text_config()
    numbers = 0
    for layer in layer_configs(config):
        heads = getattr(layer, "num_key_value_heads", None) or layer.num_attention_heads
        numbers += 2 * int(heads) * head_size(layer)
    return numbers * model.dtype.itemsize


def plan_room(
    model: Any,
    lengths: Sequence[int],
    num_generations: int,
    new_tokens: int,
    limits: Limits,
) -> Room:
    """The largest batch within ``limits`` for prompts of these ``lengths``.

    Raises:
        RolloutError: not even one row fits.
    """
    granted = limits.kv_memory_gb
    budget = granted * GIB if granted is not None else _SHARE * free_memory(model.device)
    per_token = token_bytes(model)
    for rows in range(min(limits.max_rows, len(lengths) * num_generations), 0, -1):
        # Some prompts still have rows when the next ones enter: twice the slots that full groups need.
        slots = min(len(lengths), 2 * -(-rows // num_generations) + 1)
        room = Room(rows, slots, max(lengths), new_tokens)
        if room.tokens * per_token <= budget:
            return room
    longest = max(range(len(lengths)), key=lengths.__getitem__)
    needed = (lengths[longest] + new_tokens) * per_token / GIB
    raise RolloutError(
        f"prompt {longest} has {lengths[longest]} tokens and with {new_tokens} new ones needs {needed:.2g} "
        f"GiB of keys and values, more than rollout.kv_memory_gb = {budget / GIB:.2g}; raise it or lower "
        "max_new_tokens"
    )
