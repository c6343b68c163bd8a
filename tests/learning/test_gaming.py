"""A reward that can be gamed is noticed in training and by the audit; one that cannot is left alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.learning.runs import SEED_SHIFT

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("reward", "expected"), [("sales", "gamed"), ("sales_hardened", "sound")])
def test_who_notices(reward: str, expected: str, tmp_path: Path) -> None:
    """R20, R21 (must show): `quality_gap` fires and the audit fails for the plain sales reward only."""
    script, figures = "benchmarks/gaming.py", tmp_path / "figures.json"
    command = [sys.executable, script, "--reward", reward, "--expect", expected, "--steps", "14"]
    command += ["--seed", str(42 + SEED_SHIFT)]
    run = subprocess.run(
        [*command, "--output", str(tmp_path / "out"), "--json", str(figures)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    found = json.loads(figures.read_text())
    curves = found["curves"]
    print(reward, curves["eval/reward"], curves["eval/judge"], found["alarms"])
    if expected == "gamed":
        assert curves["eval/reward"][-1] > curves["eval/reward"][0]
        assert curves["eval/judge"][-1] < curves["eval/judge"][0]
