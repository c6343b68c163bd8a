from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.config import ConstraintConfig
from trimtab.errors import RewardError
from trimtab.rewards import CombinedReward
from trimtab.types import RewardResult, Sample

from .toy import sample


class Fixed:
    """A reward that returns given results, one per sample; an exception is raised."""

    def __init__(self, name, *results):
        self.name, self.results = name, results

    def score(self, samples):
        if isinstance(self.results[0], Exception):
            raise self.results[0]
        return list(self.results)


def scored(*components, clip=None, count=1):
    """Score ``count`` samples with (reward, weight) pairs."""
    return CombinedReward(components, clip).score([sample(str(i)) for i in range(count)])


def test_weighted_sum_and_parts():
    """R19: value = Σ weight · value; parts hold the raw values, and a component's own parts as name/part."""
    a = Fixed("a", RewardResult(0.5, {"x": 0.25}))
    b = Fixed("b", RewardResult(2.0))
    result = scored((a, 2.0), (b, -0.25))[0]
    assert result.value == 0.5
    assert dict(result.parts) == {"a": 0.5, "a/x": 0.25, "b": 2.0}
    assert result.error is None


def test_an_error_abstains_for_that_sample_only():
    """R19: a component that fails makes the total None with the reason; the parts that exist are kept."""
    a = Fixed("a", RewardResult(1.0), RewardResult(1.0))
    b = Fixed("b", RewardResult(None, error="too long"), RewardResult(3.0))
    combined = CombinedReward([(a, 1.0), (b, 1.0)])
    first, second = combined.score([sample("0"), sample("1")])
    assert (first.value, first.error, dict(first.parts)) == (None, "too long", {"a": 1.0})
    assert second.value == 4.0
    assert combined.num_errors == 1


def test_not_applicable_is_left_out():
    """R19: None without an error is left out of the sum, not counted as 0; all left out abstains."""
    skip = Fixed("skip", RewardResult(None))
    one = Fixed("one", RewardResult(0.0))
    assert scored((skip, 1.0), (one, 1.0))[0] == RewardResult(0.0, {"one": 0.0})
    assert scored((skip, 1.0), (skip, 1.0))[0] == RewardResult(None, {})


def test_exceptions_and_wrong_lengths_abstain_for_all():
    """R19: an exception or a wrong number of results costs the call, never the run."""
    fine = Fixed("fine", RewardResult(1.0), RewardResult(1.0))
    for broken in (Fixed("bad", KeyError("gone")), Fixed("bad", RewardResult(1.0))):
        results = scored((fine, 1.0), (broken, 1.0), count=2)
        assert [result.value for result in results] == [None, None]
        assert all("bad" in result.error for result in results)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1j, "1"])
def test_a_component_cannot_smuggle_in_what_is_no_number(value):
    """Threats: a component's value is checked again before it enters the sum, whatever its weight."""
    assert scored((Fixed("a", RewardResult(value)), 0.0))[0].value is None


def test_a_sum_that_overflows_is_refused():
    """Threats: the total is checked too."""
    result = scored((Fixed("a", RewardResult(1e18)), 1e300))[0]
    assert result.value is None
    assert "total" in result.error


def test_clip():
    """Trap 2: the combined reward is clipped to ± clip, before anything normalises it."""
    assert scored((Fixed("a", RewardResult(5.0)), 1.0), clip=2.0)[0].value == 2.0
    assert scored((Fixed("a", RewardResult(-5.0)), 1.0), clip=2.0)[0].value == -2.0
    assert scored((Fixed("a", RewardResult(1.5)), 1.0), clip=2.0)[0].value == 1.5
    with pytest.raises(RewardError):
        CombinedReward([(Fixed("a", RewardResult(1.0)), 1.0)], clip=0.0)


def test_the_same_name_twice_is_numbered():
    """R17: every component has a column of its own."""
    result = scored((Fixed("regex", RewardResult(1.0)), 1.0), (Fixed("regex", RewardResult(0.0)), 1.0))[0]
    assert dict(result.parts) == {"regex": 1.0, "regex_2": 0.0}


def test_no_components():
    """R19: an empty mixture is a sentence."""
    with pytest.raises(RewardError, match="No reward is configured"):
        CombinedReward([])


@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(-3, 3)), min_size=1, max_size=5))
def test_order_does_not_matter(pairs):
    """R19: the sum is that of the products, in any order of the components."""
    components = [(Fixed(f"r{i}", RewardResult(v)), w) for i, (v, w) in enumerate(pairs)]
    forward, backward = scored(*components)[0], scored(*components[::-1])[0]
    assert forward.value == pytest.approx(sum(v * w for v, w in pairs), abs=1e-9)
    assert forward.value == pytest.approx(backward.value, abs=1e-9)


