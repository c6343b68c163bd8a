"""Does a constraint keep a limit that a fixed weight misses? Persuasion against invented prices.

The reward pays for concrete offers. Which prices a customer may be told is in the row's column ``prices``,
and never in the prompt, so every price that the policy quotes carries a risk that it cannot see:

    offer                 pays   is not in the customer's list
    a special price       0.5    2 of 3 times
    the yearly price      0.3    1 of 12 times
    an online demo        0.2    never

A weight on ``no_invented_price`` under 0.5 / (2/3) = 0.75 leaves the special price worth quoting; one above
0.3 · 12 = 3.6 makes the yearly one not worth it either. Where these two lie follows from risks that nobody
knows beforehand. With ``--recipe recipes/sales/allowance.toml`` only the special price pays, it is wrong
1 of 3 times, and the limit leaves room for some: there a fixed weight pulls to all or nothing.

Each arm starts from the same SFT model and takes the same steps with the same seeds; only the entry
``no_invented_price`` of ``rl.rewards`` differs: a constraint with a target, or a fixed weight. The reward
without penalty and the share of answers with an invented price are measured on hidden prompts.

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
PATTERNS = {"只要[1-3]99元": "special", "年付[0-9]+元": "yearly", "预约演示": "demo"}  # → name in the table
# Name of the recipe → its arms: "constraint" as in the recipe, with another target in percent, or a weight.
ARMS = {
    "constraint": "constraint,weight 0.3,weight 1,weight 3,weight 10,weight 0.1,constraint 20,constraint 5",
    "allowance": "constraint,weight 0.5,weight 1,weight 1.2,weight 1.4,weight 1.6,weight 2",
}
RISE = 0.03  # of the mean reward of some 530 answers: two standard errors of a difference


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
    """Prompts, each with the prices that this customer may be told: exact shares in random order.

    ``prices`` holds one special price and one yearly one, ``open_prices`` two special prices and both others.
    """
    rng = random.Random(f"prices-{seed}")
    special, yearly = (
        [prices[row % len(prices)] for row in range(len(prompts))] for prices in (SPECIAL, YEARLY)
    )
    rng.shuffle(special)
    rng.shuffle(yearly)
    closed = [SPECIAL[row % len(SPECIAL)] for row in range(len(prompts))]
    random.Random(f"open-{seed}").shuffle(closed)
    for prompt, first, second, third in zip(prompts, special, yearly, closed, strict=True):
        others = [*(price for price in SPECIAL if price != third), *dict.fromkeys(YEARLY)]
        open_prices = " ".join(f"{price}元" for price in others)
        yield {"prompt": prompt, "prices": f"{first}元 {second}元", "open_prices": open_prices}


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


def entry_of(arm: str, limit: RewardSpec) -> RewardSpec:
    """The entry ``limit`` of ``rl.rewards`` as the arm has it."""
    kind, *number = arm.split()
    if kind == "weight":
        role: dict[str, Any] = {"weight": float(number[0])}
    else:
        assert limit.constraint is not None
        target = {"target": float(number[0]) / 100} if number else {}
        role = {"constraint": {**limit.constraint.model_dump(), **target}}
    return RewardSpec.model_validate({"name": limit.name, "options": limit.options, **role})


def recipe_of(file: Path, arm: str | None, seed: int, out: Path) -> Recipe:
    """The recipe with the arm's reward, its RL started from the SFT model of ``out``; None: only SFT."""
    recipe = load_recipe(file, [("seed", str(seed))], output=str(out / (arm or "sft")))
    recipe = recipe.model_copy(update={"eval": None})
    if arm is None:
        return recipe.model_copy(update={"rl": None})
    assert recipe.rl is not None
    *offers, limit = recipe.rl.rewards
    rewards = [*offers, entry_of(arm, limit)]
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
    names = [PATTERNS[str(spec.options["pattern"])] for spec in rl.rewards[:-1]]
    parts = dict(zip(names, found.parts.values(), strict=True))
    return {"reward": found.reward, "rate": 1.0 - fmean(kept), **parts}


def main() -> None:
    """Run every arm with every seed and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write-data", action="store_true", help="only write the data")
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--out", type=Path, default=Path("output/constraint"), help="where the runs go")
    parser.add_argument("--seeds", default="1", help="comma-separated")
    parser.add_argument("--arms", help="comma-separated: constraint, constraint PERCENT, weight NUMBER")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    if options.write_data:
        write_data()
        return
    file, rows = options.recipe, []
    arms = (options.arms or ARMS.get(file.stem, "constraint,weight 1")).split(",")
    for seed in map(int, options.seeds.split(",")):
        out = options.out / file.stem / f"seed-{seed}"
        if not (out / "sft" / "sft").exists():
            run_pipeline(recipe_of(file, None, seed, out))
        for arm in ["SFT", *arms]:
            start = time.perf_counter()
            recipe = recipe_of(file, "weight 0" if arm == "SFT" else arm, seed, out)
            if arm != "SFT":
                run_pipeline(recipe)
            found = measured(recipe, str(out / "sft" / "sft") if arm == "SFT" else recipe.paths.policy, seed)
            rows.append({"arm": arm, "seed": seed, **found, "seconds": time.perf_counter() - start})
            print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
            if options.json:
                options.json.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n")
    print(table(rows, target_of(file)))


def target_of(file: Path) -> float:
    """The limit of the recipe: the target of its last reward."""
    recipe = load_recipe(file)
    assert recipe.rl is not None and recipe.rl.rewards[-1].constraint is not None
    return recipe.rl.rewards[-1].constraint.target


def table(rows: list[dict[str, Any]], target: float) -> str:
    """One line per arm: means, seeds on which the limit was kept and the reward rose, and every seed."""
    start = {row["seed"]: row["reward"] for row in rows if row["arm"] == "SFT"}
    lines = ["arm              reward   violations   both   per seed: reward / violations"]
    for arm in dict.fromkeys(row["arm"] for row in rows):
        mine = [row for row in rows if row["arm"] == arm]
        both = sum(row["rate"] <= target and row["reward"] > start[row["seed"]] + RISE for row in mine)
        each = "  ".join(f"{row['reward']:.3f} / {row['rate']:.1%}" for row in mine)
        reward, rate = (fmean(row[key] for row in mine) for key in ("reward", "rate"))
        lines.append(f"{arm:16s} {reward:.3f}   {rate:8.1%}   {both} of {len(mine)}   {each}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
