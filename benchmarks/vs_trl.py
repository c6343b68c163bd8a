"""A whole GRPO step: TRL against ours, on the same model, prompts, lengths, loss and threads.

    python benchmarks/vs_trl.py --json benchmarks/results/vs_trl.json
    python benchmarks/vs_trl.py --prompt-tokens 400 --new-tokens 64 --json benchmarks/results/vs_trl_long.json
    python benchmarks/vs_trl.py --only ablations --json benchmarks/results/ablations.json
    python benchmarks/vs_trl.py --only sweeps --json benchmarks/results/sweeps.json

First the gate: loss and gradient of both over the same stored completions. When it fails nothing is timed and
the exit code is 1. Then steps in pairs, A B A B, with the KL charged, random rewards, forced lengths, logging
and saving off; the ratio is of the two steps of a pair. Each arm lives in a process of its own, so its peak
memory is its own. The headline is against TRL tuned: bf16, no gradient checkpointing.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gate import is_open, passes
from benchmarks.machine import about, parser_of, save, settle
from benchmarks.process import ArmError, ArmProcess
from benchmarks.ratios import exponent, middle, paired_ratio
from benchmarks.techniques import WITHOUT
from benchmarks.trl_arm import VARIANTS
from benchmarks.workload import StepSpec, step_of

QUICK_SECONDS = 570  # what --quick may take in all


# One technique off at a time: recipe keys that replace the defaults of our arm. An entry whose keys this
# version does not have, or that cannot run here, is said and left out.
ABLATIONS: dict[str, dict[str, Any]] = {
    "native engine": {"rollout.engine": "generate"},
    "compiled cache kernels": {"rollout.cache": "torch"},
    "packed training": {"train.packing": False},
    "skipping of zero rows": {"train.skip_zero": False},
    "bf16 parameters": {"model.dtype": "float32"},
    "small micro-batches": {"train.max_tokens": 2048},
}
CUDA_ABLATIONS: dict[str, dict[str, Any]] = {"CUDA graphs": {"rollout.cuda_graphs": False}}
SWEEPS: dict[str, tuple[int, ...]] = {
    "num_generations": (2, 4, 8, 16, 32),
    "new_tokens": (64, 128, 256, 512),
    "prompt_tokens": (25, 100, 400, 1000),
}
QUICK_SWEEPS: dict[str, tuple[int, ...]] = {
    "num_generations": (2, 4, 8),
    "new_tokens": (16, 32, 64),
    "prompt_tokens": (25, 100, 400),
}


def run_gate(spec: StepSpec) -> dict[str, Any] | None:
    """The gate's figures, or None where TRL is missing; ``passed`` says whether speeds may be published."""
    try:
        small = replace(spec, num_prompts=4, num_generations=4, new_tokens=min(spec.new_tokens, 48))
        with ArmProcess("gate", "gate.py", small.as_dict()) as arm:
            found = arm({"do": "gate"})
    except ArmError as error:
        if "ModuleNotFoundError" not in str(error):
            raise
        print(f"gate: TRL cannot be imported ({error})")
        return None
    found["passed"] = is_open(found)
    for dtype in ("float32", "bfloat16"):
        figures = found[dtype]
        shown = f"loss {figures['loss_rel']:.1e} apart, gradient cosine {figures['grad_cosine']:.7f}"
        verdict = "within the limits" if passes(dtype, figures) else "outside the limits"
        print(f"gate, {dtype}: {shown}: {verdict}", flush=True)
    nearness = {name: f"{side['grad_cosine']:.5f}" for name, side in found["from_float32"].items()}
    print(f"gate, cosine of the bf16 gradients with the one in fp32: {nearness}")
    print(f"gate: {'passed' if found['passed'] else 'FAILED'}", flush=True)
    return found


def start_trl(spec: StepSpec, names: list[str], stack: contextlib.ExitStack) -> dict[str, ArmProcess]:
    """Start the TRL arms; one that cannot start is said and left out."""
    arms = {}
    for name in names:
        try:
            arm = ArmProcess(f"trl_{name}", "trl_arm.py", {"step": spec.as_dict(), "variant": name})
            arms[f"trl_{name}"] = stack.enter_context(arm)
        except ArmError as error:
            print(f"trl_{name}: not measured ({error})")
    return arms


