"""The report of a run: one Markdown page that says go or no-go, and why (R27)."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from trimtab.evals.verdict import Verdict, figure, judge_summary
from trimtab.runs import RunDirectory, metrics_table, read_events, sanitise
from trimtab.runs.sparkline import sparkline

Curves = Mapping[str, Sequence[float]]
Samples = Sequence[Mapping[str, Any]]

# Metric of the event log → what the report calls it.
CURVES = {
    "reward/mean": "reward",
    "eval/reward": "hidden reward",
    "eval/pass_rate": "hidden pass rate",
    "kl/ref": "KL to the reference (nats per token)",
    "policy/entropy": "entropy (nats per token)",
    "completions/mean_length": "response length (tokens)",
}
CURVE_WIDTH, MAX_SAMPLES, MAX_SAMPLE_CHARACTERS = 48, 8, 1200
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~-])")


def write_report(
    directory: RunDirectory | str | Path, summary: Mapping[str, Any], samples: Samples = (), title: str = ""
) -> Path:
    """Write ``report.md`` into a run directory, with the curves of its event log; return the path.

    Without ``samples`` those of the events of kind ``sample`` in the stage ``eval`` are shown.
    """
    run = directory if isinstance(directory, RunDirectory) else RunDirectory(directory)
    shown = list(samples)
    if not shown and run.events.is_file():
        shown = [event.data for event in read_events(run.root, "sample", "eval")]
    actions = read_actions(run)
    text = render_report(summary, read_curves(run), shown, title or run.root.name, actions=actions)
    run.root.mkdir(parents=True, exist_ok=True)
    run.report.write_text(text, encoding="utf-8")
    return run.report


def render_report(
    summary: Mapping[str, Any],
    curves: Curves | None = None,
    samples: Samples = (),
    title: str = "run",
    *,
    actions: Samples = (),
) -> str:
    """Return the report as Markdown.

    Args:
        summary: what ``summary.json`` holds; whatever is missing is left out of the tables.
        curves: values per step by name.
        samples: ``{"prompt", "sft", "policy"}`` and optionally ``sft_reward`` and ``policy_reward``.
        title: what the run is called.
        actions: what the guard did: the data of its ``action`` events, each with ``step``.
    """
    verdict = judge_summary(summary)
    parts = [
        f"# Report: {markdown_text(title)}",
        _verdict(verdict),
        _comparison(summary),
        _trained(summary, "reward_model", "Reward model, held-out pairs"),
        _trained(summary, "process_reward", "Process reward model, held-out solutions"),
        _curves(curves or {}),
        _actions(actions),
        _samples(samples),
        _stages(summary),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def read_curves(run: RunDirectory) -> dict[str, list[float]]:
    """Return the curves of the RL stage from a run's events; empty when there are none."""
    if not run.events.is_file():
        return {}
    table = metrics_table(run.root, "rl")
    columns = {name: [v for v in table.get(name, []) if v is not None] for name in CURVES}
    return {CURVES[name]: values for name, values in columns.items() if values}


def read_actions(run: RunDirectory) -> list[dict[str, Any]]:
    """What the guard of the RL stage did, in order; empty when there is no record."""
    if not run.events.is_file():
        return []
    return [{"step": event.step, **event.data} for event in read_events(run.root, "action", "rl")]


def markdown_text(text: str, limit: int = MAX_SAMPLE_CHARACTERS) -> str:
    """Return hostile text as one harmless table cell: no HTML, link, image, table or invisible character."""
    plain = sanitise(text)
    plain = plain if len(plain) <= limit else plain[: limit - 1] + "…"
    # Addresses are broken up too: some renderers make links of bare ones.
    escaped = _SPECIAL.sub(r"\\\1", html.escape(plain, quote=False)).replace("://", "&#58;//")
    return "<br>".join(line.strip() for line in escaped.splitlines())


def _verdict(verdict: Verdict) -> str:
    lines = [f"## Verdict: {'GO' if verdict.is_go else 'NO-GO'}", ""]
    quoted = {check.reason for check in verdict.checks if check.is_quoted}
    lines += [f"- {markdown_text(r) if r in quoted else r}" for r in verdict.reasons]
    marks = {True: "pass", False: "fail", None: "not measured"}
    rows = [
        [check.name, marks[check.passed], markdown_text(check.reason) if check.is_quoted else check.reason]
        for check in verdict.checks
    ]
    return "\n".join(lines) + "\n\n" + table(["check", "result", "why"], rows)


