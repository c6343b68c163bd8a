"""Go or no-go: what an evaluation must show before a policy replaces its SFT model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Criteria:
    """Bounds of the verdict; the defaults are those of the specification's checks (R14, R17, R27)."""

    min_hidden_gain: float = 0.0  # hidden reward of the policy minus that of the SFT model; above this
    min_win_rate: float = 0.5  # lower end of the interval of the win rate; above this
    max_kl: float = 0.5  # nats per token; below this
    min_distinct_ratio: float = 0.7  # distinct_2 of the policy over that of the SFT model; at least this
    max_gap_growth: float = 0.1  # growth of training reward minus growth of hidden reward; at most this


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the verdict. ``passed`` None: it was not measured, which never counts as passed."""

    name: str
    passed: bool | None
    reason: str
    is_required: bool = True
    is_quoted: bool = False  # the reason quotes a user's code or a model: escape it where that matters


@dataclass(frozen=True, slots=True)
class Verdict:
    """``is_go`` when every required check passed and no other one failed."""

    is_go: bool
    checks: tuple[Check, ...]

    @property
    def reasons(self) -> list[str]:
        """Why not, or when it is a go, why."""
        blocking = [
            c.reason for c in self.checks if c.passed is False or (c.is_required and c.passed is None)
        ]
        return blocking or [check.reason for check in self.checks if check.passed]


def judge_summary(summary: Mapping[str, Any], criteria: Criteria | None = None) -> Verdict:
    """Return the verdict on a ``summary.json``. A figure that is missing or not finite was not measured."""
    bounds = criteria or Criteria()
    checks = (
        *_stopped(summary),
        *_unanswered(summary),
        _hidden_gain(summary, bounds),
        _win_rate(summary, bounds),
        _kl(summary, bounds),
        _diversity(summary, bounds),
        _gap(summary, bounds),
        *_constraints(summary),
    )
    is_go = all(c.passed or (c.passed is None and not c.is_required) for c in checks)
    return Verdict(is_go, checks)


def figure(summary: Mapping[str, Any], *path: str) -> float | None:
    """Return a finite number at ``path``, or None.

    Example:
        >>> figure({"hidden": {"sft": 0.5}}, "hidden", "sft")
        0.5
    """
    node: Any = summary
    for key in path:
        if not isinstance(node, Mapping) or key not in node:
            return None
        node = node[key]
    is_number = isinstance(node, (int, float)) and not isinstance(node, bool)
    return float(node) if is_number and math.isfinite(node) else None


def _stopped(summary: Mapping[str, Any]) -> list[Check]:
    """A run that ended by an error proves nothing, whatever was measured before."""
    found = summary.get("stopped")
    if not isinstance(found, Mapping):
        return []
    reason = f"The run was stopped in stage {found.get('stage')}: {found.get('reason')}"
    return [Check("run", False, reason, is_quoted=True)]


def _unanswered(summary: Mapping[str, Any]) -> list[Check]:
    """Rewards, hidden rewards and judges that said nothing of most answers; each fails with its cause."""
    given = summary.get("unanswered")
    found: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
    checks = []
    for name, entry in found.items():
        reason = f"No score from {name} for {entry['share']:.0%} of the answers: {entry['cause']}."
        checks.append(Check(name, False, reason, is_quoted=True))
    return checks


def _hidden_gain(summary: Mapping[str, Any], bounds: Criteria) -> Check:
    name, sft, policy = "hidden reward", figure(summary, "hidden", "sft"), figure(summary, "hidden", "policy")
    if sft is None or policy is None:
        return Check(name, None, "The reward on hidden prompts was not measured.")
    gain = policy - sft
    verb = "rises" if gain > 0 else "does not rise"
    reason = f"The hidden reward {verb}: {sft:.3f} → {policy:.3f} ({gain:+.3f})."
    return Check(name, gain > bounds.min_hidden_gain, reason)


def _win_rate(summary: Mapping[str, Any], bounds: Criteria) -> Check:
    value, low, high = (figure(summary, "win_rate", key) for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return Check("win rate", None, "The win rate against the SFT model was not measured; set eval.judge.")
    if low > bounds.min_win_rate:
        verb = "is above"
    else:
        verb = "is below" if high < bounds.min_win_rate else "cannot be told from"
    count = figure(summary, "win_rate", "n")
    prompts = f" on {count:.0f} prompts" if count is not None else ""
    reason = f"The win rate {verb} {bounds.min_win_rate:g}: {value:.3f} ({low:.3f}–{high:.3f}){prompts}."
    return Check("win rate", low > bounds.min_win_rate, reason)


def _kl(summary: Mapping[str, Any], bounds: Criteria) -> Check:
    kl = figure(summary, "kl")
    if kl is None:
        return Check("KL", None, "The KL to the reference was not measured.")
    place = "below" if kl < bounds.max_kl else "not below"
    reason = f"The KL to the SFT model is {kl:.3f} nats per token, {place} {bounds.max_kl:g}."
    return Check("KL", kl < bounds.max_kl, reason)


def _diversity(summary: Mapping[str, Any], bounds: Criteria) -> Check:
    sft, policy = figure(summary, "distinct_2", "sft"), figure(summary, "distinct_2", "policy")
    if sft is None or policy is None:
        return Check("diversity", None, "distinct_2 was not measured.")
    ratio = policy / sft if sft > 0 else 1.0
    is_kept = ratio >= bounds.min_distinct_ratio
    reason = f"distinct_2 is {ratio:.2f} of the SFT model's ({sft:.3f} → {policy:.3f})"
    return Check("diversity", is_kept, f"{reason}; at least {bounds.min_distinct_ratio:g} is wanted.")


def _gap(summary: Mapping[str, Any], bounds: Criteria) -> Check:
    """R21: a reward that grows on training prompts more than on hidden ones is over-fitting."""
    trained = [figure(summary, name, "reward") for name in ("sft", "policy")]
    hidden = [figure(summary, "hidden", name) for name in ("sft", "policy")]
    if None in (*trained, *hidden):
        return Check("over-fitting", None, "Training and hidden reward were not both measured.", False)
    growth = _growth(trained) - _growth(hidden)
    verb = "does not outgrow" if growth <= bounds.max_gap_growth else "outgrows"
    reason = f"The training reward {verb} the hidden one: difference of growth {growth:+.3f}."
    return Check("over-fitting", growth <= bounds.max_gap_growth, reason, False)


def _constraints(summary: Mapping[str, Any]) -> list[Check]:
    """R24: one check per constraint of the recipe, none where it has none: violations at most its target.

    No allowance for chance is made: a limit that should hold with one is a lower target.
    """
    given = summary.get("constraints")
    found: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
    checks = []
    for name in found:
        rate, target = (figure(found, name, key) for key in ("policy", "target"))
        if rate is None or target is None:
            reason = f"The violations of the constraint {name} were not measured."
            checks.append(Check(f"constraint {name}", None, reason))
            continue
        verb = "keeps" if rate <= target else "violates"
        before = figure(found, name, "sft")
        was = "" if before is None else f", the SFT model in {before:.1%}"
        reason = (
            f"The policy {verb} the constraint {name}: violated in {rate:.1%} of the hidden answers{was}; "
            f"at most {target:.1%} is wanted."
        )
        checks.append(Check(f"constraint {name}", rate <= target, reason))
    return checks


def _growth(values: Sequence[float | None]) -> float:
    first, last = values
    return (last or 0.0) - (first or 0.0)
