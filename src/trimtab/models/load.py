"""Loading models: safetensors and JSON only, our attention, one precision, dropout off."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trimtab.config.model import ModelConfig
from trimtab.errors import ModelError
from trimtab.models.attention import NAME as TRIMTAB_ATTENTION
from trimtab.models.attention import register
from trimtab.models.attention_proof import check_train_mode, settle_attention
from trimtab.models.generation import mend_generation, unreadable_generation
from trimtab.models.paths import resolve_model_path
from trimtab.models.precision import resolve_device, resolve_dtype
from trimtab.models.quiet import quiet
from trimtab.models.save import save_model
from trimtab.models.tokenizer import eos_ids, load_tokenizer

__all__ = [
    "eos_ids",
    "is_sequence_classifier",
    "is_token_classifier",
    "load_causal_lm",
    "load_sequence_classifier",
    "load_token_classifier",
    "load_tokenizer",
    "resolve_model_path",
    "save_model",
]


def load_causal_lm(
    path: str | os.PathLike[str],
    config: ModelConfig | None = None,
    *,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
) -> Any:
    """Load a causal language model (a transformers ``PreTrainedModel``) in eval mode, dropout off for good.

    ``dtype`` and ``device`` beat those of ``config``; an adapter (``config.lora``) is not added here. Where
    the architecture cannot take our attention, it keeps its own, with a warning.

    Raises:
        ModelError: the directory is missing, incomplete, or holds something else; the device is not here.
    """
    from transformers import AutoModelForCausalLM

    folder = resolve_model_path(path)
    if fault := unreadable_generation(folder):  # transformers would go on without its end tokens
        raise ModelError(
            f"generation_config.json in {folder} is not valid ({fault}); correct that file, or delete it"
        )
    return _load(AutoModelForCausalLM, path, config or ModelConfig(), dtype=dtype, device=device)


def load_sequence_classifier(
    path: str | os.PathLike[str],
    config: ModelConfig | None = None,
    *,
    num_labels: int | None = 1,
    pad_token_id: int | None,
    seed: int = 0,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
) -> Any:
    """Load a reward model, or make one from a causal language model by giving it a new score head.

    A new head is drawn from ``seed``, so it is the same every time; the global generator is left alone.
    ``num_labels`` None keeps the directory's own number of labels, ``pad_token_id`` None its own padding: a
    classifier's score is read at the last token that is not its padding.

    Raises:
        ModelError: the directory is missing, incomplete, holds something else, or has another label count.
    """
    from transformers import AutoModelForSequenceClassification as Classifier

    labels = {} if num_labels is None else {"num_labels": num_labels}
    model = _with_head(Classifier, path, config, seed, dtype=dtype, device=device, **labels)
    if pad_token_id is not None:
        model.config.pad_token_id = pad_token_id
    return model


def load_token_classifier(
    path: str | os.PathLike[str],
    config: ModelConfig | None = None,
    *,
    num_labels: int | None = 1,
    pad_token_id: int | None,
    seed: int = 0,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
) -> Any:
    """Load a process reward model, or make one from a causal language model by giving it a new score head.

    A new head is drawn from ``seed``. ``num_labels`` None keeps the directory's own number of labels.

    Raises:
        ModelError: the directory is missing, incomplete, holds something else, or has another label count.
    """
    from transformers import AutoModelForTokenClassification as Classifier

    labels = {} if num_labels is None else {"num_labels": num_labels}
    model = _with_head(Classifier, path, config, seed, dtype=dtype, device=device, **labels)
    model.config.pad_token_id = pad_token_id
    return model


def _with_head(
    auto_class: Any, path: str | os.PathLike[str], config: ModelConfig | None, seed: int, **options: Any
) -> Any:
    """Load a classifier; a head that the directory lacks is drawn from ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _load(auto_class, path, config or ModelConfig(), **options)


def is_sequence_classifier(path: str | os.PathLike[str]) -> bool:
    """Whether the directory holds a trained classifier (a reward model) and not a language model."""
    return _is_a(path, "SequenceClassification")


def is_token_classifier(path: str | os.PathLike[str]) -> bool:
    """Whether the directory holds a trained token classifier (a process reward model)."""
    return _is_a(path, "TokenClassification")


def architectures(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the names of the classes that the directory's config.json says it holds."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(resolve_model_path(path), local_files_only=True)
    return tuple(config.architectures or ())


def _is_a(path: str | os.PathLike[str], kind: str) -> bool:
    return any(kind in name for name in architectures(path))


def _load(
    auto_class: Any,
    path: str | os.PathLike[str],
    config: ModelConfig,
    *,
    dtype: str | torch.dtype | None,
    device: str | torch.device | None,
    **options: Any,
) -> Any:
    folder, place = resolve_model_path(path), resolve_device(device or config.device)
    register()
    try:
        resolved = resolve_dtype(dtype or config.dtype, place, stored_parameters(folder))
        with quiet():
            model = auto_class.from_pretrained(
                folder,
                dtype=resolved,
                # ours is put in once the module stands as its authors wrote it
                attn_implementation=None if config.attention == TRIMTAB_ATTENTION else config.attention,
                use_safetensors=True,
                trust_remote_code=config.trust_remote_code,
                local_files_only=True,
                **options,
            )
    except ModelError:
        raise
    except Exception as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ModelError(f"the model in {folder} cannot be loaded ({line}); fix model.path") from error
    if fault := mend_generation(model):
        warnings.warn(f"{folder}: {fault}", stacklevel=3)
    model = model.to(place).eval()
    proof = settle_attention(model, config.attention, disable_dropout)
    if proof.cause is not None:
        warnings.warn(proof.sentence, stacklevel=3)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        check_train_mode(model)
    return model


def stored_names(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of the tensors in the directory's safetensors files, from their headers alone."""
    from safetensors import safe_open

    names: list[str] = []
    for file in Path(resolve_model_path(path)).glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            names += tensors.keys()
    return names


def stored_parameters(folder: str | os.PathLike[str]) -> int:
    """Count the numbers in the directory's safetensors files, from their headers alone."""
    from math import prod

    from safetensors import safe_open

    total = 0
    for file in Path(folder).glob("*.safetensors"):
        try:
            with safe_open(file, framework="pt") as tensors:
                total += sum(prod(tensors.get_slice(key).get_shape()) for key in tensors.keys())  # noqa: SIM118
        except Exception as error:  # its own class, which is none of Python's
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise ModelError(f"{file} cannot be loaded ({reason}): fetch or save the model again") from None
    if total == 0:
        raise ModelError(f"{folder} has no .safetensors file (pickled weights are not read); convert it")
    return total


_NOISE = re.compile(r"dropout|pdrop$|layerdrop|drop_prob|droppath|^(input_)?jitter_noise$")  # train mode only


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout to 0, and what else is random in train mode (dropped layers, an input's jitter), so
    that train mode and eval mode give the same log-probabilities (trap 8)."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if isinstance(value, float) and _NOISE.search(name):
                setattr(module, name, 0.0)
