"""The worker that does the learning: one module, its optimizer, micro-batches. Runs in this process or in a
remote one; nothing here knows which."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trimtab.distributed.interfaces import Objective, Scores
from trimtab.functional import full_kl
from trimtab.models.forward import token_scores
from trimtab.models.optim import MasterAdamW
from trimtab.models.value_head import SharedCritic
from trimtab.types import TrainBatch


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker computes; none of it changes the result but ``temperature``."""

    learning_rate: float
    weight_decay: float = 0.0
    microbatch_size: int = 16
    temperature: float = 1.0
    with_entropy: bool = True


def microbatches(batch: TrainBatch, size: int) -> Iterator[tuple[Tensor, TrainBatch]]:
    """Yield row indices and micro-batches of at most ``size`` rows of similar length: little padding."""
    order = batch.attention_mask.sum(dim=1).argsort(descending=True, stable=True)
    for index in order.split(size):
        yield index, batch.rows(index)


class LocalLearner:
    """One module, its optimizer, and the forward pass that makes ``Scores`` of a micro-batch."""

    def __init__(
        self, module: nn.Module, settings: WorkerSettings, forward: Callable[[TrainBatch, bool], Scores]
    ) -> None:
        self.module, self.settings, self.forward = module, settings, forward
        self.optimizer = MasterAdamW(
            [(name, p) for name, p in module.named_parameters() if p.requires_grad],
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )

    def logprobs(self, batch: TrainBatch) -> Tensor:
        """Log-probabilities ``[B, T]`` of the completion tokens, without gradient."""
        return self._frozen(batch, "logprobs")

    def values(self, batch: TrainBatch) -> Tensor:
        """The critic's values ``[B, T]`` at the completion tokens, without gradient."""
        return self._frozen(batch, "values")

    @torch.no_grad()
    def _frozen(self, batch: TrainBatch, what: str) -> Tensor:
        out = torch.zeros(batch.token_ids.shape)
        for index, micro in microbatches(batch, self.settings.microbatch_size):
            scores = getattr(self.forward(micro, False), what)
            out[index, : scores.shape[1]] = scores.float()
        return out * batch.completion_mask

    def forward_backward(self, batch: TrainBatch, objective: Objective) -> dict[str, float]:
        """Accumulate the gradients of ``objective`` over a mini-batch; return its metrics."""
        metrics: dict[str, float] = {}
        for _, micro in microbatches(batch, self.settings.microbatch_size):
            loss, shares = objective(self.forward(micro, self.settings.with_entropy), micro)
            loss.backward()
            add_shares(metrics, shares)
        return metrics

    def clip_gradients(self, max_norm: float) -> float:
        """Scale the gradients to ``max_norm`` at most; return the norm before that."""
        return self.optimizer.clip_grad_norm(max_norm)

    def optimizer_step(self, learning_rate: float) -> None:
        """Apply the gradients and clear them."""
        self.optimizer.step(learning_rate)
        self.optimizer.zero_grad()

    def discard_gradients(self) -> None:
        """Clear the gradients without applying them."""
        self.optimizer.zero_grad()

    def state(self) -> dict[str, Any]:
        """Parameters and optimizer."""
        return {"model": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state`` returned."""
        self.module.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


def policy_learner(
    model: nn.Module, settings: WorkerSettings, critic: SharedCritic | None = None
) -> LocalLearner:
    """A learner of log-probabilities; with ``critic`` also of values from the same trunk."""

    def forward(batch: TrainBatch, with_entropy: bool) -> Scores:
        inputs = (batch.token_ids, batch.attention_mask, batch.completion_mask)
        options = {"temperature": settings.temperature, "with_entropy": with_entropy}
        if critic is None:
            scores, values = token_scores(model, *inputs, **options), None
        else:
            scores, values = critic.forward_both(*inputs, **options)
        return Scores(logprobs=scores.logprobs, entropy=scores.entropy, values=values)

    modules = nn.ModuleDict({"model": model, **({"critic": critic} if critic is not None else {})})
    return LocalLearner(modules, settings, forward)


def critic_learner(critic: nn.Module, settings: WorkerSettings) -> LocalLearner:
    """A learner of values, a model of its own."""

    def forward(batch: TrainBatch, with_entropy: bool) -> Scores:
        return Scores(values=critic(batch.token_ids, batch.attention_mask).float())

    return LocalLearner(critic, settings, forward)


class Reference:
    """The frozen reference policy: log-probabilities only."""

    def __init__(self, model: nn.Module, settings: WorkerSettings) -> None:
        self.model, self.settings = model.requires_grad_(False).eval(), settings

    @torch.no_grad()
    def logprobs(self, batch: TrainBatch) -> Tensor:
        """Log-probabilities ``[B, T]`` of the completion tokens."""
        return frozen_logprobs(self.model, batch, self.settings)

    @torch.no_grad()
    def refresh(self, policy: nn.Module) -> None:
        """Become a copy of ``policy`` (R10)."""
        self.model.load_state_dict(policy.state_dict())


def frozen_logprobs(model: nn.Module, batch: TrainBatch, settings: WorkerSettings) -> Tensor:
    """Log-probabilities ``[B, T]`` of the completion tokens under ``model``, micro-batch by micro-batch."""
    out = torch.zeros(batch.token_ids.shape)
    for index, micro in microbatches(batch, settings.microbatch_size):
        scores = token_scores(
            model,
            micro.token_ids,
            micro.attention_mask,
            micro.completion_mask,
            temperature=settings.temperature,
        )
        out[index, : scores.logprobs.shape[1]] = scores.logprobs
    return out


@torch.no_grad()
def exact_kl(policy: nn.Module, reference: nn.Module, batch: TrainBatch, settings: WorkerSettings) -> Tensor:
    """KL(policy ‖ reference) over the whole vocabulary at each completion token, ``[B, T]`` in nats."""
    out = torch.zeros(batch.token_ids.shape)
    for index, micro in microbatches(batch, settings.microbatch_size):
        inputs = (micro.token_ids, micro.attention_mask, micro.completion_mask)
        ours, theirs = (token_scores(m, *inputs, with_logits=True).logits for m in (policy, reference))
        assert ours is not None and theirs is not None
        values = full_kl(ours.float(), theirs.float(), settings.temperature)
        # Logits come as a flat list of completion tokens, row by row.
        out[index, : micro.token_ids.shape[1]] = torch.zeros(micro.token_ids.shape).masked_scatter(
            micro.completion_mask, values
        )
    return out


def add_shares(metrics: dict[str, float], shares: Mapping[str, Tensor]) -> None:
    """Add the metric shares of a micro-batch; names that end in ``_max`` keep the largest."""
    for name, share in shares.items():
        value = float(share)
        if name.endswith("_max"):
            metrics[name] = max(metrics.get(name, value), value)
        else:
            metrics[name] = metrics.get(name, 0.0) + value
