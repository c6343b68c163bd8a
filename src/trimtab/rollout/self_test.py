"""Can this module sample natively? Compare a few steps with its plain forward before trusting it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trimtab.models.attention import UnsupportedAttentionError, supports_attention, using_attention
from trimtab.models.attention_proof import TOLERANCE, proof_of
from trimtab.models.context import context_length
from trimtab.models.forward import selected_logits
from trimtab.models.kv_rows import Room, RowState
from trimtab.models.packed_forward import find_leak
from trimtab.models.windows import untold_window
from trimtab.rollout.native import CACHES, decode_step, prefill, sampling_mode

_PROMPT_LENGTHS, _NEW = (9, 5), 6
_KNOWN_LAYERS = {"full_attention", "sliding_attention"}


def choose_cache(model: Any, wanted: str = "auto") -> tuple[str | None, str | None]:
    """The fastest cache that serves ``model`` (``wanted`` alone, unless auto), or None and why not."""
    fault = None
    for name in CACHES if wanted == "auto" else (wanted,):
        if (fault := find_fault(model, name)) is None:
            return name, None
    return None, fault


def find_fault(model: Any, cache: str = "torch") -> str | None:
    """Say why the native engine cannot serve ``model`` with this ``cache`` (one of ``CACHES``), or None when
    it can. Leaves no trace on the model."""
    if (proof := proof_of(model)) is not None and proof.cause is not None:
        return proof.cause
    if not supports_attention(model):
        return "the architecture takes no attention function from outside"
    config = model.config.get_text_config()
    if odd := set(getattr(config, "layer_types", None) or ()) - _KNOWN_LAYERS:
        return f"it has layers of type {', '.join(sorted(odd))}"
    room = context_length(model)
    if room is not None and room < max(_PROMPT_LENGTHS) + _NEW:
        return f"its context of {room} tokens is too short to test"
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            difference = _difference(model, config.vocab_size, cache)
            with using_attention(model):
                window, leak = untold_window(model), _leak(model)
    except Exception as error:  # any failure of an unknown architecture means: use the slow way
        return f"{type(error).__name__}: {error}".splitlines()[0][:160]
    if not difference <= TOLERANCE.get(model.dtype, 0.05):
        return f"its logits differ from the plain forward's by {difference:.2g} standard deviations"
    if leak is not None:
        return leak
    if window is not None and (room is None or room > window):
        return f"its attention is not told of the window of {window} tokens"
    return None


def _leak(model: Any) -> str | None:
    """Prompts run one after another in one row, as when learning."""
    try:
        return find_leak(model)
    except UnsupportedAttentionError:
        return None  # rows are not packed when learning, so nothing can be learned of it here


def _difference(model: Any, vocabulary: int, cache: str) -> float:
    """Root-mean-square difference between native and plain logits over their standard deviation."""
    prompts = [torch.randint(vocabulary, (length,)).tolist() for length in _PROMPT_LENGTHS]
    row_prompts = torch.tensor([0, 0, 1], device=model.device)
    forced = torch.randint(vocabulary, (len(row_prompts), _NEW), device=model.device)
    with sampling_mode(model):
        store = CACHES[cache](RowState(Room(3, 2, max(_PROMPT_LENGTHS), _NEW), model.device))
        logits = prefill(model, store, prompts, (0, 1))
        store.state.start(torch.tensor([0, 1], device=model.device), 0)
        store.state.start(torch.tensor([2], device=model.device), 1)
        store.arrange()
        steps = [logits[row_prompts]]
        steps += [decode_step(model, store, forced[:, step]) for step in range(_NEW - 1)]
        native = torch.stack(steps, dim=1).float()
    # With the attention that learns, which may be another one.
    with torch.inference_mode():
        plain = torch.stack(
            [_plain(model, prompts[int(p)], row) for p, row in zip(row_prompts, forced, strict=True)]
        )
    return float((native - plain).pow(2).mean().sqrt() / plain.std())


def _plain(model: Any, prompt: list[int], completion: Tensor) -> Tensor:
    """Logits ``[new, V]`` that predict each token of the completion, from one forward without a cache."""
    ids = torch.cat((torch.tensor(prompt, device=completion.device), completion))[None]
    positions = torch.zeros_like(ids, dtype=torch.bool)
    positions[0, len(prompt) - 1 : -1] = True
    return selected_logits(model, ids, torch.ones_like(ids), positions)[0].float()
