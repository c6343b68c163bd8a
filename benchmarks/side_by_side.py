"""Two copies on one machine: how much of its speed does each keep beside the other?

    python benchmarks/side_by_side.py --json benchmarks/results/side_by_side.json
    python benchmarks/side_by_side.py --config 0.5b --only sampling --only step

Sampling, a GRPO step and the RL stage of the sales demo, alone and twice at once, each copy a process with an
output folder of its own. `trimtab` is how Trimtab lets threads wait (`trimtab/cores.py`), `runtime` is what
OpenMP's runtimes do by themselves. Settings take turns; figures are medians. The exit code is 1 where a copy
keeps less than 0.4 of its speed under Trimtab's setting, or where that setting costs more than 3 % alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import ROOT, about, parser_of, save, settle
from benchmarks.process import ArmProcess
from benchmarks.workload import make_prompts, step_of

from trimtab.cores import WAITING, settle_environment
from trimtab.runs import metrics_table

KINDS = ("sampling", "step", "demo")
SETTINGS = ("trimtab", "runtime")
MIN_SHARE, MIN_ALONE = 0.4, 0.97
# libgomp's and Intel's own values. Said out loud, since `import trimtab` sets others where nothing is said.
RUNTIME = {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}
RECIPE = ROOT / "recipes/sales/demo.toml"
SMALL_DEMO = ["--sft.steps=2", "--reward_model.steps=2", "--rl.steps=2", "--rl.num_prompts=2"]
SMALL_DEMO += ["--rl.num_generations=2", "--rl.max_new_tokens=8", "--rl.overlong.buffer=0"]
Copies = Callable[[str, int], list[float]]  # setting, number of copies at once -> units per second of each


def environment_of(setting: str) -> dict[str, str]:
    """The caller's environment, with one of the two ways of waiting in place of the caller's own."""
    kept = {name: value for name, value in os.environ.items() if name not in WAITING}
    if setting == "runtime":
        return kept | RUNTIME
    settle_environment(kept)
    return kept


def arm_copies(script: str, spec: Mapping[str, Any], request: Mapping[str, Any], seconds: float) -> Copies:
    """Copies of an arm that work for the same ``seconds``: so each has the other beside it all the time."""

    def work(arm: ArmProcess) -> float:
        done = 0.0
        start = time.perf_counter()
        while (taken := time.perf_counter() - start) < seconds:
            reply = arm(request)
            done += float(reply["tokens"])
        return done / taken

    def copies(setting: str, count: int) -> list[float]:
        with contextlib.ExitStack() as stack:
            arms = [
                stack.enter_context(ArmProcess(str(i), script, spec, environment=environment_of(setting)))
                for i in range(count)
            ]
            for arm in arms:
                arm(request)  # compiles, and takes its memory
            with ThreadPoolExecutor(count) as pool:
                return list(pool.map(work, arms))

    return copies


def demo_copies(root: Path, *, is_quick: bool) -> Copies:
    """The demo's RL stage, after its SFT and its reward model, which are made once."""
    words = SMALL_DEMO if is_quick else []
    for stage in ("sft", "reward_model"):
        _wait(_start_stage(root / "base", stage, words, "trimtab"))
    number = iter(range(10**6))

    def copies(setting: str, count: int) -> list[float]:
        outputs = [root / f"copy-{next(number)}" for _ in range(count)]
        for output in outputs:
            shutil.copytree(root / "base", output)
        for process in [_start_stage(output, "rl", words, setting) for output in outputs]:
            _wait(process)
        # Loading is left out, and so is the first step, which compiles.
        tables = [metrics_table(output / "run", "rl") for output in outputs]
        return [1 / median([float(s or 0.0) for s in table["time/step"][1:]]) for table in tables]

    return copies


def _start_stage(output: Path, stage: str, words: Sequence[str], setting: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "trimtab.cli", "run", str(RECIPE), "--stage", stage]
    return subprocess.Popen(
        [*command, "--output", str(output), "--monitor.samples=0", *words],
        cwd=ROOT,
        env=environment_of(setting),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _wait(process: subprocess.Popen[str]) -> None:
    said, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"a copy of the demo ended with exit code {process.returncode}: {said[-2000:]}")


def measure(copies: Copies, repeats: int) -> dict[str, dict[str, Any]]:
    """Speeds alone and of two at once under both settings; shares are of the same setting alone."""
    alone: dict[str, list[float]] = {setting: [] for setting in SETTINGS}
    both: dict[str, list[list[float]]] = {setting: [] for setting in SETTINGS}
    for _ in range(repeats):
        for setting in SETTINGS:
            alone[setting] += copies(setting, 1)
            both[setting].append(copies(setting, 2))
    return {setting: summary(alone[setting], both[setting]) for setting in SETTINGS}


