"""Out of memory in a micro-batch: smaller ones, the same gradients, and a sentence at one row."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.distributed.test_worker import RL, rows  # noqa: F401
from tests.unit.models.tiny import tiny_model
from tests.unit.trainers.systems import rl_config, tiny_stage, tiny_system, train

from trimtab.distributed.room import Room, is_out_of_memory, run_with_room
from trimtab.distributed.worker import LocalLearner, WorkerSettings, policy_learner
from trimtab.errors import MemoryShortError
from trimtab.runs import read_events
from trimtab.trainers.objectives import PolicyObjective
from trimtab.types import TrainBatch

CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"
)
KINDS = [torch.OutOfMemoryError("CUDA out of memory"), CPU, MemoryError()]


def learner(**settings: Any) -> LocalLearner:
    return policy_learner(tiny_model(), WorkerSettings(learning_rate=1e-3, **settings))


def fail_above(found: LocalLearner, rows_that_fit: int, error: BaseException) -> list[int]:
    """Let the backward of a micro-batch with more rows fail *after* its gradients were accumulated."""
    real, seen = found.model_pass.backward, list[int]()

    def backward(micro: TrainBatch, objective: Any) -> Any:
        seen.append(len(micro))
        shares = real(micro, objective)
        if len(micro) > rows_that_fit:
            raise error
        return shares

    found.model_pass.backward = backward  # type: ignore[method-assign]
    return seen


@pytest.mark.parametrize("error", KINDS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("packing", [True, False])
def test_gradients_are_those_of_smaller_microbatches(
    error: BaseException,
    packing: bool,
    rows: TrainBatch,  # noqa: F811
) -> None:
    """Issue 5 (out of memory): half-done gradients do not count: equal to 1e-6 to the undisturbed run."""
    objective = PolicyObjective.of(RL, rows, 0.0)
    whole, split = learner(packing=packing, skip_zero=False), learner(packing=packing, skip_zero=False)
    seen = fail_above(split, 3, error)
    wanted, found = whole.forward_backward(rows, objective), split.forward_backward(rows, objective)
    assert max(seen) == 9 and seen[-1] <= 3
    assert found.keys() == wanted.keys()
    assert all(found[name] == pytest.approx(wanted[name], abs=1e-6) for name in wanted)
    for name, grad in whole.optimizer.gradients.items():
        torch.testing.assert_close(split.optimizer.gradients[name], grad, atol=1e-6, rtol=1e-5)


def test_gradients_from_before_are_kept(rows: TrainBatch) -> None:  # noqa: F811
    """Issue 5 (out of memory): what earlier calls have accumulated stays, exactly once."""
    objective = PolicyObjective.of(RL, rows, 0.0)
    for dtype in (torch.float32, torch.bfloat16):
        found = []
        for fails in (False, True):
            one = policy_learner(tiny_model(dtype=dtype), WorkerSettings(learning_rate=1e-3, max_tokens=40))
            one.forward_backward(rows, objective)
            if fails:
                one.settings.room.limit = None
                error, real = [CPU], one.model_pass.backward

                def once(micro: TrainBatch, seen: Any, real: Any = real, error: Any = error) -> Any:
                    shares = real(micro, seen)
                    if error and len(micro) > 1:
                        raise error.pop()
                    return shares

                one.model_pass.backward = once  # type: ignore[method-assign]
            one.forward_backward(rows, objective)
            found.append(one.optimizer.gradients)
        tolerance = 1e-6 if dtype == torch.float32 else 2e-2
        for name, grad in found[0].items():
            torch.testing.assert_close(found[1][name], grad, atol=tolerance, rtol=tolerance)


def test_the_limit_stays_and_holds_for_all(rows: TrainBatch) -> None:  # noqa: F811
    """Issue 5 (out of memory): for the rest of the run no micro-batch is as large, in any pass."""
    one = learner(skip_zero=False)
    seen = fail_above(one, 4, CPU)
    one.forward_backward(rows, PolicyObjective.of(RL, rows, 0.0))
    news = one.take_news()
    assert news and news[0].num_rows == 9 and one.settings.room.limit == news[-1].max_tokens
    assert all(later.max_tokens < earlier.max_tokens for earlier, later in pairwise(news))
    assert one.take_news() == []
    seen.clear()
    one.forward_backward(rows, PolicyObjective.of(RL, rows, 0.0))
    assert max(seen) <= 4
    assert max(len(micro) for _, micro in one.model_pass.split(rows)) <= 4
    assert one.take_news() == []


def test_passes_without_gradient_shrink_too(rows: TrainBatch) -> None:  # noqa: F811
    """Issue 5 (out of memory): log-probabilities are the same after it."""
    one = learner()
    wanted, real = one.logprobs(rows), one.model_pass.scores

    def scores(micro: TrainBatch) -> Any:
        if len(micro) > 2:
            raise MemoryError
        return real(micro)

    one.model_pass.scores = scores  # type: ignore[method-assign]
    torch.testing.assert_close(one.logprobs(rows), wanted, atol=1e-6, rtol=0)
    assert one.take_news()


def test_one_row_gives_up_with_a_sentence(rows: TrainBatch) -> None:  # noqa: F811
    """Issue 5 (out of memory): there is nothing left to split; no gradient is left behind."""
    one = learner()
    fail_above(one, 0, CPU)
    with pytest.raises(MemoryShortError, match=r"A single row of \d+ tokens does not fit into memory"):
        one.forward_backward(rows, PolicyObjective.of(RL, rows, 0.0))


def test_other_errors_pass() -> None:
    """A bug is no lack of memory."""
    assert all(map(is_out_of_memory, KINDS))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))

    def wrong() -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        run_with_room(wrong, lambda _: None)


def test_what_the_failed_attempt_held_is_free() -> None:
    """Issue 5 (out of memory): activations of the first attempt are gone before the second begins."""
    held: list[Any] = []

    def attempt() -> str:
        if held:
            gc.collect()
            return "free" if held[0]() is None else "held"
        activations = torch.zeros(8)
        held.append(weakref.ref(activations))
        raise MemoryError

    assert run_with_room(attempt, lambda _: None) == "free"


def test_halves() -> None:
    """Issue 5 (out of memory): half of what did not fit, never more than before."""
    room = Room()
    room.shrink(4, 100, "x")
    room.shrink(3, 80, "x")
    assert room.limit == 25 and [item.max_tokens for item in room.take_news()] == [50, 25]
    with pytest.raises(MemoryShortError):
        room.shrink(1, 20, "x")


def test_a_run_records_it_and_goes_on(tmp_path: Path) -> None:
    """Issue 5 (out of memory): an event says what happened and what holds from now on."""
    rl = rl_config(steps=3)
    system = tiny_system(rl)
    policy: Any = system.policy
    policy.settings = replace(policy.settings)
    fail_above(policy, 3, CPU)
    train(system, rl, tiny_stage(tmp_path))
    events = read_events(tmp_path, "out_of_memory")
    assert [event.step for event in events] == [1] * len(events) and events
    assert events[-1].data["max_tokens"] < events[-1].data["num_tokens"]
    assert len(read_events(tmp_path, "metrics")) == 3
