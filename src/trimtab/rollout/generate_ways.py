"""Which ways of ``generate`` are right for a family: found out by sampling a little and scoring it again."""

from __future__ import annotations

from typing import Any

import torch

from trimtab.errors import ModelError
from trimtab.models.attention_proof import TOLERANCE
from trimtab.models.context import context_length
from trimtab.models.forward import selected_logits
from trimtab.rollout.engine import SamplingParams
from trimtab.rollout.generate_engine import GenerateEngine, Ways

# From the fastest to the surest. Recurrent families see padding; some caches are not what they should be.
_WAYS = (Ways(), Ways(pads=False), Ways(pads=False, caches=False))
_LENGTHS, _GENERATIONS, _NEW = (9, 5), 2, 5


def choose_ways(engine: GenerateEngine) -> Ways:
    """The fastest ways in which ``engine`` gives the logits that the learner computes of the same rows.

    Raises:
        ModelError: none of them does.
    """
    room, fault = context_length(engine.model), None
    if room is not None and room < max(_LENGTHS) + _NEW:
        return _WAYS[-1]  # too short to try
    before = engine.ways
    try:
        for ways in _WAYS:
            engine.ways = ways
            if (fault := _fault(engine)) is None:
                return ways
    finally:
        engine.ways, engine.seen = before, None
    raise ModelError(
        f"transformers' generate cannot sample from {type(engine.model).__name__} ({fault}); "
        "train it with SFT only, or use another model"
    )


def _fault(engine: GenerateEngine) -> str | None:
    model = engine.model
    vocabulary = model.config.get_text_config().vocab_size
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(vocabulary, (n,), generator=generator).tolist() for n in _LENGTHS]
    engine.seen = []
    params = SamplingParams(max_new_tokens=_NEW, min_new_tokens=_NEW)
    devices = [model.device] if model.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            groups = engine.generate(prompts, _GENERATIONS, params)
            seen, engine.seen = engine.seen, None
            if engine.ways.pads:
                logits = torch.stack(seen, dim=1)
            else:  # prompts ran one after another, and so did their steps
                steps = torch.stack(seen).unflatten(0, (len(prompts), _NEW))
                logits = steps.transpose(1, 2).flatten(0, 1)
            rows = [
                (prompt, completion.token_ids)
                for prompt, group in zip(prompts, groups, strict=True)
                for completion in group
            ]
            gap = max(
                _gap(model, prompt, list(row), own) for (prompt, row), own in zip(rows, logits, strict=True)
            )
    except Exception as error:  # any failure of an unknown architecture means: another way
        return f"{type(error).__name__}: {error}".splitlines()[0][:160]
    if gap <= (1e-4 if model.dtype.itemsize >= 4 else TOLERANCE.get(model.dtype, 0.05)):
        return None
    return f"its logits differ from the learner's by {gap:.2g} standard deviations"


def _gap(model: Any, prompt: list[int], row: list[int], own: torch.Tensor) -> float:
    ids = torch.tensor([prompt + row], device=model.device)
    positions = torch.zeros_like(ids, dtype=torch.bool)
    positions[0, len(prompt) - 1 : -1] = True
    with torch.inference_mode():
        plain = selected_logits(model, ids, torch.ones_like(ids), positions)[0].float()
    return float((own - plain).pow(2).mean().sqrt() / plain.std())
