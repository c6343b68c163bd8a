"""Does a constraint keep a limit that a fixed weight misses? Persuasion against invented prices.

The reward pays for concrete offers. Which prices a customer may be told is in the row's column ``prices``,
and never in the prompt, so every price that the policy quotes carries a risk that it cannot see:

    offer                 pays   is not in the customer's list
    a special price       0.5    2 of 3 times
    the yearly price      0.3    1 of 12 times
    an online demo        0.2    never

A weight on ``no_invented_price`` under 0.5 / (2/3) = 0.75 leaves the special price worth quoting; one above
0.3 · 12 = 3.6 makes the yearly one not worth it either. Where these two lie follows from risks that nobody
knows beforehand. Each arm starts from the same SFT model and takes the same steps with the same seeds; only
the entry ``no_invented_price`` of ``rl.rewards`` differs: a constraint with a target, or a fixed weight.
Reward (without any penalty) and the share of answers with an invented price are measured on hidden prompts.

    python benchmarks/constraint.py --json out.json --seeds 1,2,3
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trimtab.config import Recipe, RewardSpec, load_recipe
from trimtab.data import load_prompts
from trimtab.evals.suite import evaluate_policy
from trimtab.models.load import load_causal_lm, load_tokenizer
from trimtab.pipeline.run import run_pipeline
from trimtab.rewards.registry import build_reward
from trimtab.rollout.collect import sample_of
from trimtab.rollout.engine import build_engine
from trimtab.tasks.sales.content import expand
from trimtab.tasks.sales.datasets import generate_requests, hidden_prompts
from trimtab.trainers.experience import sampling_params
from trimtab.trainers.seeds import derive_seed

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes/sales/constraint.toml"
DATA = ROOT / "data/sales"
SPECIAL = (199, 299, 399)  # one of them is in a customer's list
YEARLY = (990,) * 11 + (890,)  # likewise; nearly always the first
# What an answer of the past may say, and how often it did.
CLAUSES = {
    "给您只要{199|299|399}元": 0.45,
    "年付{990|990|990|990|990|990|990|990|990|990|990|890}元": 0.3,
    "可以预约演示": 0.3,
    "培训已包含": 0.5,
    "账号可随时加减": 0.5,
}
# Name of the arm → the entry no_invented_price of rl.rewards: a constraint with a target, or a weight.
ARMS: dict[str, dict[str, Any]] = {
    "constraint 10 %": {"constraint": {"target": 0.10}},
    "weight 0.3": {"weight": 0.3},
    "weight 1": {"weight": 1.0},
    "weight 3": {"weight": 3.0},
    "weight 10": {"weight": 10.0},
    "weight 0.1": {"weight": 0.1},
    "constraint 20 %": {"constraint": {"target": 0.20}},
    "constraint 5 %": {"constraint": {"target": 0.05}},
}


def sft_rows(count: int = 800, seed: int = 11) -> Iterator[dict[str, str]]:
    """Past answers: some of the clauses, in any order."""
    rng = random.Random(f"prices-sft-{seed}")
    for request in chinese(count, seed):
        said: list[str] = []
        while not said:
            said = [expand(clause, rng, {}) for clause, share in CLAUSES.items() if rng.random() < share]
        rng.shuffle(said)
        yield {"prompt": request, "completion": "，".join(said) + "。"}


def prompt_rows(prompts: Sequence[str], seed: int) -> Iterator[dict[str, str]]:
    """Prompts, each with the prices that this customer may be told: exact shares in random order."""
    rng = random.Random(f"prices-{seed}")
    special, yearly = (
        [prices[row % len(prices)] for row in range(len(prompts))] for prices in (SPECIAL, YEARLY)
    )
    rng.shuffle(special)
    rng.shuffle(yearly)
    for prompt, first, second in zip(prompts, special, yearly, strict=True):
        yield {"prompt": prompt, "prices": f"{first}元 {second}元"}


def chinese(count: int, seed: int) -> list[str]:
    """``count`` prompts of the sales task in Chinese, none of the hidden set."""
    requests = generate_requests(count * 2, seed)
    return [request.prompt for request in requests if request.language == "zh"][:count]


def write_data() -> None:
    """Write what the recipe reads."""
    hidden = hidden_prompts(DATA / "hidden_prompts.json")
    files = {
        "prices_sft": sft_rows(),
        "prices_prompts": prompt_rows(chinese(240, 12), 12),
        "prices_hidden": prompt_rows([p for p in hidden if any("一" <= c <= "龥" for c in p)], 13),
    }
    for name, rows in files.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (DATA / f"{name}.jsonl").write_text(text, encoding="utf-8", newline="\n")


def recipe_of(arm: str | None, seed: int, out: Path) -> Recipe:
    """The recipe with the arm's reward, its RL started from the SFT model of ``out``."""
    overrides = [("seed", str(seed))]
    recipe = load_recipe(RECIPE, overrides, output=str(out / (arm or "sft"))).model_copy(
        update={"eval": None}
    )
    if arm is None:
        return recipe.model_copy(update={"rl": None})
    assert recipe.rl is not None
    *offers, limit = recipe.rl.rewards
    changed = {"name": limit.name, "options": limit.options, **ARMS[arm]}
    rewards = [*offers, RewardSpec.model_validate(changed)]
    rl = recipe.rl.model_copy(update={"rewards": rewards, "model": str(out / "sft" / "sft")})
    return recipe.model_copy(update={"rl": rl, "sft": None})


