"""AdamW whose state and master weights are fp32 whatever the module's parameters are kept in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from trimtab.errors import CheckpointError

_STATE = ("exp_avg", "exp_avg_sq", "step")
_PIECE = 1 << 18  # numbers: 1 MiB of fp32, which stays in the cache


class MasterAdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019) on fp32 masters.

    A bf16 parameter keeps 8 significant bits, so a step of 1e-6 on a weight of 0.1 would be lost: the master
    takes it, and the parameter shows the master rounded. fp32 parameters are their own masters. Gradients of
    bf16 parameters move into fp32 as soon as they are complete, so that accumulating over micro-batches does
    not round either: read them through ``grad_norm``, not from ``parameter.grad``. Biases and norms (one
    dimension) do not decay. Frozen parameters are left out.

    Memory in bytes per trained number: a bf16 parameter 2, its master 4, the moments 8, gradients 4. A step
    adds nothing: the update is fused, clipping and publishing write in place.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, nn.Parameter]],
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self.parameters = {name: p for name, p in named_parameters if p.requires_grad}
        self.masters: dict[str, Tensor] = {}
        for name, p in self.parameters.items():
            if p.dtype in (torch.bfloat16, torch.float16):
                self.masters[name] = p.detach().float().requires_grad_(True)
                p.register_post_accumulate_grad_hook(self._collector(name))
            else:
                self.masters[name] = p
        decays = [m for m in self.masters.values() if m.ndim >= 2]
        others = [m for m in self.masters.values() if m.ndim < 2]
        groups = [
            {"params": params, "weight_decay": decay}
            for params, decay in ((decays, weight_decay), (others, 0.0))
            if params
        ]
        is_fp32 = all(m.dtype == torch.float32 for m in self.masters.values())
        # Pairs of lists, so that publishing is one call.
        rounded = [name for name, master in self.masters.items() if master is not self.parameters[name]]
        self._rounded = [self.parameters[name] for name in rounded]
        self._sources = [self.masters[name] for name in rounded]
        self._adamw = torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=eps, fused=is_fp32)

    def step(self, learning_rate: float | None = None) -> None:
        """Apply the accumulated gradients (at ``learning_rate`` when given) and write the parameters."""
        if learning_rate is not None:
            for group in self._adamw.param_groups:
                group["lr"] = learning_rate
        self._adamw.step()
        self._publish()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._adamw.zero_grad(set_to_none=True)
        for p in self.parameters.values():
            p.grad = None

    def grad_norm(self) -> float:
        """Global L2 norm of the accumulated gradients, in fp32."""
        return float(self._norm())

    def clip_grad_norm(self, max_norm: float) -> float:
        """Scale the gradients so that their norm is at most ``max_norm``; return the norm before that."""
        norm = self._norm()
        before = float(norm)
        if before > max_norm:
            torch._foreach_mul_(self._gradients(), max_norm / (norm + 1e-6))
        return before

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors by name, fit for safetensors: ``NAME.exp_avg``, ``.exp_avg_sq``, ``.step``, ``.master``.

        ``.master`` only where it is not the parameter itself; parameters never stepped have no moments.
        """
        found: dict[str, Tensor] = {}
        for name, master in self.masters.items():
            if master is not self.parameters[name]:
                found[f"{name}.master"] = master.detach()
            for key, value in self._adamw.state.get(master, {}).items():
                found[f"{name}.{key}"] = value
        return found

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what ``state_dict`` returned, and write the parameters from the masters.

        Raises:
            CheckpointError: a tensor is missing, unknown, or of another shape.
        """
        known = {f"{name}.{key}" for name in self.masters for key in (*_STATE, "master")}
        if unknown := sorted(set(state) - known):
            raise CheckpointError(f"the optimizer state has {unknown[0]}, which this model does not have")
        for name, master in self.masters.items():
            if master is not self.parameters[name]:
                with torch.no_grad():
                    master.copy_(_take(state, f"{name}.master", master.shape))
            self._adamw.state.pop(master, None)
            if any(f"{name}.{key}" in state for key in _STATE):
                shapes = {"exp_avg": master.shape, "exp_avg_sq": master.shape, "step": torch.Size()}
                self._adamw.state[master] = {
                    key: _take(state, f"{name}.{key}", shape).to(master.device, torch.float32, copy=True)
                    for key, shape in shapes.items()
                }
        self._publish()

    def reload_masters(self) -> None:
        """Read the masters from the parameters again, after someone else wrote those."""
        if self._rounded:
            with torch.no_grad():
                torch._foreach_copy_(self._sources, self._rounded)

    def _collector(self, name: str):  # type: ignore[no-untyped-def]
        def collect(parameter: Tensor) -> None:
            master, grad = self.masters[name], parameter.grad
            if grad is None:
                return
            if master.grad is None:
                master.grad = grad.float()
            else:
                _add(master.grad, grad)
            parameter.grad = None

        return collect

    def _gradients(self) -> list[Tensor]:
        return [m.grad for m in self.masters.values() if m.grad is not None]

    def _norm(self) -> Tensor:
        return nn.utils.get_total_norm(self._gradients())

    @torch.no_grad()
    def _publish(self) -> None:
        if self._rounded:
            torch._foreach_copy_(self._rounded, self._sources)


def learning_rate_at(step: int, peak: float, schedule: str, warmup_steps: int, total_steps: int) -> float:
    """Learning rate of optimizer step ``step`` (from 0): a linear warm-up to ``peak``, then the schedule.

    ``constant`` stays at the peak; ``linear`` and ``cosine`` fall towards 0, which step ``total_steps`` (one
    past the last) would reach.

    Raises:
        ValueError: an unknown schedule.

    Example:
        >>> [learning_rate_at(s, 1.0, "linear", 2, 6) for s in range(6)]
        [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if schedule == "constant":
        return peak
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    if schedule == "linear":
        return peak * (1.0 - progress)
    if schedule == "cosine":
        return peak * 0.5 * (1.0 + math.cos(math.pi * progress))
    raise ValueError(f"learning_rate_at: unknown schedule '{schedule}' (constant, linear, cosine)")


def _add(total: Tensor, extra: Tensor) -> None:
    """Add a 16-bit tensor to an fp32 one; a CPU would make an fp32 copy of it, so it gets small pieces."""
    if total.device.type != "cpu" or not (total.is_contiguous() and extra.is_contiguous()):
        total.add_(extra)
        return
    for part, piece in zip(total.view(-1).split(_PIECE), extra.view(-1).split(_PIECE), strict=True):
        part.add_(piece)


def _take(state: Mapping[str, Tensor], key: str, shape: torch.Size) -> Tensor:
    if key not in state or state[key].shape != shape:
        raise CheckpointError(f"the optimizer state lacks {key} of shape {list(shape)}: another model's")
    return state[key]
