"""Where parameters are kept: the device that the recipe names, or a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.unit.models.tiny import PAD, tiny_model, tiny_tokenizer

from trimtab.config import ModelConfig, build_recipe
from trimtab.errors import ConfigError, ModelError
from trimtab.models.load import load_causal_lm, load_sequence_classifier
from trimtab.models.precision import resolve_device, resolve_dtype
from trimtab.models.save import save_model


def pretend(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Let torch say that it sees so many GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 3: auto is cuda when torch sees a GPU, else cpu; a GPU means bf16 however small the model."""
    pretend(monkeypatch, 0)
    assert resolve_device("auto") == torch.device("cpu")
    pretend(monkeypatch, 2)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_dtype("auto", "cuda", 10) == torch.bfloat16
    assert resolve_dtype("float32", "cuda", 10) == torch.float32


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 2 (errors): one sentence: no GPU at all, or the last one that there is."""
    pretend(monkeypatch, 0)
    with pytest.raises(ModelError, match="device cuda:1: torch sees no CUDA GPU"):
        resolve_device("cuda:1")
    with pytest.raises(ModelError, match="use auto or cpu"):
        load_causal_lm("builtin:tiny-zh", ModelConfig(device="cuda"))
    pretend(monkeypatch, 2)
    with pytest.raises(ModelError, match="the last GPU here is cuda:1"):
        resolve_device("cuda:2")
    with pytest.raises(ModelError, match="there is no device 'gpu'; use auto, cpu, cuda or cuda:N"):
        resolve_device("gpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "CPU", ""])
def test_unknown_devices(name: str) -> None:
    """R25: a name that is no device is an error of the recipe."""
    with pytest.raises(ConfigError, match=r"'model\.device' is not valid: use 'auto', 'cpu', 'cuda'"):
        build_recipe({"model": {"device": name}})


def test_loading_puts_a_model_where_the_config_says(tmp_path: Path) -> None:
    """Issue 3: the argument beats the config; a classifier goes the same way."""
    save_model(tiny_model(), tiny_tokenizer(), tmp_path)
    config = ModelConfig(device="cpu", dtype="float32")
    assert load_causal_lm(tmp_path, config).device.type == "cpu"
    assert load_causal_lm(tmp_path, config, device="meta").device.type == "meta"
    assert load_sequence_classifier(tmp_path, config, pad_token_id=PAD, device="meta").device.type == "meta"
