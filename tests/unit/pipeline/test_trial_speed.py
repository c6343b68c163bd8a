"""B.13: the trial behind the time estimate: what it times, the lengths it expects, when it says nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.models.tiny import tiny_model, tiny_tokenizer
from tests.unit.pipeline.tiny_recipe import changed, tiny_tree

from trimtab.cli.checks import duration
from trimtab.cli.checks.duration import MOST_SPREAD, check_time
from trimtab.errors import DataError
from trimtab.pipeline import trial_speed
from trimtab.pipeline.speed import Speeds
from trimtab.pipeline.trial_speed import Lengths, Trial, expected_lengths, try_speeds

RL = {"max_new_tokens": 8}


class Clock:
    """Stands for ``time``: goes on only when a call says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def takes(self, *seconds: float) -> Callable[[], None]:
        """Work that takes the first of these, then the second …; the last one from then on."""
        left = list(seconds)

        def work() -> None:
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return work


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(trial_speed, "time", found)
    return found


def test_a_slow_first_call_does_not_count(clock: Clock) -> None:
    """A call that compiles for a minute and then takes a tenth of a second takes a tenth of a second."""
    (found,) = trial_speed._timed([clock.takes(60.0, 0.1)], "cpu")
    assert found == pytest.approx([0.1] * trial_speed.MOST_REPEATS)


def test_repeats_end_when_the_time_is_over(clock: Clock) -> None:
    """Slow work is repeated three times and no more; calls take turns and each has its own seconds."""
    fast, slow = trial_speed._timed([clock.takes(0.5), clock.takes(0.5, 1.0, 2.0, 3.0)], "cpu")
    assert fast == pytest.approx([0.5] * 3)
    assert slow == pytest.approx([1.0, 2.0, 3.0])


def test_the_spread_by_hand() -> None:
    """(largest − smallest) / median."""
    assert trial_speed._spread([1.0, 2.0, 4.0]) == pytest.approx(1.5)
    assert trial_speed._spread([3.0, 3.0]) == 0.0


class Scripted:
    """An engine whose completions have these lengths, the same for every prompt."""

    def __init__(self, *lengths: int) -> None:
        self.lengths = lengths

    def generate(self, prompts: Any, count: int, params: Any) -> Any:
        self.asked = (len(prompts), count, params.max_new_tokens)
        one = [SimpleNamespace(token_ids=[3] * min(n, params.max_new_tokens)) for n in self.lengths]
        return [one for _ in prompts]


def lengths_of(tmp_path: Path, engine: Any, **sections: Any) -> Lengths:
    recipe = changed(tiny_tree(tmp_path), **sections)
    assert recipe.rl is not None
    return expected_lengths(recipe, recipe.rl, tiny_tokenizer(), engine, [[3, 4]] * 6)


def test_lengths_are_those_that_sft_imitates(tmp_path: Path) -> None:
    """One token per byte and one for the end: 2, 4 and 9 of them, and the last is cut at the limit of 8."""
    rows = [{"prompt": "q", "completion": text} for text in ("a", "abc", "abcdefghi")]
    data = tmp_path / "some.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = lengths_of(tmp_path, None, sft={"data": str(data)}, rl=RL)
    assert found == Lengths(mean=pytest.approx((2 + 4 + 8) / 3), longest=8)


def test_lengths_are_what_the_model_says_where_nothing_is_imitated(tmp_path: Path) -> None:
    """Eight completions of each of four prompts, of which none reached the end of what was tried."""
    engine = Scripted(2, 3, 7)
    found = lengths_of(tmp_path, engine, sft=None, rl={"max_new_tokens": 100})
    assert found == Lengths(mean=pytest.approx(4.0), longest=7)
    assert engine.asked == (4, 8, trial_speed.SAMPLED_ROWS)


def test_a_completion_that_goes_on_may_be_as_long_as_allowed(tmp_path: Path) -> None:
    """64 tokens were tried: who is not done then is expected to fill all 100."""
    found = lengths_of(tmp_path, Scripted(10, 90), sft=None, rl={"max_new_tokens": 100})
    assert found == Lengths(mean=pytest.approx(55.0), longest=100)


def test_no_answer_is_shorter_than_a_token(tmp_path: Path) -> None:
    """Nothing is divided by a length of 0."""
    assert lengths_of(tmp_path, Scripted(0), sft=None, rl=RL) == Lengths(1.0, 1.0)


def test_a_trial_of_a_whole_recipe(tmp_path: Path) -> None:
    """It runs with every stage, and with SFT alone; what cannot be read is said."""
    tree = tiny_tree(tmp_path)
    for recipe in (changed(tree), changed(tree, rl=None, eval=None, reward_model=None)):
        found = try_speeds(recipe, tiny_model("Llama"), tiny_tokenizer())
        assert min(found.speeds.rollout, found.speeds.score, found.speeds.train) > 0
        assert found.speeds.optimizer_seconds > 0 and found.spread >= 0
    with pytest.raises(DataError):
        missing = changed(tree, rl={"data": str(tmp_path / "none.json")})
        try_speeds(missing, tiny_model("Llama"), tiny_tokenizer())


@pytest.mark.parametrize(
    ("spread", "status"), [(0.0, "pass"), (MOST_SPREAD, "pass"), (MOST_SPREAD + 0.01, "warn"), (9.0, "warn")]
)
def test_too_much_scatter_gives_no_estimate(
    spread: float, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B.13: within a factor of 1.5, or not shown: then the line warns, has no time, and says what to do."""
    speeds = Speeds(rollout=100.0, score=1000.0, train=500.0, optimizer_seconds=0.1)
    monkeypatch.setattr(
        trial_speed, "try_speeds", lambda *_: Trial(speeds, Lengths(mean=5.0, longest=8.0), spread)
    )
    (line,) = check_time(changed(tiny_tree(tmp_path)), None, tiny_tokenizer())
    assert (line.name, line.status) == ("time", status)
    assert ("about" in line.found) == (status == "pass")
    assert ("no estimate" in line.found) == bool(line.fix) == (status == "warn")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (10.0, "10 s"), (89.4, "89 s"), (90.0, "2 min"), (5400.0, "1.5 h")],
)
def test_seconds_as_a_person_says_them(seconds: float, shown: str) -> None:
    assert duration.duration(seconds) == shown
