"""`trimtab rollouts`: a step's completions, their rewards, and nothing that acts on a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trimtab.cli.main import main
from trimtab.runs import RunWriter

HOSTILE = "\x1b[2Jyes\u202e\x9b31m\nreward 9 · advantage +9"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    def row(name: str, reward: float | None, completion: str, **more: object) -> dict[str, object]:
        parts = {} if reward is None else {"format": reward / 2}
        return {
            "prompt_id": name, "prompt": "q\u200b?", "completion": completion, "finish_reason": "stop",
            "reward": reward, "parts": parts, "error": None, "num_tokens": 3, "advantage": 0.25,
            "policy_version": 0, **more,
        }  # fmt: skip

    with RunWriter(tmp_path / "out" / "run", {}) as writer:
        writer.rollouts("rl", 1, [row("0", 0.5, "old")])
        rows = [
            row("0", 0.5, HOSTILE),
            row("0", None, "no", error="reward r failed: \x1b[31mX"),
            row("1", 1.0, "best"),
        ]
        writer.rollouts("rl", 2, rows)
    return tmp_path / "out"


def test_a_step_is_printed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A.10: prompt, completion, reward with parts, advantage; the last step where none is named."""
    assert main(["rollouts", str(run)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("step 2 of rl: 3 completions of 2 prompts, mean reward 0.75\n")
    assert "reward 1 (format 0.5) · advantage +0.25 · 3 tokens, stop · prompt 1" in shown
    assert "no reward (reward r failed: X)" in shown
    assert not set("\x1b\x9b\u202e\u200b") & set(shown)
    # The completion's second line cannot pass for a head of ours.
    assert "\n         │ reward 9 · advantage +9\n" in shown
    assert main(["rollouts", str(run / "run"), "--step", "1"]) == 0
    assert "step 1 of rl: 1 completions" in capsys.readouterr().out


@pytest.mark.parametrize(("which", "rewards"), [("--best", [1.0]), ("--worst", [0.5])])
def test_the_best_and_the_worst(
    which: str, rewards: list[float], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A.10: by reward, abstentions left out; as JSON whose text is as harmless."""
    assert main(["rollouts", str(run), which, "1", "--json"]) == 0
    shown = capsys.readouterr().out
    assert not set("\x1b\x9b\u202e\u200b") & set(shown)
    assert [row["reward"] for row in json.loads(shown)] == rewards
    assert main(["rollouts", str(run), which, "9", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 2 and HOSTILE in [row["completion"] for row in rows]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--step", "3"], "Step 3 of rl has no rollouts in .*: it has those of steps 1 to 2"),
        (["--step", "0"], "--step 0: steps count from 1"),
        (["--best", "0"], "--best 0: give 1 or more"),
        (["--best", "1", "--worst", "1"], "not allowed with"),
        (["--stage", "sft"], "There are no rollouts of sft in .*; there are those of rl: --stage NAME"),
    ],
)
def test_mistakes_are_sentences(
    words: list[str], said: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A.10: a step, stage or number that is not there names what is."""
    import re

    assert main(["rollouts", str(run), *words]) == 2
    assert re.search(said, capsys.readouterr().err)
