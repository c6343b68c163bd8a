"""What a person sees while a stage runs: progress, figures with their trend, alarms, and a sample.

On a terminal it is one live panel; anywhere else (a pipe, a log file, CI) it is one plain line per step.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from trimtab.runs.names import find_metric
from trimtab.runs.plain_text import one_line, sanitise
from trimtab.runs.sparkline import sparkline

# Label and metric, in the order of importance; a stage shows those that it has.
SHOWN: dict[str, str] = {
    "reward": "reward/mean",
    "accuracy": "rm/accuracy",
    "steps right": "prm/accuracy",
    "kl": "kl/ref",
    "entropy": "policy/entropy",
    "loss": "loss/total",
    "length": "completions/mean_length",
    "perplexity": "sft/perplexity",
    "margin": "rm/margin",
    "critic": "critic/explained_variance",
    "hidden": "eval/reward",
    "tokens/s": "speed/tokens_per_s",
}
_KEPT_NOTES, _KEPT_VALUES, _SAMPLE_CHARS = 4, 240, 600


class TerminalView:
    """The view of one stage of ``total_steps`` steps, counted from 0; ``samples`` completions stay visible.

    Never raises for what the model wrote or for an output that was closed.
    """

    def __init__(
        self, total_steps: int, stage: str, samples: int = 1, *, console: Console | None = None
    ) -> None:
        self._total, self._stage, self._console = total_steps, stage, console or Console()
        self._values: dict[str, deque[float]] = {}
        self._durations: deque[float] = deque(maxlen=20)
        self._last, self._done = time.monotonic(), 0
        self._samples: deque[tuple[str, str, float | None]] = deque(maxlen=samples)
        self._notes: deque[str] = deque(maxlen=_KEPT_NOTES)
        self._live: Live | None = None
        encoding = (self._console.encoding or "ascii").lower()
        if self._console.is_terminal and not self._console.is_dumb_terminal and encoding.startswith("utf"):
            self._live = Live(console=self._console, auto_refresh=False, transient=False)
            self._live.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show that ``step`` is finished, with its metrics (our names)."""
        now = time.monotonic()
        self._durations.append(now - self._last)
        self._last, self._done = now, step + 1
        for label, name in SHOWN.items():
            if metrics.get(name) is not None:
                self._values.setdefault(label, deque(maxlen=_KEPT_VALUES)).append(float(metrics[name]))
        if self._live is None:
            self._print(self._line(metrics))
        else:
            self._refresh()

    def sample(self, prompt: str, completion: str, reward: float | None) -> None:
        """Show one completion; without a terminal, one line of it about ten times in a stage."""
        if not self._samples.maxlen:
            return
        self._samples.append((one_line(prompt), sanitise(completion)[:_SAMPLE_CHARS].strip(), reward))
        if self._live is not None:
            self._refresh()
        elif self._done % max(1, self._total // 10) == 0:
            text = f"{one_line(prompt, 40)} → {one_line(completion, 160)}"
            self._print(f"{self._stage} sample · reward {_figure(reward)} · {text}")

    def note(self, text: str) -> None:
        """Show an alarm or a remark; the last few stay visible."""
        self._notes.append(one_line(text, 400))
        if self._live is None:
            self._print(f"{self._stage} ! {self._notes[-1]}")
        else:
            self._refresh()

    def close(self) -> None:
        """Leave the last picture standing and give the terminal back. Closing twice does nothing."""
        if self._live is not None:
            with suppress(OSError):
                self._live.stop()
            self._live = None

    @property
    def _seconds(self) -> float:
        """Mean time of the last steps."""
        return sum(self._durations) / len(self._durations) if self._durations else 0.0

    def _timing(self) -> str:
        left = max(0, self._total - self._done) * self._seconds
        return f"{self._seconds:.1f} s/step · {_duration(left)} left"

    def _line(self, metrics: Mapping[str, float]) -> str:
        figures = [
            f"{label} {_figure(metrics[name])}"
            for label, name in SHOWN.items()
            if metrics.get(name) is not None
        ]
        return " · ".join([f"{self._stage} {self._done}/{self._total}", self._timing(), *figures])

    def _refresh(self) -> None:
        if self._live is not None:
            try:
                self._live.update(self._picture(), refresh=True)
            except OSError:  # the terminal went away: the run does not
                self._live = None

    def _print(self, line: str) -> None:
        """Print one line, whatever the encoding of the output and however long."""
        out = self._console.file
        encoding = getattr(out, "encoding", None) or "utf-8"
        with suppress(OSError, ValueError):  # the reader of the pipe went away: the run does not
            out.write(line.encode(encoding, "replace").decode(encoding) + "\n")
            out.flush()

    def _picture(self) -> RenderableType:
        head = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=max(1, self._total), completed=self._done, width=30)
        head.add_row(bar, Text(f"{self._done}/{self._total}"), Text(self._timing(), style="dim"))
        parts: list[RenderableType] = [head, self._figures()]
        for prompt, completion, reward in self._samples:
            title = Text(
                f"reward {_figure(reward)} · {prompt}", style="dim", overflow="ellipsis", no_wrap=True
            )
            parts += [title, Text(_cut(completion, 6, self._console.width))]
        parts += [Text(f"! {note}", style="yellow") for note in self._notes]
        return Panel(Group(*parts), title=self._stage, title_align="left", box=box.ROUNDED)

    def _figures(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for label, values in self._values.items():
            metric = find_metric(SHOWN[label])
            low, high = metric.healthy if metric else (None, None)
            last = values[-1]
            # Where both ends are known, the low one is where every run starts (KL): not worth a colour.
            is_low = low is not None and high is None and last < low
            is_bad = is_low or (high is not None and last > high) or last != last
            table.add_row(
                Text(label, style="bold"),
                Text(_figure(last), style="red" if is_bad else ""),
                Text(sparkline(values), style="cyan"),
            )
        return table


def _figure(value: float | None) -> str:
    """Four significant digits; a dash for what was not measured."""
    return "–" if value is None else f"{value:.4g}"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def _cut(text: str, lines: int, width: int) -> str:
    """The start of ``text`` that fits into ``lines`` lines of a panel ``width`` cells wide.

    Wide characters take two cells; the panel's border and padding take four.
    """
    width, kept = max(2, width - 4), list[str]()
    for line in text.splitlines():
        needed = max(1, -(-cell_len(line) // width))
        if needed > lines:
            return "\n".join([*kept, set_cell_size(line, lines * width - 2).rstrip() + "…" if lines else "…"])
        kept.append(line)
        lines -= needed
    return "\n".join(kept)
