"""Sampling in a process of its own: our engine, or transformers' ``generate``. Requests: ``sample``,
``ceilings``, ``memory``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from benchmarks.machine import peak_bytes
from benchmarks.process import Handler, serve
from transformers import AutoModelForCausalLM

from trimtab.models.load import load_causal_lm, load_tokenizer
from trimtab.models.roofline import measure_ceilings, shape_of, synchronize
from trimtab.models.tokenizer import eos_ids
from trimtab.rollout.engine import SamplingParams, build_engine

Sample = Callable[[dict[str, Any]], int]  # samples what a request asks for and returns the number of tokens


def native(model: Any, tokenizer: Any) -> Sample:
    """Our engine, through the seam that training uses; log-probabilities and texts are made, too."""
    engine = build_engine(model, tokenizer)

    def sample(request: dict[str, Any]) -> int:
        count = request["new_tokens"]
        params = SamplingParams(
            max_new_tokens=count,
            min_new_tokens=count if request["is_forced"] else 0,
            seed=request["seed"],
        )
        groups = engine.generate(request["prompts"], request["num_generations"], params)
        return sum(len(c.token_ids) for group in groups for c in group)

    return sample


def generate(model: Any, tokenizer: Any, cache: str | None) -> Sample:
    """``generate`` with its own sampling: every row at once, padded on the left, each prompt G times."""
    ends = sorted(eos_ids(model, tokenizer))

    def sample(request: dict[str, Any]) -> int:
        prompts: Sequence[Sequence[int]] = request["prompts"]
        width, count = max(map(len, prompts)), request["new_tokens"]
        ids = torch.full((len(prompts), width), tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        torch.manual_seed(request["seed"])
        with torch.inference_mode():
            output = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                do_sample=True,
                temperature=1.0,
                top_p=1.0,
                top_k=0,
                num_return_sequences=request["num_generations"],
                max_new_tokens=count,
                min_new_tokens=count if request["is_forced"] else None,
                eos_token_id=ends,
                pad_token_id=tokenizer.pad_token_id,
                cache_implementation=cache,
                disable_compile=True,
            )
        return count_until_end(output[:, width:].cpu(), ends)

    return sample


def count_until_end(tokens: torch.Tensor, ends: Sequence[int]) -> int:
    """Tokens of all rows, the first end token of each included, what follows it not."""
    is_end = torch.isin(tokens, torch.tensor(list(ends)))
    ended_before = is_end.long().cumsum(dim=1) - is_end.long() > 0
    return int((~ended_before).sum())


def build(spec: dict[str, Any]) -> Handler:
    """The arm of a specification: ``engine``, ``model``, ``dtype``, ``device``, ``threads``, ``cache``."""
    if spec["threads"]:
        torch.set_num_threads(spec["threads"])
    device, tokenizer = spec["device"], load_tokenizer(spec["model"])
    dtype = getattr(torch, spec["dtype"])
    if spec["engine"] == "native":
        model = load_causal_lm(spec["model"], dtype=dtype, device=device)
        sample = native(model, tokenizer)
    else:
        loaded: Any = AutoModelForCausalLM.from_pretrained(spec["model"], dtype=dtype, local_files_only=True)
        model = loaded.to(device).eval()
        sample = generate(model, tokenizer, spec.get("cache"))
    shape = shape_of(model)

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        if request["do"] == "ceilings":
            found = measure_ceilings(shape, request["rows"], dtype, device, request["seconds"])
            return {"ceilings": found.as_dict()}
        if request["do"] == "sample":
            synchronize(device)
            start = time.perf_counter()
            tokens = sample(request)
            synchronize(device)
            return {"seconds": time.perf_counter() - start, "tokens": tokens}
        return {"peak_bytes": peak_bytes(device)}

    return handle


if __name__ == "__main__":
    raise SystemExit(serve(build))
