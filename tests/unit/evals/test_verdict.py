from __future__ import annotations

import copy

import pytest

from trimtab.evals.report import render_report
from trimtab.evals.verdict import Criteria, figure, judge_summary

GOOD = {
    "sft": {"reward": 0.5},
    "policy": {"reward": 0.65},
    "hidden": {"sft": 0.5, "policy": 0.62},
    "win_rate": {"value": 0.6, "low": 0.52, "high": 0.68, "n": 128},
    "kl": 0.1,
    "distinct_2": {"sft": 0.4, "policy": 0.3},
}


def changed(value, *path):
    """GOOD with one figure replaced, or removed where it is ``...``."""
    summary = copy.deepcopy(GOOD)
    node = summary
    for key in path[:-1]:
        node = node[key]
    if value is ...:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return summary


def test_go():
    """R27: everything shown is a go, with the figures as reasons."""
    verdict = judge_summary(GOOD)
    assert verdict.is_go
    assert "0.500 → 0.620 (+0.120)" in verdict.reasons[0]
    assert "0.600 (0.520–0.680) on 128 prompts" in verdict.reasons[1]
    assert len(verdict.reasons) == 5


@pytest.mark.parametrize(
    ("value", "path", "words"),
    [
        (0.5, ("hidden", "policy"), "does not rise"),
        (0.5, ("win_rate", "low"), "cannot be told from 0.5"),
        (0.5, ("kl",), "not below 0.5"),
        (0.27, ("distinct_2", "policy"), "0.68 of the SFT model's"),
        (0.8, ("policy", "reward"), "outgrows the hidden one: difference of growth +0.180"),
        (float("nan"), ("kl",), "was not measured"),
        (..., ("win_rate",), "set eval.judge"),
        (..., ("hidden",), "was not measured"),
    ],
)
def test_no_go(value, path, words):
    """R27: each missed bound alone is a no-go that says why; what was not measured is not passed."""
    verdict = judge_summary(changed(value, *path))
    assert not verdict.is_go
    assert any(words in reason for reason in verdict.reasons)


def test_a_loss_is_named_as_one():
    """R27: an interval below one half says that the policy is worse."""
    summary = changed({"value": 0.3, "low": 0.2, "high": 0.4, "n": 9}, "win_rate")
    assert "is below 0.5" in judge_summary(summary).reasons[0]


def test_training_reward_is_optional():
    """R27: without training rewards the gap is not checked, and the rest decides."""
    assert judge_summary(changed(..., "sft")).is_go


def test_criteria_can_be_stricter():
    """R27: the demo asks for a gain of 0.10; the bounds are arguments."""
    assert judge_summary(GOOD, Criteria(min_hidden_gain=0.1)).is_go
    assert not judge_summary(GOOD, Criteria(min_hidden_gain=0.13)).is_go


def test_nothing_measured():
    """R27: an empty summary is a no-go, not an error."""
    verdict = judge_summary({})
    assert not verdict.is_go
    assert len(verdict.reasons) == 4


@pytest.mark.parametrize("value", ["0.5", True, None, [], float("inf")])
def test_only_finite_numbers_are_figures(value):
    """Threats: text, booleans and infinity in a summary are no figures."""
    assert figure({"kl": value}, "kl") is None


@pytest.mark.parametrize(
    ("rate", "is_go", "words"),
    [
        (0.1, True, "keeps the constraint no_invented_price: violated in 10.0% of the hidden answers"),
        (0.101, False, "violates the constraint no_invented_price: violated in 10.1% of the hidden answers, "
         "the SFT model in 33.0%; at most 10.0% is wanted."),
        (None, False, "The violations of the constraint no_invented_price were not measured."),
    ],
)  # fmt: skip
def test_a_constraint_that_is_violated_is_a_no_go(rate, is_go, words):
    """R24, R27: over its target, or not measured, is a no-go with rate and target, also in the report."""
    figures = {"target": 0.1, "sft": 0.33, "policy": rate}
    others = {"no_personal_data": figures | {"policy": 0}}
    summary = GOOD | {"constraints": {"no_invented_price": figures} | others}
    verdict = judge_summary(summary)
    assert verdict.is_go is is_go
    assert any(words in reason for reason in verdict.reasons)
    assert [check.passed for check in verdict.checks[-2:]] == [None if rate is None else is_go, True]
    report = render_report(summary)
    assert ("NO-GO" in report) is not is_go and "at most 10.0% is wanted" in report


def test_without_constraints_there_is_no_line_about_them():
    """R24: neither where the summary has none, nor where it has something else there."""
    for summary in (GOOD, GOOD | {"constraints": {}}, GOOD | {"constraints": None}):
        assert not any("constraint" in check.name for check in judge_summary(summary).checks)


def test_a_silent_reward_or_judge_is_no_go():
    """all-abstain: whatever else was measured; the cause is the reason, and hostile words are escaped."""
    cause = "reward <b>boom</b> failed: KeyError (8 of 8 completions)"
    for name in ("the reward, policy, hidden prompts", "hidden reward boom", "eval.judge"):
        summary = copy.deepcopy(GOOD) | {"unanswered": {name: {"share": 1.0, "cause": cause}}}
        verdict = judge_summary(summary)
        assert not verdict.is_go
        assert verdict.reasons == [f"No score from {name} for 100% of the answers: {cause}."]
        assert "<b>" not in render_report(summary) and "boom" in render_report(summary)
    assert judge_summary(copy.deepcopy(GOOD) | {"unanswered": {}}).is_go


def test_a_stopped_run_is_no_go():
    """all-abstain: the report of a run that ended by an error says where and why."""
    summary = {"stages": {}, "stopped": {"stage": "rl", "reason": "no completion got a reward"}}
    verdict = judge_summary(summary)
    assert not verdict.is_go
    assert verdict.reasons[0] == "The run was stopped in stage rl: no completion got a reward"
    assert "no completion got a reward" in render_report(summary)