def _comparison(summary: Mapping[str, Any]) -> str:
    measures: dict[str, tuple[str, ...]] = {
        "reward, training prompts": ("{}", "reward"),
        "reward, hidden prompts": ("hidden", "{}"),
        "pass rate, training prompts": ("{}", "pass_rate"),
        "pass rate, hidden prompts": ("hidden_pass_rate", "{}"),
        "distinct-1": ("distinct_1", "{}"),
        "distinct-2": ("distinct_2", "{}"),
        "response length (tokens)": ("{}", "mean_length"),
        "cut at the limit": ("{}", "truncated"),
    }
    names = {name for side in ("sft", "policy") for name in _mapping(summary, side, "parts")}
    measures |= {f"part {name}": ("{}", "parts", name) for name in sorted(names)}
    rows = []
    for label, path in measures.items():
        sft, policy = (
            figure(summary, *(key.replace("{}", side) for key in path)) for side in ("sft", "policy")
        )
        if sft is not None or policy is not None:
            change = "" if sft is None or policy is None else f"{policy - sft:+.3f}"
            rows.append([markdown_text(label), _number(sft), _number(policy), change])
    won = [figure(summary, "win_rate", key) for key in ("wins", "ties", "losses")]
    if None not in won:
        shown = " / ".join(f"{count:.0f}" for count in won if count is not None)
        rows.append(["wins / ties / losses", "", shown, ""])
    if not rows:
        return ""
    return "## Before and after\n\n" + table(["", "SFT model", "policy", "change"], rows)


def _trained(summary: Mapping[str, Any], stage: str, title: str) -> str:
    found = _mapping(summary, stage)
    rows = [
        [markdown_text(name), _number(value)] for name in found if (value := figure(found, name)) is not None
    ]
    return f"## {title}\n\n" + table(["figure", "value"], rows) if rows else ""


def _curves(curves: Curves) -> str:
    rows = []
    for name, values in curves.items():
        finite = [value for value in values if math.isfinite(value)]
        if not finite:
            continue
        ends = [_number(values[0]), _number(values[-1]), _number(min(finite)), _number(max(finite))]
        rows.append([markdown_text(name), f"`{sparkline(thinned(values), CURVE_WIDTH)}`", *ends])
    header = ["", "over the steps", "first", "last", "lowest", "highest"]
    return "## Curves\n\n" + table(header, rows) if rows else ""


def _actions(actions: Samples) -> str:
    """Every action of the guard, those that were undone too; nothing where it did nothing."""
    rows = []
    for action in actions:
        change = [markdown_text(str(action.get("setting", "")))]
        change += [_number(figure(action, key)) for key in ("before", "after")]
        name = markdown_text(str(action.get("action", "")))
        kind = "undo" if action.get("is_undo") else "remedy"
        rows.append(
            [str(action.get("step", "")), kind, name, *change, markdown_text(str(action.get("reason", "")))]
        )
    if not rows:
        return ""
    undone = sum(bool(action.get("is_undo")) for action in actions)
    header = ["step", "", "action", "setting", "before", "after", "why"]
    counts = f"{len(rows) - undone} actions, {undone} undone."
    return f"## What the guard did\n\n{counts}\n\n" + table(header, rows)


def thinned(values: Sequence[float], width: int = CURVE_WIDTH) -> list[float]:
    """Return at most ``width`` means of neighbouring values, so that a curve of any length fits one line.

    Example:
        >>> thinned([0.0, 1.0, 2.0, 3.0], 2)
        [0.5, 2.5]
    """
    if len(values) <= width:
        return list(values)
    edges = [len(values) * i // width for i in range(width + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]


def _samples(samples: Samples) -> str:
    rows = []
    for sample in samples[:MAX_SAMPLES]:
        cells = [markdown_text(str(sample.get("prompt", "")), 400)]
        for side in ("sft", "policy"):
            score = figure(sample, f"{side}_reward")
            prefix = "" if score is None else f"*{score:.3f}*<br>"
            cells.append(prefix + markdown_text(str(sample.get(side, ""))))
        rows.append(cells)
    return "## Samples, side by side\n\n" + table(["prompt", "SFT model", "policy"], rows) if rows else ""


def _stages(summary: Mapping[str, Any]) -> str:
    stages = _mapping(summary, "stages")
    rows = [
        [markdown_text(str(name)), f"{v:.1f}"] for name in stages if (v := figure(stages, name)) is not None
    ]
    return "## Time\n\n" + table(["stage", "seconds"], rows) if rows else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; the cells must be Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _mapping(summary: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    node: Any = summary
    for key in path:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node if isinstance(node, Mapping) else {}


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if value == 0 or abs(value) >= 0.001 else f"{value:.3g}"
