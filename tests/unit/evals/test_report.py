from __future__ import annotations

import re

import pytest

from trimtab.evals.report import markdown_text, render_report, thinned, write_report
from trimtab.runs import RunWriter

from .test_verdict import GOOD


def test_report_says_go_and_why():
    """R27: one page with the verdict, the figures before and after, curves, samples and times."""
    summary = GOOD | {
        "stages": {"sft": 12.34, "rl": 60},
        "reward_model": {"accuracy": 0.81, "ece": 0.04},
        "win_rate": GOOD["win_rate"] | {"wins": 70, "ties": 14, "losses": 44},
    }
    summary["sft"] = {"reward": 0.5, "parts": {"sales/format": 0.1}}
    summary["policy"] = {"reward": 0.65, "parts": {"sales/format": 0.4, "{}": 1.0}}
    samples = [{"prompt": "多少钱？", "sft": "99", "policy": "您好\n99", "policy_reward": 0.7}]
    text = render_report(summary, {"reward": [0.1, 0.2, 0.4]}, samples, title="demo")
    assert text.startswith("# Report: demo\n\n## Verdict: GO\n")
    assert "| reward, hidden prompts | 0.500 | 0.620 | +0.120 |" in text
    assert "| part sales/format | 0.100 | 0.400 | +0.300 |" in text
    assert "| wins / ties / losses |  | 70 / 14 / 44 |  |" in text
    assert "| accuracy | 0.810 |" in text
    assert "| reward | `▁▃█` | 0.100 | 0.400 | 0.100 | 0.400 |" in text
    assert "| 多少钱？ | 99 | *0.700*<br>您好<br>99 |" in text
    assert "| sft | 12.3 |" in text


def test_empty_report():
    """R27: a run without an evaluation still gets its page: no-go, nothing measured, no empty table."""
    text = render_report({})
    assert "## Verdict: NO-GO" in text
    assert "Before and after" not in text
    assert "Curves" not in text


@pytest.mark.parametrize(
    "attack",
    [
        "<script>alert(1)</script>",
        "![x](http://evil/a.png)",
        "[click](javascript:alert(1))",
        "a | b | c",
        "line\n\n# heading\n| row |",
        "```\ncode",
        "\x1b[31mred\x1b[0m \u202eevil",
        "http://evil.example/?q=1",
        "<img src=x onerror=1>",
    ],
)
def test_hostile_completions_stay_text(attack):
    """Threats: completions are hostile: no HTML, link, image, heading or new table cell comes out of one."""
    text = render_report({}, None, [{"prompt": attack, "sft": attack, "policy": attack}])
    row = text.strip().splitlines()[-1]
    assert len(re.findall(r"(?<!\\)\|", row)) == 4
    assert not re.search(r"<(?!br>)", row)
    assert not re.search(r"(?<!\\)[\[`]", row)
    assert "://" not in row
    assert "\x1b" not in row
    assert "\u202e" not in row


def test_markdown_text_is_cut():
    """R27: a completion of any length gives a cell of bounded length."""
    assert markdown_text("x" * 5000, 10) == "x" * 9 + "…"


def test_thinned():
    """R27: a long curve is shown whole, as means of neighbours, not only its end."""
    values = [float(i) for i in range(1000)]
    short = thinned(values, 10)
    assert short == [49.5 + 100 * i for i in range(10)]
    assert thinned([1.0, 2.0], 10) == [1.0, 2.0]


def test_written_with_the_curves_of_the_run(tmp_path):
    """R27: write_report reads the run's events: metrics, evaluations and samples."""
    with RunWriter(tmp_path, {"name": "x"}) as run:
        for step in range(3):
            run.metrics("rl", step, {"reward/mean": 0.1 * step, "kl/ref": 0.01})
        run.metrics("rl", 2, {"eval/pass_rate": 0.5, "eval/reward": 0.4})
        run.event("eval", "sample", 0, {"prompt": "问", "sft": "旧", "policy": "新"})
    path = write_report(tmp_path, GOOD, title="x")
    assert path == tmp_path / "report.md"
    text = path.read_text(encoding="utf-8")
    assert "| reward | `▁▅█` | 0.000 | 0.200 |" in text
    assert "| hidden pass rate |" in text
    assert "| 问 | 旧 | 新 |" in text


def test_written_without_a_run(tmp_path):
    """R27: a directory without events gets a report without curves."""
    assert "## Curves" not in write_report(tmp_path / "new", GOOD).read_text()


def test_actions_and_undos_are_listed():
    """Issue 5 (2): what the guard did and took back is in the report, with before, after and reason."""
    actions = [
        {"step": 7, "action": "cut_lr", "is_undo": False, "setting": "learning_rate", "before": 3e-6,
         "after": 9e-7, "reason": "kl_too_high: kl/ref = 0.8, limit 0.5"},
        {"step": 30, "action": "cut_lr", "is_undo": True, "setting": "learning_rate", "before": 9e-7,
         "after": 3e-6, "reason": "no alarm | x"},
        {"step": 31, "action": "stop", "is_undo": False, "reason": "why"},
    ]  # fmt: skip
    text = render_report({}, actions=actions)
    assert "## What the guard did\n\n2 actions, 1 undone.\n" in text
    assert "| 7 | remedy | cut\\_lr | learning\\_rate | 3e-06 | 9e-07 | kl\\_too\\_high: kl/ref = 0.8" in text
    assert "| 30 | undo | cut\\_lr | learning\\_rate | 9e-07 | 3e-06 | no alarm \\| x |" in text
    assert "What the guard did" not in render_report({})


def test_actions_come_from_the_events(tmp_path):
    """Issue 5 (2): the report reads the record of the run, not the memory of the guard."""
    with RunWriter(tmp_path, {}) as run:
        run.event("rl", "action", 4, {"action": "rollback", "setting": "step", "before": 5, "after": 0})
    path = write_report(tmp_path, {})
    assert "| 4 | remedy | rollback | step | 5.000 | 0.000 |" in path.read_text()
