"""Windows and chunks that a model's config tells of, and whether its attention layers tell them too.

Some families say a window to the attention function, which our contexts obey. Others only draw it into the
mask, which packed rows and the sampling engine do not use: there, rows must not be longer than the window.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from trimtab.models.attention import ScoreRule, context_inputs

_NAMES = re.compile(
    r"(sliding_window|attention_chunk|chunk_size|local_attention|window_size|attention_window)"
)
_OTHER = re.compile(
    r"pattern|layers|mamba|conv|linear|ssm|lin_|kda|head|vision|audio|image|loss|feed_forward|ff_"
)
_FOUND: WeakKeyDictionary[Any, tuple[int | None]] = WeakKeyDictionary()


def untold_window(model: Any) -> int | None:
    """The shortest window or chunk of the config, in tokens, that no layer tells its attention; else None.

    ``model`` runs one token, once; its attention must be ours.
    """
    if model not in _FOUND:
        _FOUND[model] = (_find(model),)
    return _FOUND[model][0]


def _find(model: Any) -> int | None:
    expected = set(config_windows(model.config.get_text_config()))
    if not expected:
        return None
    told = _Listener()
    token = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
    try:
        with torch.no_grad():
            model(**context_inputs(token, token, told))
    except Exception:  # any failure of an unknown architecture means: trust no layer
        told.windows.clear()
    return min(expected - told.windows, default=None)


def config_windows(config: Any) -> Iterator[int]:
    """Every limit to how far back a token looks that a config tells of, in tokens."""
    for name, value in config.to_dict().items():
        is_count = isinstance(value, int) and not isinstance(value, bool) and value > 0
        if is_count and _NAMES.search(name) and not _OTHER.search(name):
            yield value


class _Listener:
    """A context that hears what every layer tells its attention, and attends to nothing."""

    def __init__(self) -> None:
        self.windows: set[int | None] = set()

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rule: ScoreRule) -> Tensor:
        """Zeros; see ``AttentionContext``."""
        self.windows.add(rule.window)
        return value.new_zeros(query.shape[0], query.shape[2], query.shape[1], value.shape[3])
