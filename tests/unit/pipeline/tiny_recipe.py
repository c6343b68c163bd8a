"""A whole pipeline on a tiny random model: a recipe of four stages, a few steps each, in one directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.unit.trainers.systems import tiny_directory

from trimtab.config import Recipe, build_recipe
from trimtab.config.recipe import PathsConfig

_FILE = Path(__file__).with_name("tiny_reward.py")
VARIED, LONGER = f"{_FILE}:varied", f"{_FILE}:longer"
Tree = dict[str, Any]


def write_lines(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def tiny_tree(root: Path) -> Tree:
    """The recipe as plain data; its files are written into ``root``."""
    (root / "prompts.json").write_text(json.dumps([f"question number {i}" for i in range(6)]))
    (root / "hidden.json").write_text(json.dumps([f"something else entirely {i}" for i in range(3)]))
    sft = [{"prompt": f"q{i}", "completion": "yes " * (1 + i % 3)} for i in range(8)]
    pairs = [{"prompt": f"q{i}", "chosen": "yes", "rejected": "no"} for i in range(8)]
    return {
        "name": "tiny",
        "seed": 3,
        "threads": 1,
        "model": {"path": tiny_directory(root / "base"), "dtype": "float32"},
        "paths": PathsConfig.under(root / "out").model_dump(),
        "sft": {"data": write_lines(root / "sft.jsonl", sft), "steps": 3, "batch_size": 4},
        "reward_model": {"data": write_lines(root / "pairs.jsonl", pairs), "steps": 2, "batch_size": 4},
        "rl": {
            "data": str(root / "prompts.json"),
            "hidden_data": str(root / "hidden.json"),
            "rewards": [VARIED, "reward_model"],
            "steps": 3,
            "num_prompts": 2,
            "num_generations": 2,
            "num_minibatches": 1,
            "max_new_tokens": 8,
            "learning_rate": 1e-3,
        },
        "eval": {"num_prompts": 3, "judge": LONGER},
        "monitor": {"samples": 0},
    }


def changed(tree: Tree, **sections: Any) -> Recipe:
    """The recipe with some keys of some tables replaced; None removes a table."""
    merged = {k: v for k, v in tree.items() if sections.get(k, v) is not None}
    for name, keys in sections.items():
        if isinstance(keys, dict):
            merged[name] = {**tree.get(name, {}), **keys}
    return build_recipe(merged)
