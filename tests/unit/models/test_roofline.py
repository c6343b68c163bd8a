"""Issue 3, part 4: the rooflines are the arithmetic that they say they are."""

from __future__ import annotations

import pytest
import torch

from trimtab.models.roofline import (
    Ceilings,
    Linear,
    ModelShape,
    Workload,
    decode_seconds,
    measure_ceilings,
    rollout_roofline,
    shape_of,
    training_ceiling,
    training_flops,
    training_roofline,
)

from .tiny import tiny_model

SHAPE = ModelShape(
    layers=(Linear(4, 8, 2),), head=Linear(4, 10), num_layers=1, num_heads=2, num_kv_heads=1, head_dim=2,
    num_parameters=104,
)  # fmt: skip
FAST_MEMORY = Ceilings("cpu", "float32", read_bytes_per_s=1e30, peak_flops=100.0)


def test_shape_of_a_model():
    """Every linear is counted once, embeddings and norms are not, and the head stands apart."""
    model = tiny_model("Llama")
    shape = shape_of(model)
    linears = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    assert sum(layer.weights for layer in (*shape.layers, shape.head)) == sum(
        m.weight.numel() for m in linears
    )
    assert shape.head == Linear(model.config.hidden_size, model.config.vocab_size)
    assert shape.kv_numbers == 2 * model.config.num_hidden_layers * (
        model.config.num_key_value_heads * (model.config.hidden_size // model.config.num_attention_heads)
    )


def test_decode_step_by_hand():
    """3 rows: 2 × 3 × (64 + 40) operations, 5 pairs of 16; at 100 per second."""
    seconds = decode_seconds(SHAPE, FAST_MEMORY, rows=3, keys=7, pairs=5)
    assert seconds == pytest.approx((2 * 3 * 104 + 5 * 16) / 100)


def test_slow_memory_is_the_limit_instead():
    """104 weights and 7 cached tokens of 4 numbers, 4 bytes each, at 8 bytes per second."""
    slow = Ceilings("cpu", "float32", read_bytes_per_s=8.0, peak_flops=1e30)
    assert decode_seconds(SHAPE, slow, rows=3, keys=7, pairs=5) == pytest.approx((104 + 7 * 4) * 4 / 8)


def test_rollout_by_hand():
    """One prompt of 6 tokens, 2 completions of 4: the prompt once, then 3 steps, for 8 tokens."""
    work = Workload(1, 2, 6, 4)
    prefill = (2 * 6 * 64 + 2 * 1 * 40) / 100
    step = decode_seconds(SHAPE, FAST_MEMORY, 2, 6 + 2 * 2, 2 * (6 + 2))
    assert rollout_roofline(SHAPE, FAST_MEMORY, work) == pytest.approx(8 / (prefill + 3 * step))


def test_training_by_hand():
    """14 distinct tokens through the layers, 8 through the head, 18 + 2 × (24 + 8) pairs."""
    work = Workload(1, 2, 6, 4)
    assert (work.distinct, work.new, work.pairs) == (14, 8, 82)
    flops = 6 * (64 * 14 + 40 * 8) + 3 * 16 * 82
    assert training_flops(SHAPE, work) == flops
    assert training_roofline(SHAPE, FAST_MEMORY, work, 14) == pytest.approx(14 * 100 / flops)


def test_ceiling_is_weighted_by_operations():
    """Half the speed on the head: the mean is over time, by each product's share of the operations."""
    products = {(64, 4, 8): 100.0, (64, 4, 10): 50.0, (2, 4, 8): 1.0}
    ceilings = Ceilings("cpu", "float32", 1.0, 1.0, products)
    layers, head = 6 * 64 * 14, 6 * 40 * 8
    wanted = (layers + head) / (layers / 100 + head / 50)
    assert training_ceiling(SHAPE, ceilings, Workload(1, 2, 6, 4), rows=60) == pytest.approx(wanted)


def test_measured_ceilings_have_every_product():
    """A measurement gives a positive rate for each layer and row count, and survives JSON."""
    shape = shape_of(tiny_model("Llama"))
    found = measure_ceilings(shape, [2, 16], torch.float32, seconds=0.0)
    sizes = {(linear.inputs, linear.outputs) for linear in (*shape.layers, shape.head)}
    assert set(found.products) == {(rows, i, o) for rows in (2, 16) for i, o in sizes}
    assert min(found.products.values()) > 0
    assert found.peak_flops >= max(found.products.values())
    assert set(found.as_dict()["gflops"]) == {"x".join(map(str, key)) for key in found.products}
