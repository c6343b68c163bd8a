"""Reward models that run out of memory: smaller micro-batches, the same gradients, a sentence at one row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.models.tiny import tiny_tokenizer
from tests.unit.trainers.systems import tiny_stage
from tests.unit.trainers.test_process_reward import PAD, classifier, solution
from torch import Tensor, nn

from trimtab.config import ProcessRewardConfig, RewardModelConfig
from trimtab.data import Preference
from trimtab.distributed.room import Room
from trimtab.errors import MemoryShortError
from trimtab.rewards.steps import EncodedSteps
from trimtab.runs import read_events
from trimtab.trainers import process_reward, reward_model
from trimtab.trainers.process_reward import LabelledSteps, train_process_reward
from trimtab.trainers.reward_model import EncodedPreference, validate_reward_model
from trimtab.trainers.scorer import Scorer, in_microbatches, restore

PAIRS = [EncodedPreference(tuple(range(3, 5 + i)), tuple(range(4, 12 - i))) for i in range(7)]
SOLUTIONS = [
    LabelledSteps(EncodedSteps(tuple(range(3, 8 + i)), (2, 4 + i)), (1.0, float(i % 2))) for i in range(7)
]
KEYS: dict[str, Any] = {"data": "x", "microbatch_size": 4, "learning_rate": 1e-3}


def scorer_of(kind: str, model: nn.Module) -> Scorer:
    config = RewardModelConfig(**KEYS) if kind == "reward_model" else ProcessRewardConfig(**KEYS)
    return Scorer(model, config, kind)


def accumulate(kind: str, scorer: Scorer) -> float:
    if kind == "reward_model":
        return reward_model._accumulate(scorer, PAIRS, PAD, 0.01)[0]
    return process_reward._accumulate(scorer, SOLUTIONS, PAD)[0]


def fail_above(rows: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let a loss of more rows (pairs, solutions) run out of memory *after* its gradients were accumulated."""
    real, seen = Tensor.backward, list[int]()

    def backward(self: Tensor, *args: Any, **kwargs: Any) -> None:
        real(self, *args, **kwargs)
        if seen[-1] > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")

    def counting(score: Callable[..., Any]) -> Callable[..., Any]:
        def scored(model: nn.Module, micro: Any, pad_id: int) -> Any:
            seen.append(len(micro) if isinstance(micro[0], LabelledSteps) else len(micro) // 2)
            return score(model, micro, pad_id)

        return scored

    monkeypatch.setattr(Tensor, "backward", backward)
    for module, name in ((reward_model, "score_rows"), (process_reward, "score_steps")):
        monkeypatch.setattr(module, name, counting(getattr(module, name)))
    return seen


@pytest.mark.parametrize("kind", ["reward_model", "process_reward"])
def test_gradients_are_those_of_the_whole(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 5 (out of memory): half-done gradients do not count: equal to the undisturbed ones to 1e-6."""
    whole, split = scorer_of(kind, classifier(tmp_path)), scorer_of(kind, classifier(tmp_path))
    wanted = accumulate(kind, whole)
    seen = fail_above(2, monkeypatch)
    assert accumulate(kind, split) == pytest.approx(wanted, rel=1e-6)
    assert seen[0] == 4 and max(seen[-3:]) <= 2
    assert split.optimizer.gradients.keys() == whole.optimizer.gradients.keys()
    for name, grad in whole.optimizer.gradients.items():
        torch.testing.assert_close(split.optimizer.gradients[name], grad, atol=1e-6, rtol=1e-5)
    news = split.room.take_news()[0]
    assert news.num_rows == 4 and f"({kind}.microbatch_size)" in news.sentence()


def test_the_limit_goes_into_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 5 (4): what has not fitted once is not tried again after a resume; a rollback keeps it, too."""
    before, after = (scorer_of("reward_model", classifier(tmp_path)) for _ in range(2))
    fail_above(2, monkeypatch)
    accumulate("reward_model", before)
    assert before.room.limit is not None
    after.load_state(before.state())
    assert after.room.limit == before.room.limit
    after.load_state({**before.state(), "room": None})
    assert after.room.limit == before.room.limit


def test_a_run_says_it_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 5 (out of memory): an event names the step, and what holds from now on."""
    rows = [solution(f"q{i}", ("s" * (i + 1), 1.0), ("t", 0.0)) for i in range(9)]
    fail_above(3, monkeypatch)
    config = ProcessRewardConfig(**KEYS, batch_size=6, steps=3)
    stage = tiny_stage(tmp_path / "run", "process_reward")
    train_process_reward(config, classifier(tmp_path), tiny_tokenizer(), rows, stage, seed=1)
    events = read_events(tmp_path / "run", "out_of_memory")
    assert {event.step for event in events} == {1}
    assert events[-1].data["key"] == "process_reward.microbatch_size"
    assert len(read_events(tmp_path / "run", "metrics")) == 3


def test_one_row_gives_up_with_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 5 (out of memory): a pair cannot be split; the key is the one of this stage."""
    fail_above(0, monkeypatch)
    with pytest.raises(MemoryShortError, match=r"or lower reward_model\.max_length"):
        accumulate("reward_model", scorer_of("reward_model", classifier(tmp_path)))


def test_the_order_and_the_limits_of_micro_batches() -> None:
    """``size`` rows each; with a limit, rows times the longest stay within it; but never under one row."""
    lengths = [6, 5, 4, 3, 2, 1]

    def micro(size: int, limit: int | None) -> list[list[int]]:
        return in_microbatches(lengths, lambda length: length, list, size, Room(limit=limit))

    assert micro(4, None) == [[6, 5, 4, 3], [2, 1]]
    assert micro(4, 12) == [[6, 5], [4, 3, 2], [1]]
    assert micro(4, 5) == [[6], [5], [4], [3], [2, 1]]
    assert in_microbatches([], len, list, 2, Room()) == []


def test_validation_splits_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 5 (out of memory): the figures of the card are those of an evaluation that had room."""
    user = {"role": "user", "content": "q"}
    rows = [Preference((user,), "x" * (i + 1), "y" * (9 - i)) for i in range(8)]
    model, config = classifier(tmp_path).eval(), RewardModelConfig(**KEYS)
    wanted = validate_reward_model(model, tiny_tokenizer(), rows, config)
    real = reward_model.score_rows

    def score_rows(model: nn.Module, sides: Any, pad_id: int) -> Tensor:
        if len(sides) > 2:
            raise MemoryError
        return real(model, sides, pad_id)

    monkeypatch.setattr(reward_model, "score_rows", score_rows)
    found = validate_reward_model(model, tiny_tokenizer(), rows, config)
    assert (found.mean, found.std) == pytest.approx((wanted.mean, wanted.std), rel=1e-5)


def test_a_new_run_starts_at_the_first_step(tmp_path: Path) -> None:
    """A stage that is not resumed reads no checkpoint."""
    stage: Any = tiny_stage(tmp_path, "reward_model")
    stream: Any = None
    assert restore(stage, stream, scorer_of("reward_model", classifier(tmp_path))) == 0
