"""A reward that never answers: alarm, stop, cause (issue 14, all-abstain)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.unit.trainers.systems import even_share, rl_config, tiny_stage, tiny_system, train

from trimtab.config import MonitorConfig
from trimtab.errors import RewardError
from trimtab.models.checkpoint import list_checkpoints
from trimtab.monitor import Guard, Measure
from trimtab.rewards.base import why_silent
from trimtab.runs import metrics_table, read_events
from trimtab.types import RewardResult, Sample


class Fails:
    """Says nothing in the calls from ``first`` to ``last``; each step is one call."""

    name = "fails"

    def __init__(
        self, first: int, last: int, error: str | None = "reward fails failed: KeyError: 'x'"
    ) -> None:
        self.first, self.last, self.error, self.calls = first, last, error, 0

    def score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        self.calls += 1
        if self.first <= self.calls <= self.last:
            return [RewardResult(None, error=self.error) for _ in samples]
        return [RewardResult(even_share(sample)) for sample in samples]


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
@pytest.mark.parametrize("guard", ["observe", "protect"])
def test_nothing_in_the_first_step_ends_the_run(algorithm: str, guard: str, tmp_path: Path) -> None:
    """all-abstain: one step, an alarm with the reward's own words, an error with them, in every mode."""
    rl = rl_config(algorithm, steps=9, checkpoint_every=1)
    stage = tiny_stage(tmp_path)
    stage.guard = Guard(config=MonitorConfig(guard=guard))  # type: ignore[arg-type]
    system = tiny_system(rl)
    system.reward = Fails(1, 99)
    with pytest.raises(
        RewardError, match=r"no completion got a reward in the first step: reward fails failed"
    ):
        train(system, rl, stage)
    assert metrics_table(tmp_path, "rl")["reward/abstained"] == [1.0]
    (alarm,) = read_events(tmp_path, "alarm")
    assert (alarm.step, alarm.data["kind"]) == (1, "reward_abstains")
    assert "KeyError: 'x' (" in alarm.data["detail"] and "KeyError" in alarm.data["message"]["zh"]
    assert not list_checkpoints(stage.checkpoint_directory), "there is nothing to go on from"


def test_a_reward_that_does_not_apply_is_said_so(tmp_path: Path) -> None:
    """all-abstain: None without an error has no words of its own."""
    rl = rl_config(steps=3)
    system = tiny_system(rl)
    system.reward = Fails(1, 99, error=None)
    with pytest.raises(RewardError, match="it returned None, which says that it does not apply"):
        train(system, rl, tiny_stage(tmp_path))


def test_a_pause_is_survived_and_a_long_one_is_not(tmp_path: Path) -> None:
    """all-abstain: two silent steps of three allowed go on; three end the run, with a checkpoint."""
    rl = rl_config(steps=12)
    for last, steps in ((4, 12), (99, 5)):
        root = tmp_path / str(last)
        stage = tiny_stage(root)
        stage.guard = Guard(config=MonitorConfig(max_silent_steps=3))
        system = tiny_system(rl)
        system.reward = Fails(3, last)
        if last == 4:
            train(system, rl, stage)
        else:
            with pytest.raises(RewardError, match="in 3 steps in a row"):
                train(system, rl, stage)
            assert [path.name for path in list_checkpoints(stage.checkpoint_directory)] == ["step-000005"]
        assert len(metrics_table(root, "rl")["step"]) == steps


def test_a_silent_last_step_saves_no_policy(tmp_path: Path) -> None:
    """all-abstain: also where the run would have ended there: a policy of no reward looks like a result."""
    rl = rl_config(steps=1)
    system = tiny_system(rl)
    system.reward = Fails(1, 1)
    with pytest.raises(RewardError):
        train(system, rl, tiny_stage(tmp_path))


def test_an_evaluation_that_measured_nothing_alarms(tmp_path: Path) -> None:
    """all-abstain: a judge or hidden reward that says nothing of all hidden answers, with its words."""
    stage = tiny_stage(tmp_path)
    scored = Measure.of([0.5, 0.7])
    silent = Measure(float("nan"), float("nan"), 0, cause="The judge failed: KeyError: 'x'")
    stage.log_evaluation(1, {"eval/reward": scored, "eval/judge": silent})
    (alarm,) = read_events(tmp_path, "alarm")
    assert (alarm.step, alarm.data["metric"], alarm.data["value"]) == (2, "eval/judge", 1.0)
    assert alarm.data["detail"] == "The judge failed: KeyError: 'x'"


def test_the_cause_is_what_most_completions_have() -> None:
    """all-abstain: by count; a full reward has none."""
    results = [RewardResult(None, error="a."), RewardResult(None, error="b"), RewardResult(None, error="a.")]
    assert why_silent([*results, RewardResult(1.0)]) == "a (2 of 4 completions)"
    assert why_silent([RewardResult(1.0)]) == ""
