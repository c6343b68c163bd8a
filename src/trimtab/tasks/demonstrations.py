"""Right answers of a task as pairs for SFT, from its train split alone.

``python -m trimtab.tasks.demonstrations SOURCE --count N --seed S --out FILE.jsonl`` writes them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from trimtab.errors import DataError
from trimtab.tasks.registry import load_task_prompts


def demonstrations(source: str, count: int, seed: int) -> list[dict[str, str]]:
    """Rows of ``prompt`` and ``completion``: the column ``solution`` of the prompts, or else ``answer``.

    Raises:
        DataError: an unknown task, or one whose prompts have no right answer.

    Example:
        >>> demonstrations("task:code?language=en", 1, 0)[0]["completion"].splitlines()[0]
        '```python'
    """
    rows = []
    for prompt in load_task_prompts(source, "train", count, seed):
        answer = prompt.columns.get("solution") or prompt.columns.get("answer")
        if not answer:
            raise DataError(f"{source} has no right answers, so there is nothing to demonstrate.")
        rows.append({"prompt": prompt.text, "completion": str(answer)})
    return rows


def main() -> None:
    """Write the rows as JSONL."""
    parser = argparse.ArgumentParser(description="Write right answers of a task as pairs for SFT.")
    parser.add_argument("source", help="such as task:code?level=0")
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    rows = demonstrations(given.source.removeprefix("task:"), given.count, given.seed)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main()
