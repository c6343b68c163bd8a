"""The worker that does the learning: one module, its optimizer, micro-batches. Runs in this process or in a
remote one; nothing here knows which. Batches and results are on the CPU, the work where the module is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from trimtab.distributed.budget import is_checkpointing
from trimtab.distributed.interfaces import Objective
from trimtab.distributed.one_pass import merge_shares
from trimtab.distributed.passes import CriticPass, Packer, Pass, PolicyPass, WorkerSettings
from trimtab.distributed.room import Shrink, run_with_room
from trimtab.functional import full_kl
from trimtab.models.finite import FiniteCheck
from trimtab.models.forward import token_scores
from trimtab.models.lora import load_trainable_state, trainable_state
from trimtab.models.moving_average import MovingAverage
from trimtab.models.optim import MasterAdamW
from trimtab.models.packed_forward import packed_logits
from trimtab.models.value_head import Critic, SharedCritic
from trimtab.runs.faults import reach
from trimtab.types import TrainBatch

__all__ = [
    "LocalLearner",
    "Reference",
    "WorkerSettings",
    "critic_learner",
    "exact_kl",
    "policy_learner",
]


class LocalLearner:
    """One module, its optimizer, and the pass that scores micro-batches and makes gradients."""

    def __init__(self, module: nn.Module, settings: WorkerSettings, model_pass: Pass) -> None:
        self.module, self.settings, self.model_pass = module, settings, model_pass
        self.optimizer = MasterAdamW(
            [(name, p) for name, p in module.named_parameters() if p.requires_grad],
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )
        self.finite = FiniteCheck(module, self.optimizer)

    def logprobs(self, batch: TrainBatch) -> Tensor:
        """Log-probabilities ``[B, T]`` of the completion tokens, without gradient."""
        return frozen_scores(self.model_pass, batch, "logprobs")

    def values(self, batch: TrainBatch) -> Tensor:
        """The critic's values ``[B, T]`` at the completion tokens, without gradient."""
        return frozen_scores(self.model_pass, batch, "values")

    @property
    def is_untrained(self) -> bool:
        """Whether it has made no optimizer step yet, also before a checkpoint that was taken over."""
        return not self.optimizer.has_stepped

    @torch.no_grad()
    def level_values(self, by: float) -> None:
        """Add ``by`` to the bias of the value head."""
        critic = self.module["critic"] if isinstance(self.module, nn.ModuleDict) else self.module
        assert isinstance(critic, Critic | SharedCritic)
        critic.head.linear.bias.add_(by)

    def forward_backward(self, batch: TrainBatch, objective: Objective) -> dict[str, float]:
        """Accumulate the gradients of ``objective`` over a mini-batch; return its metrics.

        Rows whose gradient is exactly 0 are left out (``skip_zero``); the loss's denominators still count
        them, the metrics are of the rows that ran. When memory runs out, the mini-batch starts again with
        smaller micro-batches; the gradients are those of a run that had begun with them.

        Raises:
            MemoryShortError: not even one row fits.
        """
        if self.settings.skip_zero:
            batch, objective = without_idle_rows(batch, objective)
        before = {name: grad.clone() for name, grad in self.optimizer.gradients.items()}  # none, as a rule

        def shrink(cause: str) -> None:
            self.model_pass.shrink(cause)
            self.optimizer.set_gradients(before)

        found = run_with_room(lambda: self._accumulate(batch, objective), shrink)
        return {name: float(value) for name, value in found.items()}

    def _accumulate(self, batch: TrainBatch, objective: Objective) -> dict[str, Tensor]:
        metrics: dict[str, Tensor] = {}
        with recomputing(self.module), self.model_pass.faster():
            for _, micro in self.model_pass.split(batch):
                merge_shares(metrics, self.model_pass.backward(micro, objective))
                reach("mid_backward")
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

    def take_news(self) -> list[Shrink]:
        """What happened to micro-batches since the last call, also in passes without gradient."""
        return self.settings.room.take_news()

    def set_temperature(self, temperature: float) -> None:
        """Divide the logits by this from now on; values do not depend on it."""
        self.settings = replace(self.settings, temperature=temperature)
        self.model_pass.set_temperature(temperature)

    def state(self) -> dict[str, Any]:
        """Trained parameters, optimizer, and how many tokens micro-batches hold once memory has run out."""
        return {
            "model": trainable_state(self.module),
            "optimizer": self.optimizer.state_dict(),
            "room": self.settings.room.limit,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state`` returned."""
        load_trainable_state(self.module, state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.settings.room.take_limit(state.get("room"))


def policy_learner(
    model: nn.Module, settings: WorkerSettings, critic: SharedCritic | None = None
) -> LocalLearner:
    """A learner of log-probabilities; with ``critic`` also of values from the same trunk."""
    modules = nn.ModuleDict({"model": model, **({"critic": critic} if critic is not None else {})})
    return LocalLearner(modules, settings, PolicyPass(model, settings, critic))


def critic_learner(critic: Critic, settings: WorkerSettings) -> LocalLearner:
    """A learner of values, a model of its own."""
    return LocalLearner(critic, settings, CriticPass(critic, settings))


class Reference:
    """The frozen reference policy: log-probabilities only."""

    def __init__(self, model: nn.Module, settings: WorkerSettings) -> None:
        self.model, self.settings = model.requires_grad_(False).eval(), settings
        self._pass = PolicyPass(self.model, settings)
        self._average: MovingAverage | None = None

    def logprobs(self, batch: TrainBatch) -> Tensor:
        """Log-probabilities ``[B, T]`` of the completion tokens."""
        return frozen_scores(self._pass, batch, "logprobs")

    def set_temperature(self, temperature: float) -> None:
        """Divide the logits by this from now on."""
        self.settings = replace(self.settings, temperature=temperature)
        self._pass.set_temperature(temperature)

    @torch.no_grad()
    def refresh(self, policy: nn.Module, mix: float = 1.0) -> None:
        """Move a share ``mix`` of the way to ``policy``; 1 becomes a copy of it (R10)."""
        if mix == 1.0:
            self.model.load_state_dict(policy.state_dict())
            self._average = None
            return
        if self._average is None:
            self._average = MovingAverage(self.model)
        self._average.move(policy, mix)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold of a reference that moves."""
        average = {} if self._average is None else self._average.state()
        return {"model": self.model.state_dict(), "average": average}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state`` returned."""
        self.model.load_state_dict(state["model"])
        if state["average"]:
            self._average = MovingAverage(self.model)
            self._average.load_state(state["average"])


@torch.no_grad()
def frozen_scores(model_pass: Pass, batch: TrainBatch, what: str) -> Tensor:
    """``logprobs`` or ``values`` at the completion tokens, ``[B, T]`` fp32 on the CPU, 0 elsewhere."""

    def attempt() -> Tensor:
        out = torch.zeros(batch.token_ids.shape)
        with model_pass.faster():
            for index, micro in model_pass.split(batch):
                found = getattr(model_pass.scores(micro), what)
                out[index, : found.shape[1]] = found.float().cpu()
        return out

    return run_with_room(attempt, model_pass.shrink) * batch.completion_mask.cpu()


@torch.no_grad()
def exact_kl(policy: nn.Module, reference: nn.Module, batch: TrainBatch, settings: WorkerSettings) -> Tensor:
    """KL(policy ‖ reference) over the whole vocabulary at each completion token, ``[B, T]`` in nats."""
    models, packer = (policy, reference), Packer(policy, settings)
    others = Packer(reference, settings)
    packer.fault = packer.fault or others.fault

    def attempt() -> Tensor:
        out = torch.zeros(batch.token_ids.shape)
        with packer.faster(), others.faster():
            for index, micro in packer.split(batch):
                values = packer.either(
                    micro,
                    lambda plan: plan.scatter(
                        _kl([packed_logits(m, plan) for m in models], settings.temperature)
                    ),
                    partial(_padded_kl, models, micro, settings.temperature),
                )
                out[index, : values.shape[1]] = values.cpu()
        return out

    return run_with_room(attempt, packer.shrink)


def _kl(logits: list[Tensor], temperature: float, rows: int = 128) -> Tensor:
    """KL per position ``[N]`` of two ``[N, V]``, a few rows in fp32 at a time."""
    blocks = zip(*(part.split(rows) for part in logits), strict=True)
    return torch.cat([full_kl(ours.float(), theirs.float(), temperature) for ours, theirs in blocks])


def _padded_kl(models: tuple[nn.Module, nn.Module], micro: TrainBatch, temperature: float) -> Tensor:
    inputs = (micro.token_ids, micro.attention_mask, micro.completion_mask)
    logits = []
    for model in models:
        found = token_scores(model, *inputs, with_logits=True).logits
        assert found is not None
        logits.append(found)
    mask = micro.completion_mask.bool().clone()
    mask[:, 0] = False
    blank = torch.zeros(mask.shape, device=mask.device)
    return blank.masked_scatter(mask, _kl(logits, temperature)) if bool(mask.any()) else blank


def without_idle_rows(batch: TrainBatch, objective: Objective) -> tuple[TrainBatch, Objective]:
    """Leave out the rows that change no gradient, but never all of them.

    One that is left keeps the gradients at zero instead of none, so an optimizer with momentum does what it
    does on the whole batch.
    """
    active = objective.active_rows(batch)
    if bool(active.all()):
        return batch, objective
    if not bool(active.any()):
        lengths = batch.attention_mask.sum(dim=1)
        has_tokens = batch.completion_mask.any(dim=1)
        active[torch.where(has_tokens, lengths, lengths.max() + 1).argmin()] = True
    batch = batch.rows(active.nonzero().squeeze(1))
    return batch, objective.for_metrics_of(batch)


@contextmanager
def recomputing(module: nn.Module) -> Iterator[None]:
    """Train mode where activations are to be recomputed: transformers does it in train mode only.

    Dropout is off for good, so that nothing else changes.
    """
    resting = [part for part in module.modules() if not part.training]
    if is_checkpointing(module):
        module.train()
    try:
        yield
    finally:
        for part in resting:
            part.training = False
