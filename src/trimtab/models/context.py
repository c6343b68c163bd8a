"""How many tokens a model was made to read at once: prompt and answer together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Older families spell it in their own way; the first that is there counts.
_NAMES = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "n_ctx",
    "seq_length",
)
# Kinds of rotary scaling whose config already counts the longer context in max_position_embeddings.
_COUNTED = ("default", "llama3", "longrope", "su", "proportional", "mrope")
# Positions that are no table and no angle (ALiBi, states): whatever the config says, no row is too long.
_UNBOUNDED = ("bloom", "mamba", "mamba2", "falcon_mamba", "recurrent_gemma", "xlstm", "rwkv")


def context_length(source: Any) -> int | None:
    """Return the most tokens in a row for a model or its config; None where none is said.

    Beyond it a model with a vector for each position fails, and one with rotary positions runs on without a
    word, at positions that it never saw. Sliding windows are no limit. YaRN, linear and dynamic scaling
    lengthen the context by their factor where the config does not count it already.
    """
    config = getattr(source, "config", source)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    attention = getattr(text, "attn_config", None)  # MPT keeps it there
    if getattr(text, "model_type", "") in _UNBOUNDED or any(
        getattr(part, "alibi", False) is True for part in (text, attention)
    ):
        return None
    limit = next((value for name in _NAMES if (value := _count(getattr(text, name, None)))), None)
    return None if limit is None else max([limit, *_lengthened(limit, text)])


def _lengthened(limit: int, config: Any) -> list[int]:
    """The context by each of the config's rotary settings: one table, or one for each kind of layer."""
    found = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    if not isinstance(found, Mapping):
        return []
    lengths = []
    for rope in [value for value in found.values() if isinstance(value, Mapping)] or [found]:
        kind = str(rope.get("rope_type") or rope.get("type") or "default")
        factor, original = rope.get("factor"), _count(rope.get("original_max_position_embeddings"))
        if kind not in _COUNTED and isinstance(factor, (int, float)):
            lengths.append(int((original or limit) * factor))
    return lengths


def _count(value: Any) -> int | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return int(value) if is_number and value > 0 else None