def step_once(arms: dict[str, ArmProcess], name: str) -> dict[str, Any] | None:
    """One step of an arm; an arm that dies is said and taken out."""
    try:
        return arms[name]({"do": "step"})
    except ArmError as error:
        print(f"{name}: not measured ({error})")
        del arms[name]
        return None


def pairs(args: argparse.Namespace, spec: StepSpec, deadline: float) -> dict[str, Any]:
    """Alternate the arms for ``args.pairs`` rounds, bracketed by ceilings; stop early at ``deadline``."""
    rows = [spec.num_prompts * spec.num_generations, 2048]
    bracket = {"do": "ceilings", "rows": rows, "seconds": 0.05 if args.quick else 0.2}
    seconds: dict[str, list[float]] = {}
    phases: list[dict[str, float]] = []
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(ArmProcess("ours", "ours_arm.py", spec.as_dict()))
        arms = start_trl(spec, args.trl, stack) | {"ours": ours}
        brackets = [ours(bracket)]
        peaks: dict[str, int] = {}
        # Our second step is faster than the first (kernels are made); TRL's are long enough not to care.
        for name in list(arms) if not args.quick else ["ours"]:
            step_once(arms, name)
        round_seconds = 0.0
        for number in range(args.pairs):
            begin = time.perf_counter()
            if number >= 2 and begin + round_seconds > deadline:
                print(f"stopped after {number} pairs: another would pass the time limit")
                break
            for name in list(arms):
                if (reply := step_once(arms, name)) is None:
                    seconds.pop(name, None)
                    continue
                seconds.setdefault(name, []).append(reply["seconds"])
                peaks[name] = reply["peak_bytes"]
                if name == "ours":
                    phases.append(reply["phases"])
                print(f"pair {number + 1}/{args.pairs} {name}: {reply['seconds']:.2f} s", flush=True)
            round_seconds = time.perf_counter() - begin
        brackets.append(ours(bracket))
    return {"seconds": seconds, "peak_bytes": peaks, "phases": phases, "brackets": brackets}


