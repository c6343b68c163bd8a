"""Issue 3: the packed row holds what must run, once, and attention over it is that of the rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.unit.models.tiny import tiny_model
from torch import Tensor

from trimtab.models.attention import ScoreRule, UnsupportedAttentionError
from trimtab.models.packed_compiled import compiled_kernel
from trimtab.models.packed_context import PackedContext, block_mask
from trimtab.models.packed_forward import find_head_fault, find_packing_fault, packed_hidden, packed_logits
from trimtab.models.packing import PackPlan, can_pack, frugal_tokens, make_plan, split_by_tokens
from trimtab.types import TrainBatch


def batch(*rows: tuple[list[int], list[int]]) -> TrainBatch:
    """Rows of a prompt and a completion; a negative token of a completion is seen but not trained."""
    width = max(len(prompt) + len(completion) for prompt, completion in rows)
    ids, mask, present = (torch.zeros(len(rows), width, dtype=torch.int64) for _ in range(3))
    for index, (prompt, completion) in enumerate(rows):
        tokens = torch.tensor(prompt + completion)
        ids[index, : len(tokens)], present[index, : len(tokens)] = tokens.abs(), 1
        mask[index, len(prompt) : len(tokens)] = (tokens[len(prompt) :] > 0).long()
    return TrainBatch(ids, present.bool(), mask.bool(), torch.zeros(ids.shape))


A, B, C = [1, 2, 3], [4, 5], [6]
ROWS = batch((A, [10, 11, 12]), (B, [20]), (A, [10, 13]), (B, [21, -22, 23, -24]), (C, [30, 31]), (A, []))


def test_the_layout_by_hand() -> None:
    """Prompts once per group, completions without their last trained token, lone rows as they are."""
    plan = make_plan(ROWS)
    # The prompt of A, then [10, 11] and [10]; B has one completion that runs, so it is a lone row, like C.
    assert plan.input_ids.tolist() == [[1, 2, 3, 10, 11, 10, 4, 5, 21, 22, 6, 30]]
    assert plan.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 0, 1, 2, 3, 0, 1]]
    assert (plan.prompts, plan.completions, plan.segments) == (((0, 3),), ((3, 6),), (3, 2, 1, 4, 2))
    assert plan.longest == 5
    pairs = list(zip(plan.sources.tolist(), plan.targets.tolist(), strict=True))
    assert pairs == [(2, 10), (3, 11), (4, 12), (5, 13), (7, 20), (7, 21), (9, 23), (10, 30), (11, 31)]
    where = plan.scatter(torch.arange(1.0, 10.0))
    expected = [
        [0, 0, 0, 1, 2, 3],
        [0, 0, 5, 0, 0, 0],
        [0, 0, 0, 1, 4, 0],
        [0, 0, 6, 0, 7, 0],
        [0, 8, 9, 0, 0, 0],
    ]
    assert where.tolist() == [*expected, [0] * 6]


def test_duplicates_merge_and_their_gradients_add_up() -> None:
    """Equal rows are one sequence; what flows back into it is the sum over both."""
    plan = make_plan(batch((A, [10, 11]), (A, [10, 11]), (A, [12, 13])))
    assert plan.input_ids.tolist() == [[1, 2, 3, 10, 12]]
    leaf = torch.zeros(len(plan.sources), requires_grad=True)
    weights = torch.tensor([[0, 0, 0, 1.0, 2.0], [0, 0, 0, 10.0, 20.0], [0, 0, 0, 100.0, 200.0]])
    (plan.scatter(leaf) * weights).sum().backward()
    assert leaf.grad is not None
    found = dict(zip(plan.targets.tolist(), leaf.grad.tolist(), strict=True))
    assert found == {10: 11.0, 11: 22.0, 12: 100.0, 13: 200.0}


def test_what_cannot_be_packed() -> None:
    """Padding on the left is for the padded path; a batch without trained tokens has no plan."""
    left = torch.tensor([[False, True, True]])
    assert not can_pack(TrainBatch(torch.ones(1, 3).long(), left, left, left.float()))
    with pytest.raises(ValueError, match="no trained token"):
        make_plan(batch((A, []), (B, [-3])))
    first = batch(([], [5, 6, 7]))
    plan = make_plan(first)
    assert plan.input_ids.tolist() == [[5, 6]] and plan.targets.tolist() == [6, 7]


def test_micro_batches_hold_their_tokens() -> None:
    """Every trained row is in one part; parts keep to tokens and rows; only large groups are split."""
    parts = split_by_tokens(ROWS, 100)
    assert [part.tolist() for part in parts] == [[0, 1, 2, 3, 4]]
    for limit in (4, 6, 8, 12):
        parts = split_by_tokens(ROWS, limit)
        assert sorted(torch.cat(parts).tolist()) == [0, 1, 2, 3, 4]
        for part in parts:
            size = make_plan(ROWS.rows(part)).input_ids.shape[1]
            assert size <= limit or len(part) == 1
    assert all(len(part) <= 2 for part in split_by_tokens(ROWS, 100, max_rows=2))
    assert {0, 2} <= {*split_by_tokens(ROWS, 6)[0].tolist()}


def test_small_micro_batches_where_prompts_are_short() -> None:
    """Two groups of 4 completions of 128 tokens. A prompt of 8 may run twice (16 tokens more than 1040), one
    of 100 may not (200 more than 1224), so that group stays whole."""
    for prompt, expected in ((8, 384), (100, 640)):
        rows = [([*range(1, prompt + 1)], [200 * i + j + 1 for j in range(129)]) for i in range(4)]
        more = [([*range(2, prompt + 2)], completion) for _, completion in rows]
        both = batch(*rows, *more)
        assert frugal_tokens(both, 256, 2048) == expected
        assert frugal_tokens(both, 256, 512) == 384  # two rows and two, as good as three and one
        assert frugal_tokens(both, 4096, 2048) == 2048


def plan_of_many(seed: int = 0) -> PackPlan:
    """Three groups of rows of different lengths, and lone ones."""
    draw = torch.Generator().manual_seed(seed)
    rows: list[tuple[list[int], list[int]]] = []
    for size, count in ((9, 3), (4, 4), (1, 2), (7, 1), (3, 1)):
        prompt = torch.randint(1, 90, (size,), generator=draw).tolist()
        lengths = torch.randint(1, 12, (count,), generator=draw).tolist()
        rows += [(prompt, torch.randint(1, 90, (n,), generator=draw).tolist()) for n in lengths]
    return make_plan(batch(*rows))


def attend(plan: PackPlan, inputs: list[Tensor], grad: Tensor, is_masked: bool) -> list[Tensor]:
    """Output and the gradients of query, key and value."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    context, rule = PackedContext(plan), ScoreRule(inputs[0].shape[-1] ** -0.5)
    if is_masked:
        output = context._masked(leaves[0], leaves[1], leaves[2], rule).transpose(1, 2)
    else:
        output = context.attend(0, leaves[0], leaves[1], leaves[2], rule)
    output.backward(grad.to(output.dtype))
    return [output.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


@pytest.mark.parametrize("size", [8, 16, 80])  # 8: torch's kernel in parts; the others: ours, compiled
@pytest.mark.parametrize("heads", [(2, 2), (4, 2), (6, 2)])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-6), (torch.bfloat16, 2e-2)]
)
def test_attention_is_that_of_a_mask(
    size: int, heads: tuple[int, int], dtype: torch.dtype, tolerance: float
) -> None:
    """Issue 3: outputs and gradients of the parts, joined, are those of one masked softmax over the row."""
    for seed in range(3):
        plan, draw = plan_of_many(seed), torch.Generator().manual_seed(seed)
        length = plan.input_ids.shape[1]
        shapes = [(1, length, count, size) for count in (heads[0], heads[1], heads[1])]
        inputs = [torch.randn(shape, generator=draw).to(dtype).transpose(1, 2) for shape in shapes]
        grad = torch.randn(1, length, heads[0], size, generator=draw)
        exact = attend(plan, [x.double() for x in inputs], grad, is_masked=True)
        for found, right in zip(attend(plan, inputs, grad, is_masked=False), exact, strict=True):
            assert float((found.double() - right).abs().max() / right.abs().max()) <= tolerance


