"""The roofline: how fast a model could be sampled and trained if only matmul and memory took time.

Both limits are measured, not looked up: each matrix product of the model at the number of rows that it will
see, and the speed at which memory is read. A fraction of the roofline is then a statement about the code, and
not about the machine. Counted: every linear layer, the head, attention. Not counted: norms, rotary positions,
sampling, the optimizer; so 100 % cannot be reached. Experts of a mixture are not counted either.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from trimtab.models.layer_configs import head_size, layer_configs
from trimtab.models.paths import resolve_model_path

_GRAPHED_CALLS = 20
PEAK_SIZE = 2048  # side of the square product that stands for the machine's best
READ_BYTES = 256 * 2**20  # well over the caches


@dataclass(frozen=True, slots=True)
class Linear:
    """``count`` layers that multiply rows of ``inputs`` numbers by a weight ``[outputs, inputs]``."""

    inputs: int
    outputs: int
    count: int = 1

    @property
    def weights(self) -> int:
        """Numbers in all of them."""
        return self.inputs * self.outputs * self.count


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What of a model costs time."""

    layers: tuple[Linear, ...]  # every linear but the head
    head: Linear
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    num_parameters: int

    @property
    def kv_numbers(self) -> int:
        """Numbers that the cache keeps of one token."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim

    @property
    def attention_flops(self) -> int:
        """Operations of one query with one key, forward: a product with the key and one with the value."""
        return 4 * self.num_layers * self.num_heads * self.head_dim


@dataclass(frozen=True, slots=True)
class Workload:
    """Groups of completions: ``num_prompts`` prompts of ``prompt_tokens``, each answered ``num_generations``
    times with ``new_tokens`` tokens (means where they differ)."""

    num_prompts: int
    num_generations: int
    prompt_tokens: float
    new_tokens: float

    @property
    def rows(self) -> int:
        """Completions."""
        return self.num_prompts * self.num_generations

    @property
    def new(self) -> float:
        """Completion tokens of all rows."""
        return self.rows * self.new_tokens

    @property
    def distinct(self) -> float:
        """Tokens of all rows, every prompt counted once."""
        return self.num_prompts * self.prompt_tokens + self.new

    @property
    def pairs(self) -> float:
        """Causal (query, key) pairs, those inside a prompt counted once."""
        prompt, new = self.prompt_tokens, self.new_tokens
        return self.num_prompts * prompt**2 / 2 + self.rows * (new * prompt + new**2 / 2)


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What this machine reaches on the products of one model, and how fast it reads memory."""

    device: str
    dtype: str
    read_bytes_per_s: float
    peak_flops: float  # of a square product
    products: Mapping[tuple[int, int, int], float] = field(default_factory=dict)  # (rows, in, out) → FLOP/s

    def rate(self, rows: float, linear: Linear) -> float:
        """FLOP/s of a layer at the measured number of rows that is nearest to ``rows``."""
        known = {r: v for (r, i, o), v in self.products.items() if (i, o) == (linear.inputs, linear.outputs)}
        if not known:
            return self.peak_flops
        return known[min(known, key=lambda r: abs(math.log(r / max(rows, 1))))]

    @property
    def itemsize(self) -> int:
        """Bytes of one number."""
        return int(getattr(torch, self.dtype).itemsize)

    def as_dict(self) -> dict[str, Any]:
        """Plain data in GFLOP/s and GB/s, products by ``rows x inputs x outputs``."""
        products = {"x".join(map(str, key)): round(rate / 1e9, 1) for key, rate in self.products.items()}
        return {
            "device": self.device,
            "dtype": self.dtype,
            "read_gb_per_s": round(self.read_bytes_per_s / 1e9, 1),
            "peak_gflops": round(self.peak_flops / 1e9, 1),
            "gflops": products,
        }


def shape_of(model: Any) -> ModelShape:
    """Read the shape off a transformers causal language model (it may be on the device ``meta``)."""
    head = model.get_output_embeddings()
    found: dict[tuple[int, int], int] = {}
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if module is head or isinstance(module, nn.Embedding) or weight is None or weight.ndim != 2:
            continue
        # GPT-2's Conv1D keeps its weight the other way round.
        outputs, inputs = reversed(weight.shape) if type(module).__name__ == "Conv1D" else weight.shape
        found[inputs, outputs] = found.get((inputs, outputs), 0) + 1
    config = model.config.get_text_config()
    num_heads = config.num_attention_heads
    return ModelShape(
        layers=tuple(Linear(i, o, count) for (i, o), count in sorted(found.items())),
        head=Linear(head.weight.shape[1], head.weight.shape[0]),
        num_layers=config.num_hidden_layers,
        num_heads=num_heads,
        num_kv_heads=getattr(config, "num_key_value_heads", None) or num_heads,
        head_dim=max(head_size(layer) for layer in layer_configs(config)),
        num_parameters=sum(p.numel() for p in model.parameters()),
    )