def headline(found: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Ratios of each TRL arm to ours, and of memory; the headline is the fastest tuned arm's."""
    seconds, peaks = found["seconds"], found["peak_bytes"]
    ratios = {n: paired_ratio(s, seconds["ours"], seed) for n, s in seconds.items() if n != "ours"}
    tuned = [name for name in ratios if name.startswith("trl_tuned")]
    best = min(tuned or ratios, key=lambda name: middle(seconds[name]), default=None)
    if best is None:
        return {"step_ratio": None, "memory_ratio": None, "against": None, "ratios": ratios}
    return {
        "step_ratio": ratios[best],
        "memory_ratio": peaks["ours"] / peaks[best],
        "against": best,
        "ratios": ratios,
    }


def timed(spec: StepSpec, steps: int) -> dict[str, Any]:
    """Median seconds, phases and peak memory of our step, in a fresh process, after one warm-up step.

    Raises:
        ArmError: the step is not possible with these settings.
    """
    with ArmProcess("ours", "ours_arm.py", spec.as_dict()) as arm:
        arm({"do": "step"})
        replies = [arm({"do": "step"}) for _ in range(steps)]
    names = replies[0]["phases"]
    return {
        "seconds": middle([reply["seconds"] for reply in replies]),
        "phases": {name: middle([reply["phases"][name] for reply in replies]) for name in names},
        "peak_bytes": replies[-1]["peak_bytes"],
    }


def ablations(spec: StepSpec, rounds: int, seed: int) -> dict[str, Any]:
    """Our step with each technique off against our step with all of them, in pairs."""
    found: dict[str, Any] = {}
    known = ABLATIONS | (CUDA_ABLATIONS if spec.device != "cpu" else {})
    changes = {name: replace(spec, overrides=keys) for name, keys in known.items()}
    changes |= {name: replace(spec, without=(name,)) for name in WITHOUT}
    for name, changed in changes.items():
        try:
            with (
                ArmProcess("ours", "ours_arm.py", spec.as_dict()) as whole,
                ArmProcess(name, "ours_arm.py", changed.as_dict()) as less,
            ):
                whole({"do": "step"}), less({"do": "step"})
                steps = [(less({"do": "step"}), whole({"do": "step"})) for _ in range(rounds)]
        except ArmError as error:
            print(f"{name}: left out ({error})")
            found[name] = None
            continue
        ratio = paired_ratio([a["seconds"] for a, _ in steps], [b["seconds"] for _, b in steps], seed)
        memory = steps[-1][0]["peak_bytes"] / steps[-1][1]["peak_bytes"]
        found[name] = {"step_ratio": ratio, "memory_ratio": memory}
        print(f"without {name}: {ratio['median']:.2f} x the time, {memory:.2f} x the memory", flush=True)
    return found


def sweeps(spec: StepSpec, steps: int, *, is_quick: bool) -> dict[str, Any]:
    """Our step's time and memory against group size, new tokens and prompt length; with exponents."""
    found: dict[str, Any] = {}
    for key, sizes in (QUICK_SWEEPS if is_quick else SWEEPS).items():
        base = replace(spec, new_tokens=min(spec.new_tokens, 32 if is_quick else spec.new_tokens))
        points = []
        for size in sizes:
            point = {"size": size, **timed(replace(base, **{key: size}), steps)}
            points.append(point)
            shown = f"{point['seconds']:.2f} s, {point['peak_bytes'] / 2**30:.2f} GiB"
            print(f"{key} = {size}: {shown}", flush=True)
        slope = exponent(sizes, [point["seconds"] for point in points])
        found[key] = {"points": points, **slope}
        print(f"time grows with {key} to the power {slope['exponent']:.2f} ± {slope['error']:.2f}")
    return found


def options() -> argparse.Namespace:
    """The command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--beta", type=float, default=0.001, help="weight of the KL (0.001)")
    parser.add_argument("--microbatch", type=int, default=8, help="TRL's rows per forward pass (8)")
    parser.add_argument("--pairs", type=int, help="pairs of steps (5; 3 with --quick)")
    parser.add_argument("--steps", type=int, help="timed steps of each size of a sweep (3; 1 with --quick)")
    parser.add_argument(
        "--trl",
        type=lambda text: text.split(","),
        help=f"TRL's variants, of {', '.join(VARIANTS)} (default,tuned; tuned with --quick)",
    )
    parser.add_argument("--only", choices=("gate", "steps", "ablations", "sweeps"), help="one part")
    args = parser.parse_args()
    args.pairs = args.pairs or (3 if args.quick else 5)
    args.steps = args.steps or (1 if args.quick else 3)
    args.trl = args.trl or (["tuned"] if args.quick else ["default", "tuned"])
    return args


def main() -> int:
    """Gate, measure, print, write; the exit code is 1 when the gate fails."""
    args, start = options(), time.perf_counter()
    model = settle(args)
    spec = step_of(args, model, beta=args.beta, microbatch_size=args.microbatch)
    results = about(args, model) | {"step": spec.as_dict() | {"model": Path(model).name}}
    parts = (args.only,) if args.only else ("steps",) if args.quick else ("steps", "ablations", "sweeps")
    # Ablations and sweeps compare ours with ours: what TRL computes does not matter there.
    gate = run_gate(spec) if {"gate", "steps"} & set(parts) else None
    shown = gate and {name: gate["bfloat16"][name] for name in ("loss_rel", "grad_cosine")}
    results = {"gate": shown, "step_ratio": None, "memory_ratio": None, "gate_detail": gate} | results
    if gate is not None and not gate["passed"]:
        save(results, args.json)
        print("The gate failed: both do not compute the same, so no speed is measured.", file=sys.stderr)
        return 1
    if "steps" in parts:
        deadline = start + QUICK_SECONDS if args.quick else float("inf")
        found = pairs(args, spec, deadline)
        results |= headline(found, args.seed) | {"steps": found}
        if results["step_ratio"]:
            ratio = results["step_ratio"]
            interval = f"[{ratio['low']:.2f}, {ratio['high']:.2f}]"
            print(f"{results['against']} / ours: {ratio['median']:.2f} {interval}")
            print(f"peak memory, ours / TRL: {results['memory_ratio']:.2f}")
    if "ablations" in parts:
        results["ablations"] = ablations(spec, 2 if args.quick else args.pairs, args.seed)
    if "sweeps" in parts:
        results["sweeps"] = sweeps(spec, args.steps, is_quick=args.quick)
    results["seconds"] = time.perf_counter() - start
    save(results, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
