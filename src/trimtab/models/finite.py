"""Whether tensors hold only numbers: one sum of each, so that every step can afford to ask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trimtab.models.optim import MasterAdamW


@torch.no_grad()
def find_non_finite(named: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first tensor with NaN or infinity, else None.

    NaN and infinity survive a sum, so a finite sum of all sums proves that there are none: each number is
    read once, and an accelerator is waited for once. Only when it is not finite (which finite numbers can
    make too, by overflow) every number is looked at.

    Example:
        >>> find_non_finite({"a": torch.ones(2), "b": torch.tensor([1.0, float("nan")])})
        'b'
    """
    pairs = [(name, x.detach()) for name, x in dict(named).items() if x.is_floating_point() and x.numel()]
    if not pairs:
        return None
    sums = torch.stack([x.sum().float() for _, x in pairs])
    if bool(torch.isfinite(sums.sum())):
        return None
    return next((name for name, x in pairs if not bool(torch.isfinite(x).all())), None)


def find_in_tree(node: Any, path: str = "") -> str | None:
    """The path of the first such tensor in a tree of mappings and lists, such as a checkpoint's state."""
    found: dict[str, Tensor] = {}
    _collect(node, path, found)
    return find_non_finite(found)


def _collect(node: Any, path: str, found: dict[str, Tensor]) -> None:
    if isinstance(node, Tensor):
        found[path] = node
    elif isinstance(node, Mapping):
        for key, value in node.items():
            _collect(value, f"{path}/{key}" if path else str(key), found)
    elif isinstance(node, (list, tuple)):
        for number, value in enumerate(node):
            _collect(value, f"{path}/{number}", found)


class FiniteCheck:
    """Asks whether a module and its optimizer hold only numbers; each answer is a tensor's name or None."""

    def __init__(self, module: nn.Module, optimizer: MasterAdamW) -> None:
        self.module, self.optimizer = module, optimizer

    def find_bad_weight(self) -> str | None:
        """The first parameter, trained or frozen, that holds NaN or infinity."""
        return find_non_finite(self.module.named_parameters())

    def find_bad_trained_weight(self) -> str | None:
        """The first such trained parameter; cheap enough to ask after every step."""
        return find_non_finite(self.optimizer.parameters)

    def find_bad_moment(self) -> str | None:
        """The first such moment of the optimizer; cheap enough to ask before every step."""
        return find_non_finite(self.optimizer.state_dict())
