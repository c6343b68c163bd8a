"""Variety as a reward: by hand, and against texts that hide a repetition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.config import RewardSpec
from trimtab.errors import RewardError
from trimtab.rewards import build_reward
from trimtab.rewards.variety import diversity, repetition, units
from trimtab.types import Prompt, Sample


def group(*texts: str, prompt: str = "0") -> list[Sample]:
    return [Sample(Prompt(prompt, ({"role": "user", "content": "hi"},)), text) for text in texts]


def values(reward: object, samples: list[Sample]) -> list[float | None]:
    return [result.value for result in reward.score(samples)]  # type: ignore[attr-defined]


def test_units_are_words_or_characters() -> None:
    """R14: words of an alphabet, single characters of Chinese; what nobody sees is folded."""
    assert units("CRM很好 very\u200b GOOD，１2") == ["crm", "很", "好", "very", "good", ",", "12"]
    assert units("云\u200b帆 云\n帆") == ["云", "帆", "云", "帆"]


def test_repetition_by_hand() -> None:
    """R14: a b a b a b has five bigrams, three of them repeated."""
    assert values(repetition(2), group("a b a b a b", "a b c d", "a", "")) == pytest.approx([0.4, 1, 1, 1])


@pytest.mark.parametrize("between", ["", " ", "\u200b", "\u00ad", "\n", "\ufe0f"])
def test_what_nobody_sees_does_not_hide_a_repetition(between: str) -> None:
    """R20: the same sentence again and again is repetition, however it is spaced."""
    text = between.join(f"很好{between}用的产品" for _ in range(9))
    assert values(repetition(3), group(text))[0] == pytest.approx(
        values(repetition(3), group("很好用的产品" * 9))[0]
    )
    assert (values(repetition(3), group(text))[0] or 0.0) < 0.2


def test_diversity_by_hand() -> None:
    """R14: abcd shares 1/3 and 0 of its bigrams with the others, bc all and nothing, xy nothing."""
    results = diversity(2).score(group("a b c d", "b c", "x y"))
    assert [result.value for result in results] == pytest.approx([5 / 6, 1 / 2, 1.0])
    # ab, bc, cd, bc, xy: four different ones of five.
    assert [result.parts["distinct"] for result in results] == pytest.approx([0.8] * 3)


def test_diversity_is_within_a_group() -> None:
    """R14: only completions of the same prompt are compared; one alone does not apply, and is no error."""
    samples = [*group("a b c", "a b c", prompt="1"), *group("a b c", prompt="2"), *group("x y z", prompt="1")]
    results = diversity(2).score(samples)
    assert [result.value for result in results] == [0.5, 0.5, None, 1.0]
    assert results[2].error is None


def test_an_empty_completion_is_not_diverse() -> None:
    """R20: saying nothing is no way to be different."""
    assert values(diversity(2), group("", "a b", "c d"))[0] == 0.0


@given(st.lists(st.text(max_size=40), min_size=1, max_size=5), st.integers(1, 5))
def test_values_are_bounded(texts: list[str], n: int) -> None:
    """R20: whatever the text, both rewards are in 0..1 (or abstain), and nothing is raised."""
    for reward in (diversity(n), repetition(n)):
        assert all(value is None or 0.0 <= value <= 1.0 for value in values(reward, group(*texts)))


def test_a_group_reaches_the_reward_through_the_sum() -> None:
    """R14: the combined reward scores the whole step in one call, so groups are seen."""
    both = build_reward([RewardSpec(name="diversity"), RewardSpec(name="repetition", weight=0.5)])
    assert values(both, group("a b c d e", "a b c d e")) == [0.5, 0.5]


@pytest.mark.parametrize("name", ["diversity", "repetition"])
def test_a_wrong_n_is_refused(name: str) -> None:
    """Style: one sentence."""
    with pytest.raises(RewardError, match=f"Reward {name}: n = 0"):
        build_reward([RewardSpec(name=name, options={"n": 0})])
