"""Low-rank adapters (Hu et al. 2021) inside the model's own module: added, switched off, merged, saved.

The layers are peft's, put into the transformers module in place: its class, attributes and attention seam
stay what they were, so the module still learns and samples. The base is frozen. The adapter is kept in the
base's precision with fp32 masters in the optimizer, like any other weight.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trimtab.config.model import ALL_LINEAR, LoraConfig
from trimtab.errors import CheckpointError, ConfigError, ModelError, nearest

ADAPTER_FOLDER = "adapter"
_NAME = "default"
_PARTS = (".lora_A.", ".lora_B.")


def add_adapter(model: Any, config: LoraConfig | None, seed: int = 0) -> Any:
    """Freeze ``model``, put a new adapter into it in place, and return it; with no ``config``, do nothing.

    The adapter's first matrices are drawn from ``seed``, the second ones are zero: until the first update the
    model answers bit for bit as before. A classifier's score head stays trainable as a whole.

    Raises:
        ModelError: peft is not installed.
        ConfigError: a target is not a linear layer of the model, or is its head.
    """
    if config is None:
        return model
    peft = _peft()
    score = None if model.get_output_embeddings() is not None else getattr(model, "score", None)
    is_every = config.target_modules == [ALL_LINEAR]
    if not is_every:
        _check_targets(model, config.target_modules)
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        target_modules=ALL_LINEAR if is_every else list(config.target_modules),
        task_type="CAUSAL_LM" if score is None else "SEQ_CLS",
    )
    settings.base_model_name_or_path = model.name_or_path
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(settings, model, adapter_name=_NAME)
    if score is not None:
        score.requires_grad_(True)
    return model.eval()


def has_adapter(model: nn.Module) -> bool:
    """Whether ``add_adapter`` put an adapter into this model."""
    return next(_layers(model), None) is not None


@contextmanager
def adapter_off(model: nn.Module) -> Iterator[None]:
    """Let ``model`` be the one it was before the adapter; what is trainable stays trainable."""
    layers = [layer for _, layer in _layers(model) if not layer.disable_adapters]
    # peft's own switch would also freeze the adapter and thaw it again.
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


class AdapterOff:
    """The frozen model behind an adapter, to be used as a reference without a second copy of the weights.

    Every call runs with the adapter off; what is read from it is the model's own. A part of the model that is
    read through it (its trunk) runs with the adapter off, too.
    """

    def __init__(self, model: nn.Module, part: nn.Module | None = None) -> None:
        self._model, self._part = model, model if part is None else part

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module with the adapter off."""
        with adapter_off(self._model):
            return self._part(*args, **kwargs)

    def requires_grad_(self, requires_grad: bool = True) -> AdapterOff:
        """Nothing to do: the base is frozen, and the adapter is not part of this model."""
        return self

    def eval(self) -> AdapterOff:
        """Nothing to do: the module is the policy's, whose dropout is off for good."""
        return self

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Refused: these weights carry the policy.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "with [model.lora] the reference is the policy without its adapter and cannot be replaced; "
            "set rl.reference_refresh_steps to 0"
        )

    def __getattr__(self, name: str) -> Any:
        """An attribute of the module; a module among them is wrapped in the same way."""
        value = getattr(self._part, name)
        return AdapterOff(self._model, value) if isinstance(value, nn.Module) else value


@torch.no_grad()
def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """The weights of the plain model that answers like ``model``: base + scale · B A, under the plain names.

    The sum is made in fp32 and rounded once to the base's precision. Weights without an adapter are views;
    ``model`` itself is left as it is.
    """
    state = dict(model.state_dict())
    for name, layer in _layers(model):
        down, up = (getattr(layer, part)[_NAME].weight for part in ("lora_A", "lora_B"))
        delta = (up.float() @ down.float()) * layer.scaling[_NAME]
        weight = layer.get_base_layer().weight
        # GPT-2 keeps its matrices the other way round.
        summed = weight.float() + (delta.T if layer.fan_in_fan_out else delta)
        state[f"{name}.base_layer.weight"] = summed.to(weight.dtype)
    plain = {key: value for key, value in state.items() if not any(part in key for part in _PARTS)}
    return {key.replace(".base_layer.", "."): value for key, value in plain.items()}


def save_adapter(model: Any, directory: Path) -> None:
    """Write the adapter alone as peft reads it: ``PeftModel.from_pretrained(base, directory)``."""
    from safetensors.torch import save_file

    tensors = {
        f"base_model.model.{key.replace(f'.{_NAME}.', '.')}": value.detach().cpu().contiguous()
        for key, value in model.state_dict().items()
        if any(part in key for part in _PARTS)
    }
    directory.mkdir()
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    model.peft_config[_NAME].save_pretrained(directory)


def trainable_state(module: nn.Module) -> dict[str, Tensor]:
    """``module.state_dict()`` without its frozen parameters, which training never changes."""
    frozen = _frozen_names(module)
    return {key: value for key, value in module.state_dict().items() if key not in frozen}


def load_trainable_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Take over what ``trainable_state`` returned; frozen parameters stay.

    Raises:
        CheckpointError: the state is of another model, or of one with another adapter.
    """
    try:
        missing, unexpected = module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        line = str(error).strip().splitlines()[-1].strip()
        raise CheckpointError(f"the checkpoint is of another model or adapter ({line})") from None
    if wrong := [*unexpected, *sorted(set(missing) - _frozen_names(module))]:
        raise CheckpointError(f"the checkpoint is of another model or adapter: {wrong[0]} does not match")


def _frozen_names(module: nn.Module) -> set[str]:
    named = module.named_parameters(remove_duplicate=False)
    return {name for name, parameter in named if not parameter.requires_grad}


def _layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Every adapted layer with its name."""
    return (
        (name, m) for name, m in model.named_modules() if isinstance(getattr(m, "lora_A", None), nn.Module)
    )


def _check_targets(model: Any, targets: list[str]) -> None:
    """Refuse names of layers that are not there, and the head, whose products are made without its module."""
    heads = (model.get_output_embeddings(), getattr(model, "score", None))
    linear = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
    }
    known = {name.rsplit(".", 1)[-1] for name, module in linear.items() if module not in heads}
    for target in targets:
        found = [module for name, module in linear.items() if f".{name}".endswith(f".{target}")]
        if not found or any(module in heads for module in found):
            what = "is the model's head, which is not adapted" if found else "names no linear layer"
            raise ConfigError(f"model.lora.target_modules: '{target}' {what}{nearest(target, known)}.")


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise ModelError("[model.lora] needs peft: pip install 'trimtab[peft]'") from None
    return peft
