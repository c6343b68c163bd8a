"""Issue 3, exactness: packing, merging, skipping and the one-pass head give the plain gradients (fp32).

The plain path pads, runs every row and asks autograd. Run with ``-s`` to see the figures.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.properties.packed_groups import (
    OBJECTIVES,
    PACKED,
    PLAIN,
    Shape,
    are_equal,
    gaps,
    learner_of,
    measure,
    objective_of,
    random_groups,
    small_model,
)

from trimtab.distributed.passes import PolicyPass
from trimtab.distributed.worker import LocalLearner
from trimtab.types import TrainBatch

SEEDS = range(6)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_packed_is_plain(name: str) -> None:
    """Issue 3: the same loss and every parameter's gradient over random groups, fp32."""
    figures = []
    for seed in SEEDS:
        rows = random_groups(seed)
        plain = measure(name, rows, PLAIN)
        for settings in (PACKED, replace(PACKED, max_tokens=24), replace(PACKED, microbatch_size=2)):
            packed = measure(name, rows, settings)
            assert are_equal(plain, packed)
            figures.append(gaps(plain, packed))
    largest, norm = (max(part) for part in zip(*figures, strict=True))
    print(f"{name:20} largest {largest:.1e}, norm {norm:.1e}")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_packed_is_plain_in_fp64(name: str) -> None:
    """Issue 3: in fp64 every single number agrees to 5e-7 of the largest; what is left is the model's rotary
    table, which transformers computes in fp32 with a last digit that depends on the place in the row."""
    for seed in SEEDS:
        rows = random_groups(seed)
        plain, packed = (measure(name, rows, s, dtype=torch.float64) for s in (PLAIN, PACKED))
        assert gaps(plain, packed)[0] <= 5e-7


@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("head_size", [8, 32])
@pytest.mark.parametrize(("heads", "kv_heads"), [(2, 2), (4, 2), (3, 1)])
def test_heads_and_embeddings(heads: int, kv_heads: int, head_size: int, is_tied: bool) -> None:
    """Issue 3: with 1, 2 and 3 query heads per key head, tied and untied embeddings: as near to fp64 as the
    plain path in fp32 is."""
    shape = Shape(heads, kv_heads, is_tied, head_size)
    for seed in (1, 2):
        for name in ("grpo with KL", "gspo"):
            rows = random_groups(seed)
            exact = measure(name, rows, PLAIN, shape, dtype=torch.float64)
            plain, packed = (gaps(exact, measure(name, rows, s, shape)) for s in (PLAIN, PACKED))
            assert all(found <= 2 * right + 5e-7 for found, right in zip(packed, plain, strict=True))


def test_metrics_do_not_depend_on_packing() -> None:
    """Trap 4: without skipping, every metric is the plain path's, however the tokens are split."""
    for name in ("grpo with KL", "gspo", "supervised"):
        rows = random_groups(4)
        plain = measure(name, rows, PLAIN)[0]
        for max_tokens in (None, 20):
            found = measure(name, rows, replace(PACKED, max_tokens=max_tokens))[0]
            assert found.keys() == plain.keys()
            for key, value in plain.items():
                assert found[key] == pytest.approx(value, rel=1e-5, abs=1e-6), key


@pytest.mark.parametrize("is_packed", [True, False])
def test_equal_rewards_are_skipped_and_leave_zero_gradients(is_packed: bool) -> None:
    """Issue 3: groups without variance do not run, the denominator still counts them; when all rewards are
    equal one row runs, so that the gradients are zeros and not missing."""
    rows = random_groups(1)
    settings = replace(PACKED, packing=is_packed)
    half = torch.arange(len(rows)) % 2 == 0
    some = replace(rows, advantages=rows.advantages * half[:, None])
    assert are_equal(measure("grpo", some, PLAIN), measure("grpo", some, settings))
    none = replace(rows, advantages=torch.zeros_like(rows.advantages))
    metrics, grads = measure("grpo", none, settings)
    assert grads.keys() == measure("grpo", none, PLAIN)[1].keys()
    assert not any(grad.any() for grad in grads.values())
    assert metrics.keys() == measure("grpo", none, PLAIN)[0].keys()


def test_rows_that_are_skipped_do_not_run() -> None:
    """Issue 3: skipping leaves tokens out; with a KL in the loss nothing is skipped."""
    rows = random_groups(1)
    rows = replace(rows, advantages=rows.advantages * (torch.arange(len(rows)) == 1)[:, None])
    ran = {name: tokens_run("grpo", rows, name) for name in ("grpo", "grpo with KL")}
    assert 0 < ran["grpo"] < ran["grpo with KL"]