def test_a_constraint_is_measured_and_not_added():
    """R24: the value stays plain; the violation is 1 less what the constraint says, where it applies."""
    parts = [(Fixed("a", RewardResult(0.5)), 2.0), (Fixed("limit", RewardResult(0.25)), 1.0)]
    combined = CombinedReward(parts, clip=0.75, constraints={1: ConstraintConfig(initial_weight=9.0)})
    (result,) = combined.score([sample("0")])
    assert (result.value, dict(result.parts)) == (0.75, {"a": 0.5, "limit": 0.25})
    assert combined.violations(result.parts) == {"limit": 0.75}
    assert combined.violations({"a": 0.5}) == {}
    assert combined.added == {"a": 2.0}


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_constraint_says_a_number_in_0_to_1(value):
    """R24: anything else is an abstention with the reason, never a violation of 0 or below."""
    parts = [(Fixed("a", RewardResult(0.5)), 1.0), (Fixed("limit", RewardResult(value)), 1.0)]
    combined = CombinedReward(parts, constraints={1: ConstraintConfig()})
    (result,) = combined.score([sample("0")])
    assert result.value is None
    assert "reward limit returned" in result.error
    assert combined.violations(result.parts) == {}


def test_gate_and_constraint_side_by_side():
    """R24: a closed gate caps the sum at 0; alone, gates and constraints pay 1 where the gate is open."""
    gate, limit = Fixed("gate", RewardResult(0.0)), Fixed("limit", RewardResult(0.0))
    both = CombinedReward([(gate, 1.0), (limit, 1.0)], gates=[0], constraints={1: ConstraintConfig()})
    assert both.score([sample("0")])[0].value == 0.0
    alone = CombinedReward([(limit, 1.0)], constraints={0: ConstraintConfig()})
    assert alone.score([sample("0")])[0].value == 1.0


def gated(values, gates, clip=None, prompts=None):
    """The totals of completions with these plain rewards and gates; of one prompt when none are given."""
    named = sample("0").prompt
    rewards = Fixed(
        "a", *[RewardResult(v) if v is not None else RewardResult(None, error="x") for v in values]
    )
    gate = Fixed("gate", *[RewardResult(float(g)) for g in gates])
    combined = CombinedReward([(rewards, 1.0), (gate, 1.0)], clip, gates=[1])
    rows = [Sample(p, "x") for p in (prompts or [named] * len(values))]
    return [result.value for result in combined.score(rows)]


def test_a_closed_gate_is_the_least_of_its_group():
    """R24: whatever signs the rewards have; never above 0, never above what the answer itself would earn."""
    assert gated([-1.0, -0.4, 0.3, 2.0], [1, 1, 1, 0]) == [-1.0, -0.4, 0.3, -1.0]
    assert gated([0.2, 0.5, 2.0], [1, 1, 0]) == [0.2, 0.5, 0.0]
    assert gated([0.2, -1.0, -4.0], [1, 1, 0]) == [0.2, -1.0, -4.0]
    assert gated([0.2, None, 3.0], [1, 1, 0]) == [0.2, None, 0.0], "an abstention is no yardstick"
    assert gated([-8.0, -9.0, 3.0], [1, 1, 0], clip=0.5) == [-0.5, -0.5, -0.5]


def test_where_all_gates_are_closed_nothing_is_preferred():
    """R24: all are worth the same: 0 at most, and the least that one of them would have earned."""
    assert gated([-3.0, -1.0, 2.0], [0, 0, 0]) == [-3.0, -3.0, -3.0]
    assert gated([1.0, 2.0], [0, 0]) == [0.0, 0.0]


def test_a_prompt_with_no_open_gate_looks_at_the_others():
    """R24: one completion per prompt, as in an evaluation: the least of the open ones of the call."""
    prompts = [sample(str(i)).prompt for i in range(3)]
    assert gated([-2.0, 0.5, 3.0], [1, 1, 0], prompts=prompts) == [-2.0, 0.5, -2.0]
    one, two = prompts[:2]
    # The second prompt has an open completion of its own, so the −2 of the first does not count.
    assert gated([-2.0, 0.5, 3.0], [1, 1, 0], prompts=[one, two, two]) == [-2.0, 0.5, 0.0]


def test_a_closed_completion_never_passes():
    """R21, R24: not even where the threshold is 0 and a closed gate is worth 0."""
    named = sample("0").prompt
    parts = [(Fixed("a", RewardResult(1.0), RewardResult(2.0)), 1.0)]
    gate = (Fixed("gate", RewardResult(1.0), RewardResult(0.0)), 1.0)
    results = CombinedReward([*parts, gate], gates=[1]).score([Sample(named, "x"), Sample(named, "y")])
    assert [(r.value, r.is_closed, r.passes(0.0)) for r in results] == [
        (1.0, False, True),
        (0.0, True, False),
    ]
