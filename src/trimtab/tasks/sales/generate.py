"""Write the committed sales data, byte for byte the same for the same code.

python -m trimtab.tasks.sales.generate --out data
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from trimtab.tasks.sales.datasets import (
    generate_hidden_prompts,
    generate_preferences,
    generate_sft,
    generate_train_prompts,
)


def write_all(out: Path) -> dict[str, int]:
    """Write the four files under ``out`` and return how many rows each has."""
    sft, preferences, prompts = generate_sft(), generate_preferences(), generate_train_prompts()
    train = [row["prompt"] for row in sft + preferences] + prompts
    hidden = generate_hidden_prompts(train)
    files: dict[str, Sequence[object]] = {
        "sales/sft.jsonl": sft,
        "sales/preferences.jsonl": preferences,
        "prompts/sales_prompts.json": prompts,
        "sales/hidden_prompts.json": hidden,
    }
    for name, rows in files.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".jsonl"):
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        else:
            text = json.dumps(rows, ensure_ascii=False, indent=0) + "\n"
        path.write_text(text, encoding="utf-8", newline="\n")
    return {name: len(rows) for name, rows in files.items()}


def main() -> None:
    """Parse the command line and write the files."""
    parser = argparse.ArgumentParser(description="Write the sales data sets.")
    parser.add_argument("--out", type=Path, default=Path("data"), help="folder to write into")
    for name, rows in write_all(parser.parse_args().out).items():
        print(f"{rows:5d} rows  {name}")


if __name__ == "__main__":
    main()
