"""Issue 3: micro-batches are chosen from the memory when the recipe does not say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.unit.models.tiny import tiny_model

from trimtab.distributed import budget
from trimtab.distributed.budget import activation_bytes, choose_max_tokens, least_tokens
from trimtab.models.memory import free_memory


def test_tokens_follow_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of what is left after gradients and optimizer; never under 256 or over 2048 on a CPU."""
    model: Any = tiny_model()
    trained = sum(p.numel() for p in model.parameters())
    for tokens, expected in ((0, 256), (300, 256), (1100, 1024), (10**9, 2048)):
        free = 12 * trained + 4 * (tokens + 1) * activation_bytes(model)
        monkeypatch.setattr(budget, "free_memory", lambda _, free=free: free)
        assert choose_max_tokens(model) == expected


def test_the_estimate_counts_layers_and_checkpoints() -> None:
    """3 layers, 48 hidden, 64 wide, fp32; recomputing keeps one layer's and all layers' inputs."""
    model: Any = tiny_model()
    layer = (10 * 48 + 4 * 64) * 4 + 16 * 48
    assert activation_bytes(model) == 3 * layer
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert activation_bytes(model) == layer + 3 * 48 * 4


def test_small_models_do_not_save_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """256 MiB of activations are not worth more micro-batches; a large model takes 512 tokens at a time."""
    model: Any = tiny_model()
    assert least_tokens(model) == int(2**28 / activation_bytes(model)) > 2048
    monkeypatch.setattr(budget, "activation_bytes", lambda _: 990_000.0)
    assert least_tokens(model) == 512


def test_free_memory_is_known() -> None:
    """More than nothing, less than a petabyte."""
    assert 2**20 < free_memory(torch.device("cpu")) < 2**50
