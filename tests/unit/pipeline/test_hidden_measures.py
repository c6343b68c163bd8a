"""What hidden rewards and judges see of an answer (R20, R21)."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.evals.suite import summarise_groups
from trimtab.pipeline.hidden import measures_of
from trimtab.types import Completion, Prompt, RewardResult, RolloutGroup, Sample

PROMPT = Prompt("0", ({"role": "user", "content": "q"},))


class Whole:
    """1 for an answer that ended by itself."""

    name = "whole"

    def score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        return [RewardResult(float(sample.finish_reason == "stop")) for sample in samples]


def group_of(*rows: tuple[str, RewardResult]) -> RolloutGroup:
    done = tuple(Completion((1, 2), "x", (0.0, 0.0), reason) for reason, _ in rows)  # type: ignore[arg-type]
    return RolloutGroup(PROMPT, (1,), done, tuple(result for _, result in rows))


def test_cut_answers_reach_them_as_cut() -> None:
    """R21: the trained reward knows that an answer was cut; so do the measures that it is compared with."""
    result = summarise_groups([group_of(("stop", RewardResult(1.0)), ("length", RewardResult(1.0)))])
    measures = measures_of(result, 0.5, {"eval/judge": Whole(), "eval/hidden_reward/w": Whole()})
    assert measures["eval/judge"].mean == measures["eval/hidden_reward/w"].mean == 0.5
    assert measures["eval/reward"].mean == 1.0


def test_a_closed_gate_does_not_pass() -> None:
    """R21, R24: with a threshold of 0 or below too, in the measures and in the summary."""
    rows = group_of(("stop", RewardResult(0.0, is_closed=True)), ("stop", RewardResult(0.0)))
    result = summarise_groups([rows], pass_threshold=-1.0)
    assert measures_of(result, -1.0, {})["eval/pass_rate"].mean == 0.5
    assert result.pass_rate == 0.5
    assert result.pass_at_k(1) == 0.5
