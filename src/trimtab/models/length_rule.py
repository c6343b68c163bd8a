"""Rotary frequencies that depend on the length of what runs together, and how rows keep apart that differ.

transformers chooses such frequencies once per forward, by the longest position in it: ``longrope`` (Phi-3,
``su``) by whether that is beyond the original context, ``dynamic`` (NTK) by every length beyond it, and then
remembers the longest. So a short row beside a long one would be computed with the long one's frequencies.
What a row means is what it means alone: rows run together only where their lengths choose the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

_SWITCHES = {"longrope", "su"}


@dataclass(frozen=True, slots=True)
class LengthRule:
    """Which lengths choose which frequencies."""

    switches: tuple[int, ...]  # longer rows than this have the long factors
    growths: tuple[int, ...]  # each length beyond this has frequencies of its own

    def key(self, length: int) -> tuple[int, ...]:
        """Rows with equal keys may run together; it never falls with ``length``.

        Example:
            >>> LengthRule((32,), ()).key(32), LengthRule((32,), ()).key(33)
            ((0,), (1,))
        """
        switched = (int(length > border) for border in self.switches)
        return (*switched, *(max(0, length - border) for border in self.growths))

    @property
    def border(self) -> int:
        """The longest row that has the first frequencies, in tokens."""
        return min((*self.switches, *self.growths))

    def is_base(self, length: int) -> bool:
        """Whether a row of this length has the first frequencies: those of all short rows."""
        return length <= self.border

    def crosses(self, first: int, last: int) -> bool:
        """Whether the frequencies change while a row grows from ``first`` to ``last`` tokens."""
        return self.key(first) != self.key(last)

    def reset(self, model: Any) -> None:
        """Make ``model`` forget the longest row that it has seen; called before every forward."""
        for module in model.modules():
            if hasattr(module, "original_max_seq_len") or hasattr(module, "original_inv_freq"):
                _forget(module)


def length_rule(model: Any) -> LengthRule | None:
    """The rule of a model, by its config; None for the many whose frequencies are always the same."""
    config = model.config.get_text_config()
    found = list(_rotary(config))
    switches = {border for kind, border in found if kind in _SWITCHES}
    growths = {border for kind, border in found if kind not in _SWITCHES}
    return LengthRule(tuple(sorted(switches)), tuple(sorted(growths))) if found else None


def _rotary(config: Any) -> Iterator[tuple[str, int]]:
    """Kind and border of each length-dependent table of rotary parameters; layer types may have their own."""
    table = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    if not isinstance(table, Mapping):
        return
    for part in (table, *(value for value in table.values() if isinstance(value, Mapping))):
        kind = str(part.get("rope_type") or part.get("type") or "")
        if kind in _SWITCHES:
            own = getattr(config, "original_max_position_embeddings", None)
            yield kind, int(part.get("original_max_position_embeddings") or own or _context(config))
        elif "dynamic" in kind:
            yield kind, _context(config)


def _context(config: Any) -> int:
    return int(config.max_position_embeddings)


def _forget(module: Any) -> None:
    """Put a rotary module of transformers back to the frequencies that it was made with.

    They are cut loose first from the ones in use, which transformers 5.24 writes over.
    """
    longest = getattr(module, "original_max_seq_len", None)
    for name, buffer in list(module.named_buffers(recurse=False)):
        prefix = name.removesuffix("inv_freq")
        first = getattr(module, f"{prefix}original_inv_freq", None)
        if prefix == name or prefix.endswith("original_") or not isinstance(first, torch.Tensor):
            continue
        if first.data_ptr() == buffer.data_ptr():
            setattr(module, f"{prefix}original_inv_freq", first.clone())
        elif not torch.equal(first.to(buffer.device), buffer):
            module.register_buffer(name, first.to(buffer.device).clone(), persistent=False)
        if longest is not None and hasattr(module, f"{prefix}max_seq_len_cached"):
            setattr(module, f"{prefix}max_seq_len_cached", longest)
