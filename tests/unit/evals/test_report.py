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
