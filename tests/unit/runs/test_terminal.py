"""The terminal view and the cleaning of model text."""

from __future__ import annotations

import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from trimtab.runs import TerminalView, one_line, sanitise
from trimtab.runs.sparkline import sparkline
from trimtab.runs.terminal import _cut, _duration


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("plain 中文 é 👍\n\ttab", "plain 中文 é 👍\n\ttab"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[1;1Hgone", "gone"),
        ("\x9b31mred", "red"),
        ("a\x1b]0;title\x07b\x1b]8;;http://x\x1b\\c", "abc"),
        ("a\x1b]0;no end", "a0;no end"),
        ("a\x1bPq#0\x1b\\b", "ab"),
        ("a\x1bcb\x1b(Bc\x1b", "abc"),
        ("abc\x1b[12", "abc"),
        ("\u202eevil\u202c \u2066x\u2069 \u200fy\u061c", "evil x y"),
        ("a\u200bb\ufeffc\u00add\U000e0041", "abcd"),
        ("👨\u200d👩", "👨\u200d👩"),
        ("a\r\nb\rc\u2028d\x85e", "a\nb\nc\nd\ne"),
        ("\x00\x07\x08\x7f\x90z", "z"),
        ("\ud800", "\ufffd"),
        ("[red]not markup[/red]", "[red]not markup[/red]"),
    ],
)
def test_sanitise(text: str, clean: str) -> None:
    """Threats, pages: escape sequences, control, bidi and invisible characters are stripped for terminals."""
    assert sanitise(text) == clean


@given(
    st.text(alphabet=st.sampled_from("a\x1b\x9b[]0;m\x07\\\x9d\x90P\u202e\u200d\n\t中\ud800\r"), max_size=60)
)
def test_sanitise_leaves_nothing_that_acts(text: str) -> None:
    """Threats, pages: whatever the text, no character that a terminal acts on is left, and twice is once."""
    clean = sanitise(text)
    assert not {c for c in clean if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 or c == "\u202e"}
    clean.encode("utf-8")
    assert sanitise(clean) == clean


@pytest.mark.parametrize("pattern", ["\x1b]", "\x9d", "\x1b[", "\x1b[0;", "\x1bP\x9b", "\x1b "])
def test_sanitise_is_linear(pattern: str) -> None:
    """Threats: the starts of 300,000 escape sequences do not stall the run (quadratic would)."""
    assert "\x1b" not in sanitise(pattern * 300_000)


def test_one_line() -> None:
    """R26: a sample fits on one line."""
    assert one_line("a\n\n b\t\x1b[1mc ") == "a b c"
    assert one_line("x" * 10, limit=5) == "xxxx…"


def test_sparkline_by_hand() -> None:
    """R26: lowest bar for the lowest value, highest for the highest; flat is the middle; NaN is a dot."""
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([3.0, 3.0]) == "▅▅"
    assert sparkline([0.0, math.nan, 1.0, math.inf]) == "▁·█·"
    assert sparkline([5.0, 0.0, 1.0], width=2) == "▁█"
    assert sparkline([]) == "" and sparkline([math.nan]) == "·"


def test_plain_output_is_one_line_per_step() -> None:
    """R26: not a terminal: one line per step with progress, reward, KL, entropy, loss and length."""
    out = io.StringIO()
    with TerminalView(2, "rl", samples=0, console=Console(file=out)) as view:
        for step in range(2):
            view.update(
                step,
                {
                    "loss/total": -0.25,
                    "reward/mean": 0.5,
                    "kl/ref": 0.0125,
                    "policy/entropy": 1.5,
                    "completions/mean_length": 48.0,
                    "train/updates": 1.0,
                },
            )
        view.sample("p", "c", 0.5)
        view.note("KL too high\x1b[31m")
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("rl 1/2 · ") and lines[1].startswith("rl 2/2 · ")
    assert lines[0].endswith("reward 0.5 · kl 0.0125 · entropy 1.5 · loss -0.25 · length 48")
    assert lines[2] == "rl ! KL too high"


def test_plain_output_shows_some_samples() -> None:
    """R26: samples of generations in a log file too: about ten in a stage, cleaned, one line each."""
    out = io.StringIO()
    view = TerminalView(100, "rl", console=Console(file=out))
    for step in range(100):
        view.update(step, {"reward/mean": 0.5})
        view.sample("问\n题", "回\x1b[31m答\u202e", None)
    samples = [line for line in out.getvalue().splitlines() if "sample" in line]
    assert len(samples) == 10
    assert samples[0] == "rl sample · reward – · 问 题 → 回答"


def live_console(width: int = 80) -> tuple[Console, io.StringIO]:
    """A console that believes it is a terminal, and what it wrote."""
    out = io.StringIO()
    return Console(file=out, force_terminal=True, width=width, height=40, color_system=None), out


@pytest.mark.parametrize("width", [20, 80])
def test_live_view_shows_everything(width: int) -> None:
    """R26: progress, figures with a trend, an alarm and a sample, the model's text as text."""
    console, out = live_console(width)
    if console.encoding.lower() not in ("utf-8", "utf8"):
        pytest.skip("the console of this machine is not UTF-8")
    view = TerminalView(4, "rl", console=console)
    for step in range(3):
        view.update(step, {"reward/mean": float(step), "kl/ref": 0.7 if step else math.nan})
    view.sample("你好", "[bold]x[/bold]\x1b]0;owned\x07\x9b2J" + "长" * 5000, 0.25)
    view.note("look")
    view.close()
    view.close()
    written = out.getvalue()
    assert "\x1b]0;owned" not in written and "\x9b" not in written
    if width == 80:
        for part in ("3/4", "reward", "▁▅█", "kl", "0.7", "[bold]x[/bold]", "look", "reward 0.25", "你好"):
            assert part in written


def test_supervised_stages() -> None:
    """R26: SFT shows loss and perplexity, the reward model its accuracy."""
    out = io.StringIO()
    TerminalView(1, "sft", console=Console(file=out)).update(0, {"loss/total": 2.0, "sft/perplexity": 7.389})
    TerminalView(1, "reward_model", console=Console(file=out)).update(0, {"rm/accuracy": 0.75})
    first, second = out.getvalue().splitlines()
    assert "loss 2 · perplexity 7.389" in first and "accuracy 0.75" in second


def test_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """R26: by hand: steps of 2 s and 4 s, 8 left at 3 s each."""
    times = iter([0.0, 2.0, 6.0])
    monkeypatch.setattr("trimtab.runs.terminal.time.monotonic", lambda: next(times))
    out = io.StringIO()
    view = TerminalView(10, "rl", console=Console(file=out))
    view.update(0, {})
    view.update(1, {})
    assert out.getvalue().splitlines()[1] == "rl 2/10 · 3.0 s/step · 24 s left"
    assert (_duration(125), _duration(3725)) == ("2 min 05 s", "1 h 02 min")


def test_closed_output_does_not_end_the_run() -> None:
    """Threats, runs: `trimtab run … | head` goes on after head has left."""

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    view = TerminalView(1, "rl", console=Console(file=Closed()))
    view.update(0, {"loss/total": 1.0})
    view.note("still here")


def test_cut_counts_wide_characters() -> None:
    """R26: a Chinese character takes two cells: 20 of them need two lines of 24 − 4 cells."""
    assert _cut("长" * 20, 2, 24) == "长" * 20
    assert _cut("长" * 21, 2, 24) == "长" * 19 + "…"
    assert _cut("a\nb", 2, 24) == "a\nb" and _cut("a\nb\nc", 2, 24) == "a\nb\n…"
