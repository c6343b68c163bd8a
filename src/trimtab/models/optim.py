"""AdamW whose state and master weights are fp32 whatever the module's parameters are kept in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from trimtab.errors import CheckpointError
from trimtab.models.halves import join, part, take

_MOMENTS = ("exp_avg", "exp_avg_sq")
# Numbers that are worked on at a time: on a CPU 1 MiB of fp32, which stays in the cache.
_PIECE = {"cpu": 1 << 18, "other": 1 << 24}


@dataclass(frozen=True, slots=True)
class _Rates:
    """What AdamW multiplies by; ``weight_decay`` is for parameters of two dimensions or more."""

    learning_rate: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float


class MasterAdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019) on fp32 masters.

    A bf16 parameter keeps 8 significant bits, so a step of 1e-6 on a weight of 0.1 would be lost: the master
    takes it, and the parameter shows the master rounded to nearest. Only what rounding cuts off is stored:
    the parameter's 16 bits and 16 more make up the master exactly. fp32 parameters are their own masters.
    Gradients of bf16 parameters move into fp32 as soon as they are complete, so that accumulating over
    micro-batches does not round either: read them from ``gradients``, not from ``parameter.grad``. Biases
    and norms (one dimension) do not decay. Frozen parameters are left out.

    Memory in bytes per trained number: a bf16 parameter 2, the rest of its master 2, the moments 8, gradients
    4. A step adds one piece of 1 MiB (64 MiB on an accelerator); clipping works in place.

    Raises:
        ValueError: a trained parameter is neither fp32 (or fp64) nor bf16.
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
        self.rates = _Rates(learning_rate, betas, eps, weight_decay)
        self._rests: dict[str, Tensor] = {}  # int16: bits of the master less those of its parameter
        self._collected: dict[str, Tensor] = {}  # fp32 gradients of bf16 parameters
        self._moments: dict[str, tuple[Tensor, Tensor]] = {}
        self._steps: dict[str, Tensor] = {}
        for name, p in self.parameters.items():
            if p.dtype == torch.bfloat16:
                self._rests[name] = torch.zeros_like(p, dtype=torch.int16)
                p.register_post_accumulate_grad_hook(self._collector(name))
            elif p.dtype not in (torch.float32, torch.float64):
                raise ValueError(f"MasterAdamW: {name} is {p.dtype}; load the model in bfloat16 or float32")

    def master(self, name: str) -> Tensor:
        """The fp32 weight behind a parameter: the parameter itself, or a new tensor for a bf16 one."""
        p = self.parameters[name].detach()
        return join(p, self._rests[name]) if name in self._rests else p

    @property
    def gradients(self) -> dict[str, Tensor]:
        """The accumulated gradients by name, in fp32 (fp64 for fp64 parameters)."""
        own = {name: p.grad for name, p in self.parameters.items() if name not in self._rests}
        return {**{name: grad for name, grad in own.items() if grad is not None}, **self._collected}

    def set_gradients(self, gradients: Mapping[str, Tensor]) -> None:
        """Forget the accumulated gradients and start from these, which ``gradients`` returned."""
        self.zero_grad()
        for name, grad in gradients.items():
            if name in self._rests:
                self._collected[name] = grad.clone()
            else:
                self.parameters[name].grad = grad.clone()

    @property
    def has_stepped(self) -> bool:
        """Whether any parameter has ever been moved."""
        return bool(self._steps)

    @torch.no_grad()
    def step(self, learning_rate: float | None = None) -> None:
        """Apply the accumulated gradients (at ``learning_rate`` when given) and write the parameters."""
        rate = self.rates.learning_rate if learning_rate is None else learning_rate
        for name, grad in self.gradients.items():
            p = self.parameters[name]
            if name not in self._moments:
                self._moments[name] = (torch.zeros_like(grad), torch.zeros_like(grad))
                self._steps[name] = torch.zeros((), device=p.device)
            if name in self._rests:
                self._step_pieces(name, grad, rate)
            else:
                self._adamw(p, grad, self._moments[name], name, rate)
            self._steps[name] += 1

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._collected.clear()
        for p in self.parameters.values():
            p.grad = None

    def grad_norm(self) -> float:
        """Global L2 norm of the accumulated gradients, in fp32."""
        return float(nn.utils.get_total_norm(self.gradients.values()))

    def clip_grad_norm(self, max_norm: float) -> float:
        """Scale the gradients so that their norm is at most ``max_norm``; return the norm before that."""
        gradients = list(self.gradients.values())
        norm = nn.utils.get_total_norm(gradients)
        before = float(norm)
        if before > max_norm:
            torch._foreach_mul_(gradients, max_norm / (norm + 1e-6))
        return before

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors by name, fit for safetensors: ``NAME.exp_avg``, ``.exp_avg_sq``, ``.step``, ``.rest``.

        ``.rest`` (int16) only for bf16 parameters: with the parameter it is the master, so save both.
        Parameters never stepped have no moments.
        """
        found = {f"{name}.rest": rest for name, rest in self._rests.items()}
        for name, moments in self._moments.items():
            found |= {f"{name}.{key}": value for key, value in zip(_MOMENTS, moments, strict=True)}
            found[f"{name}.step"] = self._steps[name]
        return found

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what ``state_dict`` returned; the parameters must be those of the same moment.

        Raises:
            CheckpointError: a tensor is missing, unknown, or of another shape.
        """
        known = {f"{name}.{key}" for name in self.parameters for key in (*_MOMENTS, "step")}
        known |= {f"{name}.rest" for name in self._rests}
        if unknown := sorted(set(state) - known):
            raise CheckpointError(f"the optimizer state has {unknown[0]}, which this model does not have")
        for name, p in self.parameters.items():
            if name in self._rests:
                self._rests[name].copy_(take(state, f"{name}.rest", p.shape))
            self._moments.pop(name, None)
            self._steps.pop(name, None)
            if any(f"{name}.{key}" in state for key in (*_MOMENTS, "step")):
                dtype = torch.promote_types(p.dtype, torch.float32)
                first, second = (
                    take(state, f"{name}.{key}", p.shape).to(p.device, dtype, copy=True) for key in _MOMENTS
                )
                self._moments[name] = first, second
                step = take(state, f"{name}.step", torch.Size())
                self._steps[name] = step.to(p.device, torch.float32, copy=True)

    def reload_masters(self) -> None:
        """Read the masters from the parameters again, after someone else wrote those."""
        for rest in self._rests.values():
            rest.zero_()

    def _step_pieces(self, name: str, grad: Tensor, rate: float) -> None:
        """Update a bf16 parameter through fp32 masters that exist one piece at a time."""
        p = self.parameters[name].detach()
        size = _PIECE["cpu" if p.device.type == "cpu" else "other"]
        whole = (p, self._rests[name], grad, *self._moments[name])
        if all(x.is_contiguous() for x in whole):
            flat = [x.view(-1).split(size) for x in whole]
        else:
            flat = [(x,) for x in whole]
        for rounded, rest, slope, first, second in zip(*flat, strict=True):
            master = join(rounded, rest)
            self._adamw(master, slope, (first, second), name, rate)
            part(master, rounded, rest)

    def _adamw(
        self, weight: Tensor, grad: Tensor, moments: tuple[Tensor, Tensor], name: str, rate: float
    ) -> None:
        rates, decays = self.rates, self.parameters[name].ndim >= 2
        adamw(
            [weight],
            [grad],
            [moments[0]],
            [moments[1]],
            [],
            [self._steps[name].clone()],  # it counts up, once per call
            fused=True,
            amsgrad=False,
            beta1=rates.betas[0],
            beta2=rates.betas[1],
            lr=rate,
            weight_decay=rates.weight_decay if decays else 0.0,
            eps=rates.eps,
            maximize=False,
        )

    def _collector(self, name: str):  # type: ignore[no-untyped-def]
        def collect(parameter: Tensor) -> None:
            grad = parameter.grad
            if grad is None:
                return
            if name not in self._collected:
                # Laid out like the parameter: a step walks through both, piece by piece.
                self._collected[name] = grad.float().contiguous()
            else:
                _add(self._collected[name], grad)
            parameter.grad = None

        return collect


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
    pieces = (x.view(-1).split(_PIECE["cpu"]) for x in (total, extra))
    for total_piece, piece in zip(*pieces, strict=True):
        total_piece.add_(piece)
