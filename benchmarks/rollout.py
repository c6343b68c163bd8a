"""Sampling speed: our engine, transformers' ``generate``, and vLLM in an environment of its own.

    python benchmarks/rollout.py --vllm-python /path/to/vllm/bin/python --json benchmarks/results/rollout.json

``forced``: 8 prompts of 25 tokens, 8 completions each of exactly 128 tokens, temperature 1, top-p 1. This is
the headline, and its roofline is measured in our engine's own process, before and after. ``natural``: prompts
of 25 to 400 tokens, completions that end when the model ends them. Repeats of the arms alternate; figures are
medians. Without vLLM's Python (``--vllm-python`` or TRIMTAB_VLLM_PYTHON) its figure is null.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from benchmarks.machine import about, parser_of, save, settle
from benchmarks.process import ArmError, ArmProcess
from benchmarks.ratios import middle, paired_ratio
from benchmarks.workload import PLAIN_TEMPLATE, encode, make_prompts

from trimtab.models.load import load_tokenizer
from trimtab.models.roofline import Ceilings, Workload, rollout_roofline, shape_from

VLLM_VARIABLE = "TRIMTAB_VLLM_PYTHON"
SHORTEST, LONGEST = 25, 400


@dataclass(frozen=True)
class Scenario:
    """What every arm is asked to sample."""

    name: str
    prompts: list[list[int]]
    num_generations: int
    new_tokens: int
    is_forced: bool

    def request(self, seed: int) -> dict[str, Any]:
        """The request to an arm."""
        return {
            "do": "sample",
            "prompts": self.prompts,
            "num_generations": self.num_generations,
            "new_tokens": self.new_tokens,
            "is_forced": self.is_forced,
            "seed": seed,
        }


def scenarios(args: argparse.Namespace, model: str) -> list[Scenario]:
    """The forced and the natural scenario; chat prompts in the latter, where the model can end by itself."""
    tokenizer = load_tokenizer(model)
    count = args.prompts
    lengths = [round(SHORTEST + (LONGEST - SHORTEST) * i / max(count - 1, 1)) for i in range(count)]
    natural = [encode(tokenizer, p) for p in make_prompts(tokenizer, lengths, args.seed)]
    tokenizer.chat_template = PLAIN_TEMPLATE
    same = make_prompts(tokenizer, [args.prompt_tokens] * count, args.seed)
    forced = [encode(tokenizer, p) for p in same]
    found = [Scenario("forced", forced, args.generations, args.new_tokens, True)]
    if not args.forced_only:
        found.append(Scenario("natural", natural, args.generations, args.new_tokens, False))
    return found


def start_arms(args: argparse.Namespace, model: str, stack: contextlib.ExitStack) -> dict[str, ArmProcess]:
    """Start every arm that can run here; what cannot is said."""
    spec = {"model": model, "dtype": args.dtype, "device": args.device, "threads": args.threads}
    arms = {
        name: stack.enter_context(ArmProcess(name, "sample_arm.py", {**spec, "engine": name, "cache": cache}))
        for name, cache in (("native", None), ("generate", args.generate_cache))
    }
    if not args.vllm_python:
        print(f"vLLM: not measured, since neither --vllm-python nor {VLLM_VARIABLE} names its Python.")
        return arms
    print("vLLM: starting, which takes minutes", flush=True)
    length = LONGEST + max(args.new_tokens, 1) + 8
    asked = {"model": model, "dtype": args.dtype, "seed": args.seed, "max_length": length}
    threads = {"OMP_NUM_THREADS": str(args.threads or torch.get_num_threads())}
    if args.device == "cpu":
        threads["VLLM_CPU_OMP_THREADS_BIND"] = os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    # Another environment's interpreter must not see this one's packages.
    threads["PYTHONPATH"] = ""
    try:
        arm = ArmProcess("vllm", "vllm_arm.py", asked, python=args.vllm_python, environment=threads)
        arms["vllm"] = stack.enter_context(arm)
    except (ArmError, OSError) as error:
        print(f"vLLM: not measured ({error})")
    return arms


def measure(arms: Mapping[str, ArmProcess], scenario: Scenario, repeats: int, seed: int) -> dict[str, Any]:
    """Tokens per second of each arm, repeats alternating after a warm-up of each."""
    speeds: dict[str, list[float]] = {name: [] for name in arms}
    tokens: dict[str, list[int]] = {name: [] for name in arms}
    for repeat in range(-1, repeats):
        for name, arm in arms.items():
            reply = arm(scenario.request(seed + repeat + 1))
            if repeat < 0:
                continue
            speeds[name].append(reply["tokens"] / reply["seconds"])
            tokens[name].append(reply["tokens"])
            print(
                f"{scenario.name} {repeat + 1}/{repeats} {name}: {speeds[name][-1]:.0f} tokens/s", flush=True
            )
    found: dict[str, Any] = {
        "tokens_per_s": {name: middle(values) for name, values in speeds.items()},
        "all": speeds,
        "tokens": tokens,
        "ratios": {
            f"native/{name}": paired_ratio(speeds["native"], values, seed)
            for name, values in speeds.items()
            if name != "native"
        },
    }
    return found


def ceilings_of(reply: Mapping[str, Any]) -> Ceilings:
    """Ceilings that an arm sent, as an object again."""
    data = reply["ceilings"]
    products = {tuple(map(int, key.split("x"))): rate * 1e9 for key, rate in data["gflops"].items()}
    return Ceilings(
        device=data["device"],
        dtype=data["dtype"],
        read_bytes_per_s=data["read_gb_per_s"] * 1e9,
        peak_flops=data["peak_gflops"] * 1e9,
        products=products,  # type: ignore[arg-type]
    )


def options() -> argparse.Namespace:
    """The command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--repeats", type=int, help="of each arm (5; 3 with --quick)")
    parser.add_argument("--forced-only", action="store_true", help="leave the natural scenario out")
    parser.add_argument("--generate-cache", choices=("static",), help="cache of `generate` (dynamic)")
    default = os.environ.get(VLLM_VARIABLE)
    parser.add_argument("--vllm-python", metavar="PATH", default=default, help="Python that has vllm")
    return parser.parse_args()


