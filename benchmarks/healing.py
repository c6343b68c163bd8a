"""Does healing help? Four bad recipes, one for each failure of R14, with a guard that heals or that does not.

    python benchmarks/healing.py --json benchmarks/results/healing.json --svg benchmarks/results/healing.svg

A model of 73,584 random weights, one token per byte; a completion is 12 tokens. What is wanted (``quality``)
is different tokens with even ids: the share of 12. The arms have the same recipe, the same seeds and the same
number of steps; only ``monitor.guard`` differs: ``observe``, ``protect``, which only keeps numbers that are
not finite away from the weights, or ``heal``. What counts is the mean reward on hidden prompts after the last
step, or where the run was stopped; nothing where the weights that are left cannot be sampled from.

    kl_explosion      a learning rate 100 times too high, no KL penalty
    reward_hacking    the reward pays for even ids, also for the same one again and again; no KL penalty;
                      `quality` is only measured
    entropy_collapse  temperature 0.3 and a high learning rate: one answer wins, and not a good one
    numerical_crash   a high learning rate, and activations that overflow beyond 65,504 as in float16
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from tests.unit.trainers.systems import FunctionReward, prompts, quiet_view, rl_config, tiny_system

from trimtab.config import MonitorConfig, RLConfig
from trimtab.data import PromptStream
from trimtab.distributed.build import System
from trimtab.errors import DivergedError
from trimtab.evals.suite import evaluate_policy
from trimtab.monitor import Guard, Measure
from trimtab.pipeline.hidden import measures_of
from trimtab.runs import RunWriter, metrics_table, read_events
from trimtab.trainers.cadence import Cadence
from trimtab.trainers.experience import sampling_params
from trimtab.trainers.grpo import train_grpo
from trimtab.trainers.stage import Stage
from trimtab.types import Prompt, Sample

LENGTH, HALF_MAX = 12, 65_504.0
GUARDS = ("observe", "protect", "heal")
CURVES = ("reward/mean", "kl/ref", "policy/entropy", "train/learning_rate", "kl/coef", "eval/reward")


def quality(sample: Sample) -> float:
    """Different tokens with even ids, as a share of the longest completion."""
    return len({token for token in sample.token_ids if token % 2 == 0}) / LENGTH


def even_share(sample: Sample) -> float:
    """Tokens with even ids, the same one as often as one likes."""
    return sum(token % 2 == 0 for token in sample.token_ids) / LENGTH


def overflow_beyond_half(system: System) -> None:
    """Let the outputs of the MLPs overflow as in float16, while learning; sampling stays in float32."""

    def overflow(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return output.half().float() if torch.is_grad_enabled() else output

    for layer in system.policy_model.model.layers:
        layer.mlp.register_forward_hook(overflow)


@dataclass(frozen=True)
class Scenario:
    """A bad recipe: what it trains on, what is wanted, and what is wrong with it."""

    reward: Callable[[Sample], float]
    hidden: Callable[[Sample], float]
    keys: Mapping[str, Any]
    change: Callable[[System], None] = lambda system: None
    max_kl: float = 1.0  # even ids alone cost ln 2 = 0.7 nats per token, so the limit lies above that


SCENARIOS: dict[str, Scenario] = {
    "kl_explosion": Scenario(quality, quality, {"learning_rate": 0.2}),
    "reward_hacking": Scenario(even_share, quality, {"learning_rate": 5e-3}),
    # Sound runs at this temperature (learning rates 2e-3 and 5e-3) stand at 5 to 9 nats per token.
    "entropy_collapse": Scenario(quality, quality, {"learning_rate": 2e-2, "temperature": 0.3}, max_kl=10.0),
    "numerical_crash": Scenario(quality, quality, {"learning_rate": 0.3}, overflow_beyond_half),
}


def hidden_prompts(count: int) -> list[Prompt]:
    """Prompts that are not trained on."""
    return [
        Prompt(f"hidden-{i}", ({"role": "user", "content": f"xy{i}" * (1 + i % 3)},)) for i in range(count)
    ]


def run_arm(scenario: Scenario, guard: str, seed: int, steps: int, root: Path) -> dict[str, Any]:
    """Train one arm and return its hidden reward after the last step, its curves and its actions."""
    rl = rl_config(
        steps=steps,
        max_new_tokens=LENGTH,
        num_prompts=4,
        num_generations=8,
        eval_every=5,
        **{"kl": {"coef": 0.0}, **scenario.keys},
    )
    system = tiny_system(rl, scenario.reward, seed=seed)
    scenario.change(system)
    config = MonitorConfig(guard=guard, max_kl=scenario.max_kl)  # type: ignore[arg-type]
    start, error = time.perf_counter(), ""
    with RunWriter(root, {}) as run:
        stage = Stage("rl", run, quiet_view(steps), Guard(config=config))
        cadence = Cadence(rl=rl, stage=stage, seed=seed, evaluate=evaluation(rl, scenario, seed))
        try:
            train_grpo(system, PromptStream(prompts(64), seed=seed), rl, stage, cadence)
        except DivergedError as problem:
            error = str(problem)
    try:
        reward = final_reward(system, rl, scenario, seed)
    except DivergedError as problem:
        reward, error = None, str(problem)
    return {
        "hidden_reward": reward,
        "stopped": error,
        "seconds": round(time.perf_counter() - start, 1),
        **record_of(root),
    }


def evaluation(rl: RLConfig, scenario: Scenario, seed: int) -> Callable[[System, int], Mapping[str, Measure]]:
    """The evaluation during training, as the pipeline makes it: 32 hidden prompts, the same each time."""
    others = {"eval/hidden_reward/wanted": FunctionReward(scenario.hidden)}
    if scenario.hidden is scenario.reward:
        others = {}
    rows = hidden_prompts(32)

    def evaluate(system: System, step: int) -> Mapping[str, Measure]:
        result = evaluate_policy(
            system.engine, system.tokenizer, rows, system.reward, sampling_params(rl, seed)
        )
        return measures_of(result, 0.5, others)

    return evaluate


def final_reward(system: System, rl: RLConfig, scenario: Scenario, seed: int) -> float:
    """Mean of what is wanted over 64 hidden prompts, four completions each, at the recipe's temperature."""
    reward = FunctionReward(scenario.hidden)
    params = sampling_params(rl, seed + 1000)
    return evaluate_policy(system.engine, system.tokenizer, hidden_prompts(64), reward, params, 4).reward


