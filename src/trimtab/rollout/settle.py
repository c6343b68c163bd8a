"""The ways of computing that an engine will use, settled before its first step, within two seconds."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from trimtab.models.choice import choose
from trimtab.models.layer_configs import head_size, layer_configs
from trimtab.models.packed_choice import packed_way
from trimtab.models.packed_compiled import can_compile
from trimtab.models.packed_linear import linear_way
from trimtab.models.trials import OWN, TORCH, Budget, Way
from trimtab.rollout.draws import kernel_drawer
from trimtab.rollout.engine import SamplingParams
from trimtab.rollout.sampling import Sampler

TYPICAL_ROWS = 64  # of a decode step, where nobody says more
_DRAWN = 16  # rows of the draws' trial: each costs the same


def settle_choices(model: Any, rows: int) -> None:
    """Choose for every linear map, the draw and the attention that learns of ``model``, on a CPU.

    What the time does not suffice for goes the usual way, from then on too: runs must not differ.

    Raises:
        ConfigError: ``TRIMTAB_CHOICES`` names no way.
    """
    if model.device.type != "cpu":
        return
    budget = Budget()
    with torch.inference_mode(False):
        weights = [module.weight for module in model.modules() if type(module) is nn.Linear]
        for weight in sorted(weights, key=Tensor.numel, reverse=True):  # what takes longest is asked first
            if weight.dtype == torch.bfloat16:
                linear_way(weight, rows, budget)
        for heads, keys, size in dict.fromkeys(_heads(layer) for layer in _layers(model)):
            if can_compile(model.dtype, size):
                packed_way(model.dtype, heads, keys, size, budget)
        drawing_dtype(model, rows, budget)


def _layers(model: Any) -> list[Any]:
    return layer_configs(model.config.get_text_config())


def _heads(layer: Any) -> tuple[int, int, int]:
    heads = int(layer.num_attention_heads)
    return heads, int(getattr(layer, "num_key_value_heads", None) or heads), head_size(layer)


def drawing_dtype(model: Any, rows: int, budget: Budget | None = None) -> torch.dtype | None:
    """The precision of the logits that the compiled kernel draws from; None where torch draws."""
    dtype, vocabulary = model.dtype, int(model.config.get_text_config().vocab_size)
    if model.device.type != "cpu" or kernel_drawer(dtype, _PLAIN, torch.empty(0, dtype=torch.long)) is None:
        return dtype
    rows = min(rows, _DRAWN)
    name = f"draw {rows}x{vocabulary} {str(dtype).removeprefix('torch.')}"
    way = choose(name, partial(_draws, rows, vocabulary, dtype), (OWN, TORCH), budget)
    return dtype if way == OWN else None


_PLAIN = SamplingParams(1)


def _draws(rows: int, vocabulary: int, dtype: torch.dtype) -> dict[str, Way]:
    """One draw for each row; torch's only where it gives a row the same in every batch."""
    logits = (3.0 * torch.sin(torch.arange(1.0 * rows * vocabulary) % 65537)).view(rows, vocabulary).to(dtype)
    uniforms = ((torch.arange(rows, dtype=torch.float64) + 0.5) * 0.618).remainder(1.0)
    samplers = {OWN: Sampler(_PLAIN, (), kernel_dtype=dtype), TORCH: Sampler(_PLAIN, ())}
    ways = {name: Way(partial(sampler, logits, uniforms, 0)) for name, sampler in samplers.items()}
    if not _keeps_rows(samplers[TORCH], logits, uniforms):
        del ways[TORCH]
    return ways


def _keeps_rows(sampler: Sampler, logits: Tensor, uniforms: Tensor) -> bool:
    whole = sampler(logits, uniforms, 0)
    for count in {1, 2, 7, len(logits)}:
        some = sampler(logits[:count], uniforms[:count], 0)
        same = zip(some[:2], (whole.tokens[:count], whole.logprobs[:count]), strict=True)
        if not all(torch.equal(one, other) for one, other in same):
            return False
    return True
