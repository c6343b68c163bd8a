"""What `trimtab check` says of a recipe's time, and what a real run takes.

    python benchmarks/estimates.py --out benchmarks/results/estimates.json
    python benchmarks/estimates.py --recipe recipes/sales/demo.toml

For each recipe: the `time` line of the check and the seconds of that trial, then the run itself into a
temporary folder, with the seconds of its stages. The ratio is estimate / real; the exit code is 1 where one
lies outside of 1/1.5 to 1.5, or where a trial took more than 10 s. A check that gives no estimate is shown as
such and is no fault. `--quick` runs a few steps of the demo only, to try the script itself.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import ROOT, machine, save, versions

RECIPES = ("recipes/sales/demo.toml", "recipes/code/smollm2.toml", "recipes/math/arithmetic.toml")
MOST_RATIO, MOST_SECONDS = 1.5, 10.0
UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}
STAGE = r"(sft|reward_model|process_reward|rl|eval) ([\d.]+) (s|min|h)\b"
SMALL = ["--sft.steps=2", "--reward_model.steps=2", "--rl.steps=2", "--rl.num_prompts=2"]
SMALL += ["--rl.num_generations=2", "--rl.max_new_tokens=8", "--rl.overlong.buffer=0", "--eval.num_prompts=4"]


def read_estimate(line: str) -> dict[str, Any] | None:
    """Seconds in all and of each stage from the check's ``time`` line; None where it gives no estimate.

    Example:
        >>> read_estimate("pass  time: about 2 min: sft 40 s (60 × 0.7 s), rl 1.5 min (9 × 9 s) (5 tokens/s)")
        {'seconds': 120.0, 'stages': {'sft': 40.0, 'rl': 90.0}}
    """
    if (whole := re.search(r"about ([\d.]+) (s|min|h):", line)) is None:
        return None
    stages = {name: float(value) * UNITS[unit] for name, value, unit in re.findall(STAGE, line)}
    return {"seconds": float(whole[1]) * UNITS[whole[2]], "stages": stages}


def check(recipe: str, words: Sequence[str]) -> dict[str, Any]:
    """The check's ``time`` line, what it says, and how long the trial behind it took."""
    # A process of its own, as a user has it; the clock stands around the trial alone.
    code = (
        "import sys, time, json\n"
        "from trimtab.cli.checks import duration\n"
        "from trimtab.cli.main import main\n"
        "real = duration.check_time\n"
        "def timed(*args):\n"
        "    start = time.perf_counter()\n"
        "    lines = list(real(*args))\n"
        "    print('trial seconds:', time.perf_counter() - start)\n"
        "    yield from lines\n"
        "duration.check_time = timed\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    start = time.perf_counter()
    done = _run([sys.executable, "-c", code, "check", recipe, *words])
    taken = time.perf_counter() - start
    lines = [line for line in done.stdout.splitlines() if re.match(r"\w+ +time: ", line)]
    trial = re.search(r"trial seconds: ([\d.]+)", done.stdout)
    if not lines or trial is None:
        raise SystemExit(
            f"the check of {recipe} has no line `time`:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    found = {"line": lines[0], "trial_seconds": float(trial[1]), "check_seconds": taken}
    return found | {"estimate": read_estimate(lines[0])}


def real_run(recipe: str, words: Sequence[str]) -> dict[str, Any]:
    """Seconds of each stage and of the whole command, which loads and saves, too."""
    with tempfile.TemporaryDirectory(prefix="trimtab-bench-") as folder:
        start = time.perf_counter()
        command = [sys.executable, "-m", "trimtab.cli", "run", recipe, "--output", folder]
        done = _run([*command, "--monitor.samples=0", *words])
        taken = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(
                f"the run of {recipe} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}"
            )
        stages = json.loads((Path(folder) / "summary.json").read_text(encoding="utf-8"))["stages"]
    return {"seconds": sum(stages.values()), "stages": stages, "command_seconds": taken}


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def faults(recipe: str, checked: Mapping[str, Any], real: Mapping[str, Any]) -> list[str]:
    """What is not as issue 14 wants it.

    Example:
        >>> faults("r", {"trial_seconds": 3.0, "estimate": {"seconds": 20.0}}, {"seconds": 10.0})
        ['r: the estimate is 2.00 times the real time']
    """
    said = []
    if checked["trial_seconds"] > MOST_SECONDS:
        said.append(f"{recipe}: the trial took {checked['trial_seconds']:.1f} s")
    if checked["estimate"] is not None:
        ratio = checked["estimate"]["seconds"] / real["seconds"]
        if not 1 / MOST_RATIO <= ratio <= MOST_RATIO:
            said.append(f"{recipe}: the estimate is {ratio:.2f} times the real time")
    return said


def show(recipe: str, checked: Mapping[str, Any], real: Mapping[str, Any]) -> None:
    """A line for each stage and one for all of them."""
    print(f"{recipe}: {checked['line']}")
    print(f"  the trial took {checked['trial_seconds']:.1f} s; the command {real['command_seconds']:.1f} s")
    estimate = checked["estimate"] or {"seconds": None, "stages": {}}
    rows = [(name, estimate["stages"].get(name), taken) for name, taken in real["stages"].items()]
    for name, said, taken in [*rows, ("all", estimate["seconds"], real["seconds"])]:
        shown = (
            "no estimate" if said is None else f"{said:8.1f} s estimated, ratio {said / max(taken, 1e-9):.2f}"
        )
        print(f"  {name:<15}{taken:8.1f} s real, {shown}", flush=True)


def main() -> int:
    """Check, run and compare; see the module for the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--recipe", action="append", metavar="FILE", help=f"({', '.join(RECIPES)})")
    parser.add_argument("--quick", action="store_true", help="a few steps of the demo: tries the script")
    parser.add_argument("--out", "--json", dest="out", metavar="FILE", help="write the results")
    args = parser.parse_args()
    words = SMALL if args.quick else []
    results, said = {}, []
    for recipe in args.recipe or (RECIPES[:1] if args.quick else RECIPES):
        checked = check(recipe, words)
        real = real_run(recipe, words)
        show(recipe, checked, real)
        results[recipe] = {"check": checked, "run": real}
        said += faults(recipe, checked, real)
    print("\n".join(said) or "as wanted")
    about = {"versions": versions(), "machine": machine("cpu")}
    save({**about, "recipes": results, "faults": said}, args.out)
    return int(bool(said) and not args.quick)


if __name__ == "__main__":
    raise SystemExit(main())