def test_metrics_are_of_the_rows_that_ran() -> None:
    """Issue 3: the loss is divided by every token of the mini-batch, metrics by those that ran."""
    rows = random_groups(4)
    active = torch.arange(len(rows)) % 2 == 0
    some = replace(rows, advantages=(1.0 + rows.advantages) * (rows.completion_mask & active[:, None]))
    found, plain = measure("grpo", some, PACKED)[0], measure("grpo", some, PLAIN)[0]
    alone = measure("grpo", some.rows(active.nonzero().squeeze(1)), PLAIN)[0]
    assert found["loss/total"] == pytest.approx(plain["loss/total"], rel=1e-5)
    assert found["loss/total"] != pytest.approx(alone["loss/total"], rel=1e-2)
    for key in set(alone) - {"loss/total", "loss/policy"}:
        assert found[key] == pytest.approx(alone[key], rel=1e-5, abs=1e-6), key
    assert found["policy/ratio_mean"] != pytest.approx(plain["policy/ratio_mean"], rel=1e-3)


def tokens_run(name: str, rows: TrainBatch, objective: str) -> int:
    """Tokens that go through the linear layers in one mini-batch."""
    model, count = small_model(), [0]
    model.model.layers[0].mlp.register_forward_hook(
        lambda _, args, __: count.__setitem__(0, count[0] + args[0].shape[0] * args[0].shape[1])
    )
    learner = learner_of(name, PACKED, model)
    plan_probe(learner)
    count[0] = 0
    learner.forward_backward(rows, objective_of(objective, rows))
    return count[0]


def plan_probe(learner: LocalLearner) -> PolicyPass:
    """Let the learner find out what its model can do; it must be packing and the plain head."""
    found = learner.model_pass
    assert isinstance(found, PolicyPass)
    assert found.packer.fault is None and found.has_plain_head
    with found.faster():
        pass
    return found


def test_shared_prompts_and_duplicates_run_once() -> None:
    """Issue 3: a group of four, two of them equal, runs its prompt and three answers, last tokens aside."""
    prompt, answers = [5, 6, 7, 8, 9], [[11, 12, 13], [14, 15], [11, 12, 13], [16, 17, 18, 19]]
    ids = torch.zeros(4, 9, dtype=torch.int64)
    for row, answer in enumerate(answers):
        ids[row, : 5 + len(answer)] = torch.tensor(prompt + answer)
    present = ids > 0
    trained = present & (torch.arange(9) >= 5)
    rows = TrainBatch(ids, present, trained, trained * torch.tensor([[1.0], [2.0], [-1.5], [0.5]]))
    assert tokens_run("grpo", rows, "grpo") == 5 + 2 + 1 + 3
    assert are_equal(measure("grpo", rows, PLAIN), measure("grpo", rows, PACKED))


def test_frozen_passes() -> None:
    """Issue 3: log-probabilities and values through the same packing, 0 elsewhere."""
    for seed in SEEDS:
        rows = random_groups(seed)
        for name, what in (("grpo", "logprobs"), ("ppo, critic", "values"), ("ppo, shared", "values")):
            plain, packed = (getattr(learner_of(name, s, small_model()), what)(rows) for s in (PLAIN, PACKED))
            torch.testing.assert_close(packed, plain, atol=2e-6, rtol=1e-5)
            assert not packed[~rows.completion_mask].any()


def test_checkpointing_changes_nothing() -> None:
    """Issue 3: with activations recomputed the gradients are the same, and they are recomputed."""
    rows, found = random_groups(2), []
    for is_checkpointing in (False, True):
        model, calls = small_model(), [0]
        if is_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        learner = learner_of("grpo", PACKED, model)
        plan_probe(learner)
        model.model.layers[0].mlp.register_forward_pre_hook(lambda *_, c=calls: c.__setitem__(0, c[0] + 1))
        metrics = learner.forward_backward(rows, objective_of("grpo", rows))
        found.append((metrics, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
        assert calls[0] == (2 if is_checkpointing else 1)
        assert not model.training
    assert are_equal(*found)


def test_nothing_to_train() -> None:
    """Issue 3: a batch of empty completions gives zero gradients, as the plain path does."""
    rows = random_groups(3)
    rows = replace(rows, completion_mask=torch.zeros_like(rows.completion_mask))
    for name in ("grpo", "gspo", "supervised"):
        metrics, grads = measure(name, rows, PACKED)
        assert metrics["loss/total"] == 0 and not any(grad.any() for grad in grads.values())