def summary(alone: Sequence[float], both: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Medians over the repeats.

    Example:
        >>> summary([10.0], [[4.0, 5.0]])["shares"]
        [0.4, 0.5]
    """
    beside = [median(speeds) for speeds in zip(*both, strict=True)]
    return {
        "alone": median(alone),
        "beside": beside,
        "shares": [speed / median(alone) for speed in beside],
        "repeats": {"alone": list(alone), "beside": [list(speeds) for speeds in both]},
    }


def faults(kind: str, found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is not as issue 14 wants it.

    Example:
        >>> side = {"alone": 1.0, "shares": [0.5, 0.3]}
        >>> faults("step", {"trimtab": side, "runtime": {**side, "alone": 2.0}})
        ['step: a copy keeps 0.30 of its speed', 'step: alone 0.50 of the speed of before']
    """
    ours, before = found["trimtab"], found["runtime"]
    share, alone = min(ours["shares"]), ours["alone"] / before["alone"]
    said = [f"{kind}: a copy keeps {share:.2f} of its speed"] if share < MIN_SHARE else []
    return said + ([f"{kind}: alone {alone:.2f} of the speed of before"] if alone < MIN_ALONE else [])


def main() -> int:
    """Measure and print; see the module for the exit code."""
    parser = parser_of(__doc__)
    parser.add_argument("--only", action="append", choices=KINDS, help="one of the three (all)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="that each copy works (20)")
    parser.add_argument("--out", dest="json", metavar="FILE", help="the same as --json")
    args = parser.parse_args()
    if args.quick:
        args.repeats, args.seconds = 1, min(args.seconds, 0.5)
    kinds, results = args.only or KINDS, {}
    needs_model = set(kinds) != {"demo"}
    model = settle(args) if needs_model else "builtin:tiny-zh"
    print(f"{'':<10}{'waiting':<10}{'alone':>10}{'beside':>20}{'share':>14}", flush=True)
    with tempfile.TemporaryDirectory(prefix="trimtab-bench-") as folder:
        for kind in kinds:
            unit = "steps/s" if kind == "demo" else "tokens/s"
            found = measure(copies_of(kind, args, model, Path(folder)), args.repeats)
            results[kind] = {"unit": unit, **found}
            for setting, side in found.items():
                beside = ", ".join(f"{speed:.4g}" for speed in side["beside"])
                shares = ", ".join(f"{share:.2f}" for share in side["shares"])
                print(
                    f"{kind:<10}{setting:<10}{side['alone']:>10.4g}{beside:>20}{shares:>14}  {unit}",
                    flush=True,
                )
    said = [fault for kind in kinds for fault in faults(kind, results[kind])]
    whole = {**about(args, model), "settings": settings_shown(), "kinds": results, "faults": said}
    print(f"{whole['machine']['processor']}, {whole['machine']['cores']} cores; {whole['versions']}")
    print("\n".join(said) or "as wanted")
    save(whole, args.json)
    return int(bool(said) and not args.quick)


def settings_shown() -> dict[str, dict[str, str]]:
    """What each setting says to the runtimes."""
    return {s: {n: v for n, v in environment_of(s).items() if n in WAITING} for s in SETTINGS}


def copies_of(kind: str, args: Any, model: str, root: Path) -> Copies:
    """What is run for one of ``KINDS``."""
    if kind == "demo":
        return demo_copies(root, is_quick=args.quick)
    if kind == "step":
        spec = step_of(args, model).as_dict()
        return arm_copies("ours_arm.py", spec, {"do": "step"}, args.seconds)
    from benchmarks.workload import encode

    from trimtab.models.load import load_tokenizer

    tokenizer = load_tokenizer(model)
    messages = make_prompts(tokenizer, [args.prompt_tokens] * args.prompts, args.seed)
    spec = {
        "model": model,
        "engine": "native",
        "dtype": args.dtype,
        "device": args.device,
        "threads": args.threads,
    }
    request = {
        "do": "sample",
        "prompts": [encode(tokenizer, row) for row in messages],
        "num_generations": args.generations,
        "new_tokens": args.new_tokens,
        "is_forced": True,
        "seed": args.seed,
    }
    return arm_copies("sample_arm.py", spec, request, args.seconds)


if __name__ == "__main__":
    raise SystemExit(main())