@pytest.mark.parametrize("lengths", [(1, 40, 33), (70, 1, 130), (65, 64, 31)])
def test_long_stretches_cross_every_edge_of_the_compiled_kernel(lengths: tuple[int, int, int]) -> None:
    """Issue 3: prompts and completions longer than its blocks, ten completions to a prompt."""
    prompt, *others = lengths
    draw = torch.Generator().manual_seed(0)
    answers = [torch.randint(200, 900, (others[n % 2],), generator=draw).tolist() for n in range(10)]
    rows = [(list(range(1, prompt + 1)), answer) for answer in answers]
    plan = make_plan(batch(*rows, (C, list(range(1000, 1000 + prompt)))))
    length = plan.input_ids.shape[1]
    inputs = [torch.randn(1, length, count, 16, generator=draw).transpose(1, 2) for count in (3, 1, 1)]
    grad = torch.randn(1, length, 3, 16, generator=draw)
    if compiled_kernel(plan, inputs[0]) is None:
        pytest.skip("no compiler")
    exact = attend(plan, [x.double() for x in inputs], grad, is_masked=True)
    for found, right in zip(attend(plan, inputs, grad, is_masked=False), exact, strict=True):
        assert float((found.double() - right).abs().max() / right.abs().max()) <= 2e-6


