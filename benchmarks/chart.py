"""Draw the results: one SVG with the sampling speeds, the step times, and the sweeps that the files hold.

    python benchmarks/chart.py benchmarks/results/*.json --output benchmarks/results/speed.svg

Files are known by their keys; a part that no file has is left out. Needs matplotlib (the extra ``bench``).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

LABELS = {
    "native": "trimtab",
    "ours": "trimtab",
    "generate": "transformers generate",
    "vllm": "vLLM",
    "trl_default": "TRL, default",
    "trl_tuned": "TRL, tuned",
    "trl_tuned_static": "TRL, tuned, static cache",
    "trl_bf16_weights": "TRL, bf16 weights",
}
OURS, OTHERS = "#0b7285", "#adb5bd"
Panel = tuple[str, Callable[[Any], None]]


def bars(axes: Any, values: dict[str, float], unit: str, limit: float | None = None) -> None:
    """Horizontal bars with their figures; ``limit`` is drawn as a line."""
    names = sorted(values, key=lambda name: values[name])
    colours = [OURS if LABELS.get(name) == "trimtab" else OTHERS for name in names]
    drawn = axes.barh([LABELS.get(name, name) for name in names], [values[n] for n in names], color=colours)
    axes.bar_label(drawn, fmt="%.3g", padding=3)
    if limit:
        axes.axvline(limit, color="#c92a2a", linestyle="--", label="roofline")
        axes.legend(frameon=False, loc="lower right")
    axes.set_xlabel(unit)
    axes.set_xlim(0, 1.2 * max([*values.values(), limit or 0]))


def lines(axes: Any, sweeps: dict[str, Any]) -> None:
    """Step time against each swept size, both axes logarithmic."""
    for key, sweep in sweeps.items():
        sizes = [point["size"] for point in sweep["points"]]
        label = f"{key.replace('_', ' ')} (power {sweep['exponent']:.2f})"
        axes.loglog(sizes, [point["seconds"] for point in sweep["points"]], marker="o", label=label)
    axes.set_xlabel("size")
    axes.set_ylabel("seconds per step")
    axes.legend(frameon=False)


def panels_of(results: dict[str, Any]) -> list[Panel]:
    """The parts of the chart that one file of results can fill."""
    found: list[Panel] = []
    for name, scenario in results.get("scenarios", {}).items():
        limit = results.get("roofline_tokens_per_s") if name == "forced" else None
        speeds = scenario["tokens_per_s"]
        found.append(
            (f"sampling, {name}", lambda a, s=speeds, r=limit: bars(a, s, "tokens per second", r))  # type: ignore[misc]
        )
    if steps := results.get("steps"):
        step = results["step"]
        title = f"GRPO step, {step['prompt_tokens']} + {step['new_tokens']} tokens"
        times = {name: median(values) for name, values in steps["seconds"].items()}
        found.append((title, lambda a, t=times: bars(a, t, "seconds (less is better)")))  # type: ignore[misc]
    if kept := {name: entry for name, entry in (results.get("ablations") or {}).items() if entry}:
        slower = {f"without {name}": entry["step_ratio"]["median"] for name, entry in kept.items()}
        found.append(("ablations", lambda a, s=slower: bars(a, s, "times the step time")))  # type: ignore[misc]
    if sweeps := results.get("sweeps"):
        found.append(("scaling", lambda a, s=sweeps: lines(a, s)))  # type: ignore[misc]
    return found


def main() -> int:
    """Draw and write; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="+", metavar="JSON")
    parser.add_argument("--output", default="benchmarks/results/speed.svg", metavar="SVG")
    args = parser.parse_args()
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise SystemExit("matplotlib is missing: run `pip install 'trimtab[bench]'`.") from None
    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "trimtab"  # the same results give the same file
    loaded = [json.loads(Path(file).read_text(encoding="utf-8")) for file in args.results]
    panels = [panel for results in loaded for panel in panels_of(results)]
    if not panels:
        print("None of these files holds results of rollout.py or vs_trl.py.", file=sys.stderr)
        return 2
    figure, axes = pyplot.subplots(
        len(panels), 1, figsize=(8, 2.6 * len(panels)), squeeze=False, layout="constrained"
    )
    for (title, draw), axis in zip(panels, axes[:, 0], strict=True):
        axis.set_title(title, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
        draw(axis)
    Path(args.output).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.output, metadata={"Date": None})
    print(f"written to {args.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
