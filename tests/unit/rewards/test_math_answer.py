"""Issue 4: the mathematics reward on labelled pairs, on hanging and on hostile input."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.rewards.math_corpus import box, pairs

from trimtab.rewards.forked import ForkedPool
from trimtab.rewards.math_answer import MathReward, final_answer, math_reward
from trimtab.rewards.math_check import is_equal, read_quantity
from trimtab.types import Prompt, Sample

pytest.importorskip("sympy")
PAIRS = pairs()


@pytest.fixture(scope="module")
def reward() -> Iterator[MathReward]:
    """The reward with a short deadline."""
    made = math_reward(seconds=3.0)
    yield made
    made.close()


def sample(gold: str, completion: str) -> Sample:
    """A row with its gold answer."""
    return Sample(Prompt("0", ({"role": "user", "content": "?"},), {"answer": gold}), completion)


def test_labelled_pairs(reward: MathReward) -> None:
    """At least 200 pairs: none paid that is wrong, at most 3 % unpaid that are right."""
    assert len(PAIRS) >= 200
    results = reward.score([sample(gold, text) for gold, text, _, _ in PAIRS])
    assert all(result.error is None for result in results)
    paid = [result.value == 1.0 for result in results]
    wrong = [pair[2:] for pair, is_paid in zip(PAIRS, paid, strict=True) if is_paid and not pair[2]]
    missed = [pair[3] for pair, is_paid in zip(PAIRS, paid, strict=True) if pair[2] and not is_paid]
    num_right = sum(pair[2] for pair in PAIRS)
    print(f"{len(PAIRS)} pairs, {num_right} right: {len(wrong)} wrongly paid, {len(missed)} missed: {missed}")
    assert not wrong
    assert len(missed) <= 0.03 * num_right, missed


@settings(max_examples=300, deadline=None)
@given(st.integers(-(10**9), 10**9), st.integers(1, 10**6), st.integers(1, 50))
def test_numbers_in_other_forms(top: int, bottom: int, factor: int) -> None:
    """A fraction equals itself expanded, with a sign in front, and nothing a little off."""
    value = Fraction(top, bottom)
    gold = f"\\frac{{{top}}}{{{bottom}}}"
    assert is_equal(gold, f"{top * factor}/{bottom * factor}")
    assert is_equal(gold, f"\\frac{{{top * factor}}}{{{bottom * factor}}}")
    assert not is_equal(gold, f"\\frac{{{top * factor + 1}}}{{{bottom * factor}}}")
    assert read_quantity(gold) == (value, None)
    assert is_equal(str(top), f"{top:,}") and not is_equal(str(top), str(top + 1))


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60))
def test_no_text_is_an_answer_by_chance(text: str) -> None:
    """Whatever stands in a completion, extraction ends and gives a text or nothing."""
    for completion in (text, box(text), f"The answer is {text}"):
        found = final_answer(completion)
        assert found is None or found.strip() == found != ""


def test_a_hang_ends_at_its_deadline_and_poisons_nothing() -> None:
    """A call that never returns costs its seconds; the next one, and one after a crash, are right."""
    pool = ForkedPool("tests.unit.rewards.test_math_answer:act", workers=1, seconds=0.5)
    try:
        start = time.monotonic()
        acts = ["hang", "ok", "exit", "ok", "poison", "ok", "forge", "ok", "write", "ok", "program", "ok"]
        replies = pool.map([{"what": what} for what in acts])
        assert time.monotonic() - start < 20.0
        assert [reply.value for reply in replies[1::2]] == ["fine"] * 6
        assert replies[8].value is None and replies[10].value == "denied"
        assert replies[0].error == "timeout" and replies[2].error == "crash"
        assert not any(reply.is_fault for reply in replies)
    finally:
        pool.close()


def act(what: str) -> str:
    """What a hostile call may try, inside its process."""
    import json
    import os

    if what == "hang":
        while True:
            pass
    if what == "exit":
        os._exit(0)
    if what == "poison":
        json.dumps = lambda *_, **__: '{"value": "forged"}'  # type: ignore[assignment]
        raise ValueError("x")
    if what == "forge":
        for number in range(64):
            try:
                os.write(number, b'{"value": "forged"}\n')
            except OSError:
                continue
    if what == "write":
        with open("/tmp/trimtab-forked", "w") as file:
            file.write("x")
    if what == "program":
        try:
            os.execv("/bin/true", ["true"])
        except PermissionError:
            return "denied"
    return "fine"