def test_the_mask_by_hand() -> None:
    """The oracle of the test above: the prompt of A, its two completions, a row of its own."""
    seen = block_mask(make_plan(batch((A[:2], [10, 11]), (A[:2], [12, 13]), (C, [30, 31]))))
    assert seen.int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 0, 1, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1, 1],
    ]


@pytest.mark.parametrize("rule", [ScoreRule(0.3, softcap=5.0), ScoreRule(0.3, window=4)])
def test_what_attention_refuses(rule: ScoreRule) -> None:
    """A soft cap, or a window that some sequence outgrows, is refused and never left out silently."""
    plan = plan_of_many()
    x = torch.zeros(1, 2, plan.input_ids.shape[1], 8)
    with pytest.raises(UnsupportedAttentionError):
        PackedContext(plan).attend(0, x, x, x, rule)


@pytest.mark.parametrize("architecture", ["Llama", "Qwen2", "Qwen3", "Gemma", "Mistral", "Gemma2", "GPT2"])
def test_models_that_can_and_cannot(architecture: str) -> None:
    """Windows of 7 and soft caps send a model to the padded path; others run packed and agree."""
    model: Any = tiny_model(architecture)
    fault = find_packing_fault(model)
    if architecture in ("Mistral", "Gemma2"):
        assert fault is not None and fault.startswith("packed attention has no")
        return
    assert fault is None
    assert find_head_fault(model) is None
    plan = make_plan(ROWS)
    with torch.no_grad():
        head = model.get_output_embeddings()
        torch.testing.assert_close(packed_logits(model, plan), head(packed_hidden(model, plan)))


def test_a_model_that_lies_is_found() -> None:
    """A head that is not a plain product, positions that are ignored, another attention: all are noticed."""
    scaled: Any = tiny_model()
    scaled.lm_head.register_forward_hook(lambda *args: args[2] * 0.5)
    assert find_head_fault(scaled) is not None
    biased: Any = tiny_model()
    biased.lm_head = torch.nn.Linear(48, 259, bias=True)
    assert find_head_fault(biased) == "its head is not a linear map without bias"
    lost: Any = tiny_model()
    lost.model.rotary_emb.register_forward_pre_hook(
        lambda _, args, kwargs: (args, {**kwargs, "position_ids": torch.arange(args[0].shape[1])[None]}),
        with_kwargs=True,
    )
    assert "differs" in str(find_packing_fault(lost))
    assert "attention" in str(find_packing_fault(tiny_model(attention="sdpa")))
