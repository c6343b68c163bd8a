"""Arguments are checked before any arithmetic, so that a wrong shape never broadcasts into a wrong number."""

from __future__ import annotations

from typing import get_args

from torch import Tensor

from trimtab.errors import ConfigError, nearest


def check_same_shape(function: str, **tensors: Tensor | None) -> None:
    """Raise ``ValueError`` unless all given tensors (None is skipped) have the shape of the first one."""
    given = [(name, tensor) for name, tensor in tensors.items() if tensor is not None]
    first_name, first = given[0]
    for name, tensor in given[1:]:
        if tensor.shape != first.shape:
            raise ValueError(
                f"{function}: {name} has shape {list(tensor.shape)} but {first_name} has "
                f"{list(first.shape)}; give both the same shape"
            )


def check_choice(function: str, argument: str, value: str, choices: object) -> None:
    """Raise ``ConfigError`` naming the nearest choice unless ``value`` is one of the Literal ``choices``."""
    names = get_args(choices)
    if value not in names:
        raise ConfigError(f"{function}: {argument} = {value!r} is not known{nearest(value, names)}")


def match_rows(function: str, name: str, per_row: Tensor, like: Tensor) -> Tensor:
    """Give a per-sequence tensor ``[B]`` (or one already ``[B, T]``) a shape that broadcasts over ``[B, T]``.

    Raises ``ValueError`` for any other shape: ``[T]`` against ``[B, T]`` would broadcast silently.
    """
    if per_row.shape == like.shape:
        return per_row
    if per_row.dim() + 1 == like.dim() and per_row.shape == like.shape[:-1]:
        return per_row.unsqueeze(-1)
    raise ValueError(
        f"{function}: {name} has shape {list(per_row.shape)}, which is neither one value per token "
        f"{list(like.shape)} nor one per sequence {list(like.shape[:-1])}"
    )