def record_of(root: Path) -> dict[str, Any]:
    """Curves, alarms and actions of a run."""
    table = metrics_table(root, "rl")
    wanted = [*CURVES, "eval/hidden_reward/wanted"]
    actions = [{"step": e.step, **e.data} for e in read_events(root, "action")]
    alarms = [[e.step, e.data["kind"]] for e in read_events(root, "alarm")]
    curves = {name: [rounded(v) for v in table[name]] for name in wanted if name in table}
    return {"curves": curves, "alarms": alarms, "actions": actions}


def rounded(value: float | None) -> float | None:
    """Four digits are enough for a curve; what is not finite has no place on one."""
    return float(f"{value:.4g}") if value is not None and abs(value) < float("inf") else None


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Two panels per failure: what is wanted, on hidden prompts, and the figure that the failure shows in."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise SystemExit("matplotlib is missing: run `pip install 'trimtab[bench]'`.") from None
    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "trimtab"  # the same results give the same file
    second = {"kl_explosion": "kl/ref", "reward_hacking": "reward/mean", "numerical_crash": "kl/ref"}
    figure, axes = pyplot.subplots(
        len(found), 2, figsize=(9, 2.3 * len(found)), squeeze=False, layout="constrained"
    )
    colours = {"observe": "#e8a33d", "protect": "#adb5bd", "heal": "#0b7285"}
    for row, (name, arms) in zip(axes, found.items(), strict=True):
        for guard, runs in arms.items():
            for number, run in enumerate(runs.values()):
                curves = run["curves"]
                if not curves:
                    continue  # it ended before its first record
                hidden = curves.get("eval/hidden_reward/wanted") or curves["eval/reward"]
                for axis, values in ((row[0], hidden), (row[1], curves[second.get(name, "policy/entropy")])):
                    points = [(step, value) for step, value in enumerate(values) if value is not None]
                    label = guard if number == 0 else None
                    axis.plot(*zip(*points, strict=True), color=colours[guard], label=label, linewidth=1.2)
        row[0].set_title(f"{name.replace('_', ' ')}: hidden reward", loc="left", fontsize=9)
        row[1].set_title(second.get(name, "policy/entropy"), loc="left", fontsize=9)
        if second.get(name) == "kl/ref":
            row[1].set_yscale("symlog", linthresh=0.1)
        for axis in row:
            axis.spines[["top", "right"]].set_visible(False)
            axis.set_xlabel("step", fontsize=8)
    axes[0][0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def table_of(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per failure and seed: the arms, and whether healing ended above both others."""
    rows = []
    for name, arms in found.items():
        for seed, healed in arms["heal"].items():
            others = {guard: arms[guard][seed]["hidden_reward"] for guard in GUARDS[:-1]}
            best = max(value for value in others.values() if value is not None)
            kinds = [a["action"] for a in healed["actions"] if not a["is_undo"]]
            rows.append(
                {
                    "failure": name,
                    "seed": seed,
                    **{guard: None if v is None else round(v, 4) for guard, v in others.items()},
                    "heal": round(healed["hidden_reward"], 4),
                    "better": healed["hidden_reward"] > best,
                    "actions": len(kinds),
                    "rollbacks": kinds.count("rollback"),
                    "undone": sum(a["is_undo"] for a in healed["actions"]),
                }
            )
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    header = "".join(f"{guard:>9}" for guard in GUARDS)
    print(f"{'failure':<18}{'seed':>5}{header}  actions (rollbacks, undone)")
    for row in rows:
        numbers = "".join(f"{'none' if row[g] is None else format(row[g], '.3f'):>9}" for g in GUARDS)
        done = f"{row['actions']} ({row['rollbacks']}, {row['undone']})"
        mark = "" if row["better"] else "   not better"
        print(f"{row['failure']:<18}{row['seed']:>5}{numbers}  {done}{mark}")
    better = sum(row["better"] for row in rows)
    gain = fmean(row["heal"] - row["protect"] for row in rows)
    print(f"higher with heal: {better} of {len(rows)}; mean difference to protect {gain:+.3f}")


def main() -> int:
    """Run all pairs; the exit code is 1 where healing did not end higher in one of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=tuple(SCENARIOS), action="append")
    parser.add_argument("--seeds", default="1,2,3", type=lambda text: [int(word) for word in text.split(",")])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--parts", type=Path, nargs="+", help="join these results instead of running")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for part in args.parts or ():
        for name, arms in json.loads(part.read_text(encoding="utf-8"))["runs"].items():
            for guard, runs in arms.items():
                found.setdefault(name, {guard: {} for guard in GUARDS})[guard] |= runs
    for name in () if args.parts else args.only or SCENARIOS:
        found[name] = {guard: {} for guard in GUARDS}
        for seed in args.seeds:
            for guard, runs in found[name].items():
                root = Path(tempfile.mkdtemp(prefix="healing-"))
                runs[str(seed)] = run_arm(SCENARIOS[name], guard, seed, args.steps, root)
                shutil.rmtree(root)
        show(table_of({name: found[name]}))
    rows = table_of(found)
    if args.json:
        facts = {
            "command": "python benchmarks/healing.py" + "".join(f" {word}" for word in sys.argv[1:]),
            "date": time.strftime("%Y-%m-%d"),
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "steps": args.steps,
        }
        args.json.write_text(json.dumps({**facts, "table": rows, "runs": found}) + "\n", encoding="utf-8")
    if args.svg:
        draw(found, args.svg)
    return int(not all(row["better"] for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