def shape_from(path: str | os.PathLike[str]) -> ModelShape:
    """Read the shape off the config of a model directory; no weight is loaded.

    Raises:
        ModelError: there is no such model.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(resolve_model_path(path), local_files_only=True)
    with torch.device("meta"):
        return shape_of(AutoModelForCausalLM.from_config(config))


def measure_ceilings(
    shape: ModelShape,
    rows: Sequence[int],
    dtype: torch.dtype,
    device: str | torch.device = "cpu",
    seconds: float = 0.05,
) -> Ceilings:
    """Measure every product of ``shape`` at each of ``rows``, a square one, and reading memory.

    ``seconds`` is spent on each of them; the fastest repetition counts, since others only wait.
    """
    linears = {(linear.inputs, linear.outputs) for linear in (*shape.layers, shape.head)}
    with torch.inference_mode():
        products = {
            (count, inputs, outputs): product_flops((count, inputs, outputs), dtype, device, seconds)
            for count in sorted(set(rows))
            for inputs, outputs in sorted(linears)
        }
        return Ceilings(
            device=_device_name(device),
            dtype=str(dtype).removeprefix("torch."),
            read_bytes_per_s=read_bytes_per_s(device, seconds),
            peak_flops=max(product_flops((PEAK_SIZE,) * 3, dtype, device, seconds), *products.values()),
            products=products,
        )


def product_flops(
    sizes: tuple[int, int, int], dtype: torch.dtype, device: str | torch.device, seconds: float
) -> float:
    """FLOP/s of ``[rows, inputs] × [outputs, inputs]ᵀ`` for ``sizes = (rows, inputs, outputs)``."""
    rows, inputs, outputs = sizes
    x = torch.randn(rows, inputs, device=device).to(dtype)
    weight = torch.randn(outputs, inputs, device=device).to(dtype)
    return 2 * rows * inputs * outputs / fastest(lambda: F.linear(x, weight), seconds, device)


def read_bytes_per_s(device: str | torch.device, seconds: float = 0.05) -> float:
    """Bytes per second that a sum over a large tensor reads, or a copy reads and writes: the larger."""
    source = torch.ones(READ_BYTES // 4, device=device)
    target = torch.empty_like(source)
    read = READ_BYTES / fastest(source.sum, seconds, device)
    return max(read, 2 * READ_BYTES / fastest(lambda: target.copy_(source), seconds, device))


def fastest(call: Callable[[], Any], seconds: float, device: str | torch.device) -> float:
    """Seconds of the fastest of many calls, after one that warms up; at least three.

    On a GPU the calls are replayed as one graph: launched one by one, small ones would time the launches.
    """
    call()
    synchronize(device)
    calls = 1
    if torch.device(device).type == "cuda":
        calls, graph = _GRAPHED_CALLS, torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(calls):
                call()
        call = graph.replay
    best, count, end = math.inf, 0, time.perf_counter() + seconds
    while count < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        synchronize(device)
        best, count = min(best, time.perf_counter() - start), count + 1
    return best / calls


def synchronize(device: str | torch.device) -> None:
    """Wait for an accelerator; nothing on a CPU."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def decode_seconds(shape: ModelShape, ceilings: Ceilings, rows: int, keys: float, pairs: float) -> float:
    """Least seconds of one decode step of ``rows`` rows.

    It reads ``keys`` cached tokens once and forms ``pairs`` (query, key) pairs; each layer takes the time of
    its operations or of reading its weights, whichever is longer.
    """
    total = 0.0
    for linear in (*shape.layers, shape.head):
        work = 2 * rows * linear.weights / ceilings.rate(rows, linear)
        total += max(work, linear.weights * ceilings.itemsize / ceilings.read_bytes_per_s)
    reading = keys * shape.kv_numbers * ceilings.itemsize / ceilings.read_bytes_per_s
    return total + max(reading, pairs * shape.attention_flops / ceilings.peak_flops)


def rollout_roofline(shape: ModelShape, ceilings: Ceilings, work: Workload) -> float:
    """Tokens per second of sampling ``work`` at the ceilings: each prompt is run, stored and read once for
    its whole group; all rows decode together."""
    prompts = work.num_prompts * work.prompt_tokens
    prefill = sum(2 * prompts * layer.weights / ceilings.rate(prompts, layer) for layer in shape.layers)
    prefill += 2 * work.num_prompts * shape.head.weights / ceilings.rate(work.num_prompts, shape.head)
    own = work.new_tokens / 2  # keys of a row's own completion, on average
    keys = prompts + work.rows * own
    step = decode_seconds(shape, ceilings, work.rows, keys, work.rows * (work.prompt_tokens + own))
    # The prompt's pass already gives the first token.
    return work.new / (prefill + max(work.new_tokens - 1, 0) * step)


def training_flops(shape: ModelShape, work: Workload) -> float:
    """Operations of forward and backward over ``work``: six per weight and token, prompts counted once, the
    head on completion tokens only; attention three times its forward."""
    layers = sum(layer.weights for layer in shape.layers)
    linear = 6 * (layers * work.distinct + shape.head.weights * work.new)
    return linear + 3 * shape.attention_flops * work.pairs


def training_ceiling(shape: ModelShape, ceilings: Ceilings, work: Workload, rows: int) -> float:
    """FLOP/s that the model's own products reach at ``rows`` rows, weighted by their share of the work."""
    parts = [(6 * layer.weights * work.distinct, layer) for layer in shape.layers]
    parts.append((6 * shape.head.weights * work.new, shape.head))
    seconds = sum(flops / ceilings.rate(rows, layer) for flops, layer in parts)
    return sum(flops for flops, _ in parts) / seconds


def training_roofline(shape: ModelShape, ceilings: Ceilings, work: Workload, rows: int) -> float:
    """Tokens per second (every distinct token) of forward and backward over ``work`` at the ceilings."""
    return (
        work.distinct * training_ceiling(shape, ceilings, work, rows) / max(training_flops(shape, work), 1.0)
    )


def _device_name(device: str | torch.device) -> str:
    if torch.device(device).type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"cpu, {torch.get_num_threads()} threads"
