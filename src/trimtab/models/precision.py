"""On which device and in which precision the parameters are kept: looked up and measured, not guessed."""

from __future__ import annotations

import time
from functools import cache

import torch

from trimtab.errors import ModelError

# Below this a model is bound by calls, not by arithmetic, and fp32 costs nothing.
MIN_PARAMETERS_FOR_BF16 = 50_000_000


def resolve_device(name: str | torch.device) -> torch.device:
    """Return the device of a recipe's ``model.device``; ``auto`` is the first CUDA GPU, else the CPU.

    Raises:
        ModelError: no such device, or a CUDA GPU that torch does not see.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ModelError(f"there is no device '{name}'; use auto, cpu, cuda or cuda:N") from None
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        raise ModelError(f"device {name}: torch sees no CUDA GPU here; use auto or cpu")
    count = torch.cuda.device_count()
    if device.index is not None and device.index >= count:
        raise ModelError(f"device {name}: the last GPU here is cuda:{count - 1}; use that")
    return device


def resolve_dtype(name: str | torch.dtype, device: str | torch.device, num_parameters: int) -> torch.dtype:
    """Return the dtype of a recipe's ``model.dtype``.

    ``auto`` is bf16 on an accelerator; on a CPU it is bf16 only for a model of at least 50 million parameters
    on a machine whose bf16 matrix product measures faster than its fp32 one.
    """
    if isinstance(name, torch.dtype):
        return name
    if name == "auto":
        if torch.device(device).type != "cpu":
            return torch.bfloat16
        big = num_parameters >= MIN_PARAMETERS_FOR_BF16
        return torch.bfloat16 if big and cpu_bf16_is_faster() else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


@cache
def cpu_bf16_is_faster() -> bool:
    """Time a small matrix product in both precisions, once per process (a few milliseconds)."""
    return _matmul_seconds(torch.bfloat16) < _matmul_seconds(torch.float32)


def _matmul_seconds(dtype: torch.dtype, rows: int = 64, width: int = 768, repeats: int = 8) -> float:
    with torch.inference_mode():
        x, w = torch.ones(rows, width, dtype=dtype), torch.ones(width, 2 * width, dtype=dtype)
        best = float("inf")
        for _ in range(repeats):
            start = time.perf_counter()
            x @ w
            best = min(best, time.perf_counter() - start)
    return best