def measured(recipe: Recipe, path: str, seed: int) -> dict[str, float]:
    """Reward without the limit, and share of invented prices, of the model at ``path`` on hidden prompts."""
    rl = recipe.rl
    assert rl is not None and rl.hidden_data is not None
    model, tokenizer = load_causal_lm(path, recipe.model), load_tokenizer(path, recipe.model.chat_template)
    params = sampling_params(rl, derive_seed(seed, "evaluation"))
    offers, engine = build_reward(rl.rewards[:-1]), build_engine(model, tokenizer)
    found = evaluate_policy(engine, tokenizer, load_prompts(rl.hidden_data), offers, params, 3)
    limit = build_reward(rl.rewards[-1:])
    kept = [
        limit.components[0][0].score([sample_of(g.prompt, c)])[0].value or 0.0
        for g in found.groups
        for c in g.completions
    ]
    parts = dict(zip(("special", "yearly", "demo"), found.parts.values(), strict=True))
    return {"reward": found.reward, "rate": 1.0 - fmean(kept), **parts}


def main() -> None:
    """Run every arm with every seed and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write-data", action="store_true", help="only write the SFT data")
    parser.add_argument("--out", type=Path, default=Path("output/constraint"), help="where the runs go")
    parser.add_argument("--seeds", default="1", help="comma-separated")
    parser.add_argument("--arms", default=",".join(ARMS), help="comma-separated")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    if options.write_data:
        write_data()
        return
    rows = []
    for seed in map(int, options.seeds.split(",")):
        out = options.out / f"seed-{seed}"
        if not (out / "sft" / "sft").exists():
            run_pipeline(recipe_of(None, seed, out))
        for arm in ["SFT", *options.arms.split(",")]:
            start = time.perf_counter()
            recipe = recipe_of("weight 0.1" if arm == "SFT" else arm, seed, out)
            if arm != "SFT":
                run_pipeline(recipe)
            found = measured(recipe, str(out / "sft" / "sft") if arm == "SFT" else recipe.paths.policy, seed)
            rows.append({"arm": arm, "seed": seed, **found, "seconds": time.perf_counter() - start})
            print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
            if options.json:
                options.json.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n")
    print(table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    """One line per arm: mean over the seeds, and every seed."""
    lines = ["arm              reward   violations   per seed: reward / violations"]
    for arm in dict.fromkeys(row["arm"] for row in rows):
        mine = [row for row in rows if row["arm"] == arm]
        each = "  ".join(f"{row['reward']:.3f} / {row['rate']:.1%}" for row in mine)
        reward, rate = (fmean(row[key] for row in mine) for key in ("reward", "rate"))
        lines.append(f"{arm:16s} {reward:.3f}   {rate:8.1%}     {each}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
