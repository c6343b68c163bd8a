"""A reward that can be gamed, and one that cannot: who notices?

    python benchmarks/gaming.py --reward sales --expect gamed
    python benchmarks/gaming.py --reward sales_hardened --expect sound

A short SFT on the sales data, then GRPO on the one reward with nothing to hold it: no KL, a high learning
rate. The judge of the sales task scores the hidden answers and is trained on by nothing. The alarm
`quality_gap` must fire for the first reward and stay quiet for the second; `trimtab rewards audit` must
agree. The exit code is 1 where it is not as `--expect` says.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trimtab.cli.main import main as trimtab
from trimtab.config import Recipe, build_recipe
from trimtab.config.recipe import PathsConfig
from trimtab.pipeline import run_pipeline
from trimtab.runs import metrics_table, read_events

ROOT = Path(__file__).resolve().parents[1]
SHOWN = (
    "eval/reward",
    "eval/judge",
    "eval/quality_gap/judge",
    "train/pass_rate",
    "eval/pass_rate",
    "eval/gap",
)


def gaming_recipe(args: argparse.Namespace) -> Recipe:
    """The sales demo's SFT, and GRPO on one reward without a KL penalty."""
    return build_recipe(
        {
            "name": f"gaming {args.reward}",
            "seed": args.seed,
            "threads": 1,
            "model": {"path": args.model, "dtype": "float32"},
            "paths": PathsConfig.under(args.output).model_dump(),
            "sft": {
                "data": str(ROOT / "data/sales/sft.jsonl"),
                "learning_rate": 1e-3,
                "batch_size": 32,
                "steps": args.sft_steps,
            },
            "rl": {
                "data": str(ROOT / "data/prompts/sales_prompts.json"),
                "hidden_data": str(ROOT / "data/sales/hidden_prompts.json"),
                "rewards": [{"name": args.reward, "options": dict(args.option)}],
                "steps": args.steps,
                "num_prompts": 8,
                "num_generations": 8,
                "max_new_tokens": 96,
                "microbatch_size": 32,
                "learning_rate": args.learning_rate,
                "kl": {"coef": 0.0},
                "eval_every": 2,
                "eval_prompts": args.eval_prompts,
            },
            "eval": {"judge": "sales_quality"},
            "monitor": {"samples": 0},
        }
    )


def figures_of(run: str) -> dict[str, Any]:
    """The curves of a run at its evaluations, and the alarms about gaps."""
    table = metrics_table(run, "rl")
    steps = [int(step or 0) for step in table["step"]]
    rows = [row for row, value in enumerate(table["eval/reward"]) if value is not None]
    curves = {name: [table[name][row] for row in rows] for name in SHOWN if name in table}
    alarms = [
        {key: event.data[key] for key in ("kind", "metric", "value", "threshold", "evidence")}
        | {"step": event.step}
        for event in read_events(run, kind="alarm")
        if event.stage == "rl" and event.data["kind"] in ("quality_gap", "hidden_gap")
    ]
    return {"step": [steps[row] for row in rows], "curves": curves, "alarms": alarms}


def show(figures: dict[str, Any]) -> None:
    """Print the curves as a table, and the alarms."""
    print("step  " + "  ".join(f"{name:>22}" for name in figures["curves"]))
    for row, step in enumerate(figures["step"]):
        values = [column[row] for column in figures["curves"].values()]
        print(f"{step:4d}  " + "  ".join(f"{'' if v is None else format(v, '.3f'):>22}" for v in values))
    for alarm in figures["alarms"]:
        figures_text = f"{alarm['value']:.3f}, limit {alarm['threshold']:.3f}"
        print(f"step {alarm['step']}: {alarm['kind']} {alarm['metric']} {figures_text}")


def main() -> int:
    """Run, show, and compare with what was expected."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reward", default="sales", help="a reward's name or FILE.py:function")
    parser.add_argument("--option", action="append", default=[], type=lambda word: word.split("=", 1))
    parser.add_argument("--expect", choices=("gamed", "sound"), help="exit with 1 where it is not so")
    parser.add_argument("--model", default="builtin:tiny-zh")
    parser.add_argument("--sft-steps", type=int, default=60)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--eval-prompts", type=int, default=48)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--output", default="output/gaming")
    parser.add_argument("--stage", choices=("rl",), help="keep the SFT model that is in --output")
    parser.add_argument("--json", help="where the figures are written")
    args = parser.parse_args()
    start, recipe = time.time(), gaming_recipe(args)
    for stage in ("rl",) if args.stage else ("sft", "rl"):
        run_pipeline(recipe, stage=stage)
    figures = figures_of(recipe.paths.run)
    options = [word for key, value in args.option for word in ("--option", f"{key}={value}")]
    audit = trimtab(["rewards", "audit", args.reward, "--rounds", "40", *options])
    show(figures)
    is_caught = any(alarm["kind"] == "quality_gap" for alarm in figures["alarms"])
    figures |= {"reward": args.reward, "audit_exit_code": audit, "seconds": round(time.time() - start, 1)}
    print(f"alarm {'raised' if is_caught else 'quiet'}, audit exit code {audit}, {figures['seconds']} s")
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return int(bool(args.expect) and ({is_caught, bool(audit)} != {args.expect == "gamed"}))


if __name__ == "__main__":
    raise SystemExit(main())