def main() -> int:
    """Measure, print, write; return the exit code."""
    args = options()
    model = settle(args)
    results = about(args, model)
    shape, repeats = shape_from(model), args.repeats or (3 if args.quick else 5)
    work = Workload(args.prompts, args.generations, args.prompt_tokens, args.new_tokens)
    bracket = {"do": "ceilings", "rows": [work.rows, 512], "seconds": 0.05 if args.quick else 0.2}
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        arms = start_arms(args, model, stack)
        brackets, found = [arms["native"](bracket)], {}
        for scenario in scenarios(args, model):
            found[scenario.name] = measure(arms, scenario, repeats, args.seed)
            brackets.append(arms["native"](bracket))
        memory = {name: arm({"do": "memory"})["peak_bytes"] for name, arm in arms.items()}
        ready = arms["vllm"].ready if "vllm" in arms else {}
    rooflines = [rollout_roofline(shape, ceilings_of(reply), work) for reply in brackets]
    # The bracket around the forced scenario; the best of the two, since a ceiling is never too high.
    roofline = max(rooflines[:2])
    speeds = found["forced"]["tokens_per_s"]
    headline = {
        "native_tokens_per_s": speeds["native"],
        "generate_tokens_per_s": speeds["generate"],
        "vllm_tokens_per_s": speeds.get("vllm"),
        "roofline_fraction": speeds["native"] / roofline,
    }
    results["versions"] |= {"vllm": ready["version"]} if ready else {}
    extras = {
        "roofline_tokens_per_s": roofline,
        "rooflines": rooflines,
        "ceilings": [reply["ceilings"] for reply in brackets],
        "scenarios": found,
        "peak_bytes": memory,
        "vllm_startup_seconds": ready.get("startup_seconds"),
        "seconds": time.perf_counter() - start,
    }
    for name, value in headline.items():
        print(f"{name}: {'not measured' if value is None else format(value, '.3g')}")
    save(headline | extras | results, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
