from __future__ import annotations

import copy

import pytest

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
