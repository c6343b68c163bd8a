"""Evaluation: sample and score, pass@k, win rate with judges, diversity, verdict and report."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {
    "EvalResult": "trimtab.evals.suite",
    "Judge": "trimtab.evals.judges",
    "ScoreJudge": "trimtab.evals.judges",
    "Verdict": "trimtab.evals.verdict",
    "WinRate": "trimtab.evals.win_rate",
    "build_judge": "trimtab.evals.judges",
    "compare_distinct": "trimtab.evals.diversity",
    "evaluate_policy": "trimtab.evals.suite",
    "judge_summary": "trimtab.evals.verdict",
    "render_report": "trimtab.evals.report",
    "write_report": "trimtab.evals.report",
}
# `pass_at_k` and `win_rate` are modules here; the functions of the same names are inside them.
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'trimtab.evals' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
