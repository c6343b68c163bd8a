"""What a process reward model of the task `chain` pays for, on hidden problems.

python benchmarks/process_reward.py output/process_prm "top=5&errors=result"
"""

from __future__ import annotations

import sys
from statistics import fmean

from trimtab.data import Stepwise
from trimtab.rewards.process_reward import ProcessReward
from trimtab.tasks.registry import load_task
from trimtab.types import Prompt, Sample


def values(reward: ProcessReward, rows: list[Stepwise]) -> list[float]:
    """The reward of each solution."""
    samples = [Sample(Prompt("0", row.prompt), "\n".join(row.steps)) for row in rows]
    return [result.value for result in reward.score(samples) if result.value is not None]


def main() -> None:
    """Print mean rewards of right solutions, of lucky ones (right answer, wrong lines) and of wrong ones."""
    reward = ProcessReward(sys.argv[1])
    task = load_task(f"chain?{sys.argv[2]}")
    rows: list[Stepwise] = task.solutions("hidden", 2000, 0)  # type: ignore[attr-defined]
    sets = {
        "right answer by right lines": [row for row in rows if row.first_error is None],
        "right answer by wrong lines": task.lucky("hidden", 500, 0),  # type: ignore[attr-defined]
        "a wrong line": [row for row in rows if row.first_error is not None],
    }
    scored = {name: values(reward, found) for name, found in sets.items()}
    for name, found in scored.items():
        print(f"{name:28s} {len(found):5d} solutions, mean reward {fmean(found):.3f}")
    right, lucky = scored["right answer by right lines"], scored["right answer by wrong lines"]
    wins = fmean(0.5 * (a == b) + (a > b) for a in right for b in lucky)
    print(f"a right way is paid more than a wrong one to a right answer in {wins:.1%} of all pairs")


if __name__ == "__main__":
    main()
