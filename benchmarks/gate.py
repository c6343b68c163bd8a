"""The gate: the same stored completions through TRL's loss and through ours, before any speed is published.

The batch has prompts of one length, completions of the policy itself from 1 token up to the limit, group
advantages of random rewards, and a stored reference that differs from the policy. Compared are the arms that
are timed: fp32 with fp32, and our bf16 with TRL tuned (``bf16=True``: fp32 parameters under autocast). The
reply also says how far each bf16 gradient is from the one in fp32, among them TRL's with bf16 parameters,
which rounds so much that the exact gradient itself is outside the limit of it. Both sides run in one process,
which answers one request.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from benchmarks.ours_arm import Ours, stored_batch
from benchmarks.process import Handler, serve
from benchmarks.trl_arm import VARIANTS, Variant, build_trainer, options_of
from benchmarks.workload import StepSpec
from torch import Tensor

from trimtab.trainers.objectives import PolicyObjective
from trimtab.types import TrainBatch

LIMITS = {"float32": (1e-5, 1 - 1e-5), "bfloat16": (1e-3, 0.999)}  # largest loss_rel, smallest grad_cosine
Side = tuple[float, dict[str, Tensor]]  # the loss, and the gradient of every parameter


def passes(dtype: str, figures: Mapping[str, float]) -> bool:
    """Whether loss and gradient agree as well as this precision asks."""
    loss_rel, cosine = LIMITS[dtype]
    return figures["loss_rel"] < loss_rel and figures["grad_cosine"] > cosine


def is_open(found: Mapping[str, Any]) -> bool:
    """Whether speeds may be published: both precisions pass."""
    return all(passes(dtype, found[dtype]) for dtype in LIMITS)


def our_side(ours: Ours, rows: TrainBatch) -> Side:
    """Loss and gradients of our learner, which are left unapplied."""
    rl, learner = ours.recipe.rl, ours.system.policy
    loss = learner.forward_backward(rows, PolicyObjective.of(rl, rows, rl.kl.coef))["loss/total"]
    # The learner holds the model as its part "model"; gradients of bf16 parameters wait in the optimizer.
    found = learner.optimizer.gradients
    gradients = {n.removeprefix("model."): g.detach().float().cpu().clone() for n, g in found.items()}
    learner.discard_gradients()
    return loss, gradients


def trl_inputs(rows: TrainBatch, prompt_tokens: int) -> dict[str, Tensor]:
    """A batch of ours as TRL's trainer lays it out; every prompt has ``prompt_tokens`` tokens."""
    mask = rows.completion_mask[:, prompt_tokens:]
    assert rows.ref_logprobs is not None
    return {
        "prompt_ids": rows.token_ids[:, :prompt_tokens],
        "prompt_mask": rows.attention_mask[:, :prompt_tokens].long(),
        "completion_ids": rows.token_ids[:, prompt_tokens:],
        "completion_mask": mask.long(),
        # One advantage per row; column 0 of the completion has it, since every row trains a token.
        "advantages": rows.advantages[:, prompt_tokens],
        "ref_per_token_logps": rows.ref_logprobs[:, prompt_tokens:],
    }


def trl_side(spec: StepSpec, variant: Variant, rows: TrainBatch) -> Side:
    """Loss and gradients of TRL's own trainer over the same rows, micro-batch by micro-batch."""
    trainer = build_trainer(spec, options_of(spec, variant))
    model = trainer.model.train()
    size = trainer.args.per_device_train_batch_size
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    inputs, total = trl_inputs(rows, spec.prompt_tokens), 0.0
    device = next(model.parameters()).device
    for start in range(0, len(rows), size):
        part = {name: value[start : start + size].to(device) for name, value in inputs.items()}
        part["num_items_in_batch"] = inputs["completion_mask"].sum().to(device)
        with trainer.compute_loss_context_manager():
            loss = trainer.compute_loss(model, part)
        loss.backward()
        total += float(loss.detach())
    gradients = {n: p.grad.detach().float().cpu() for n, p in model.named_parameters() if p.grad is not None}
    return total, gradients


def compare(ours: Side, theirs: Side) -> dict[str, float]:
    """Relative difference of the losses, and cosine of the gradients of all parameters taken as one vector.

    Raises:
        KeyError: a parameter has a gradient on one side only.
    """
    (loss, gradients), (their_loss, their_gradients) = ours, theirs
    if odd := gradients.keys() ^ their_gradients.keys():
        raise KeyError(f"only one side has a gradient of {sorted(odd)[0]} ({len(odd)} such parameters)")
    dot = sum(float((gradients[n].double() * their_gradients[n].double()).sum()) for n in gradients)
    norm, their_norm = (
        sum(float(g.double().square().sum()) for g in side.values()) ** 0.5
        for side in (gradients, their_gradients)
    )
    return {
        "loss_rel": abs(loss - their_loss) / abs(their_loss),
        "grad_cosine": dot / (norm * their_norm),
        "grad_norm_ratio": norm / their_norm,
        "loss": loss,
        "other_loss": their_loss,
    }


def build(raw: dict[str, Any]) -> Handler:
    """Answer a request with the figures of both precisions."""
    spec = StepSpec(**raw)

    def side(dtype: str, rows: TrainBatch) -> Side:
        return our_side(Ours(replace(spec, dtype=dtype)), rows)

    def handle(_: dict[str, Any]) -> dict[str, Any]:
        rows = stored_batch(Ours(replace(spec, dtype="float32")), sampled=True)
        exact = side("float32", rows)
        found = {"float32": compare(exact, trl_side(spec, VARIANTS["float32"], rows))}
        ours, tuned = side("bfloat16", rows), trl_side(spec, VARIANTS["tuned"], rows)
        found["bfloat16"] = compare(ours, tuned)
        rounded = trl_side(spec, VARIANTS["bf16_weights"], rows)
        sides = {"ours": ours, "trl_tuned": tuned, "trl_bf16_weights": rounded}
        found["from_float32"] = {name: compare(one, exact) for name, one in sides.items()}
        return found

    torch.manual_seed(spec.seed)
    return handle


if __name__ == "__main__":
    raise SystemExit(serve(build))
