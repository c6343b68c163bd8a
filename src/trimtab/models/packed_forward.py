"""The forward over a packed row, and whether a model can do it: found out by trying, once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.models.attention import NAME, UnsupportedAttentionError, context_inputs
from trimtab.models.attention_proof import TOLERANCE, proof_of
from trimtab.models.forward import head_input, model_inputs
from trimtab.models.length_rule import length_rule
from trimtab.models.packed_context import PackedContext
from trimtab.models.packing import PackPlan, make_plan
from trimtab.models.windows import untold_window
from trimtab.types import TrainBatch


def packed_hidden(model: Any, plan: PackPlan) -> Tensor:
    """Last hidden states ``[N, H]`` at the plan's sources, of a causal language model; its head does not run.

    Raises:
        UnsupportedAttentionError: the architecture, or the length of a sequence, needs the padded path.
    """
    seen: list[Tensor] = []

    def pick(hidden: Tensor) -> Tensor:
        seen.append(hidden[0].index_select(0, plan.sources))
        return hidden[:, :0]

    inputs = _inputs(model, plan)
    with head_input(model, pick):
        model(**inputs)
    return seen[0]


def packed_logits(model: Any, plan: PackPlan) -> Tensor:
    """Logits ``[N, V]`` at the plan's sources by the model's own head; raises as ``packed_hidden``."""
    inputs = _inputs(model, plan)
    with head_input(model, lambda hidden: hidden[:, plan.sources]):
        return model(**inputs).logits[0]


def packed_trunk(trunk: Any, plan: PackPlan) -> Tensor:
    """As ``packed_hidden``, of a trunk: a model without a head."""
    return trunk(**_inputs(trunk, plan)).last_hidden_state[0].index_select(0, plan.sources)


def _inputs(model: Any, plan: PackPlan) -> dict[str, Any]:
    window, rule = untold_window(model), length_rule(model)
    if window is not None and plan.longest > window:
        raise UnsupportedAttentionError(
            f"its attention is not told of the window of {window}, and a sequence has {plan.longest} tokens"
        )
    if rule is not None:
        if not rule.is_base(plan.longest):
            raise UnsupportedAttentionError(
                f"its rotary frequencies depend on the length beyond {rule.border} tokens"
            )
        rule.reset(model)
    return context_inputs(plan.input_ids, plan.position_ids, PackedContext(plan))


def plain_head_weight(model: Any) -> Tensor | None:
    """The weight ``[V, H]`` of a head that is nothing but one linear map without bias, else None."""
    head = model.get_output_embeddings()
    return head.weight if type(head) is nn.Linear and head.bias is None else None


def find_packing_fault(model: Any, *, is_trunk: bool = False) -> str | None:
    """Say why ``model`` cannot run packed rows, or None when it can: one forward each way, compared."""
    if getattr(model.config, "_attn_implementation", None) != NAME:
        proof = proof_of(model)
        return proof.cause if proof is not None and proof.cause else f"its attention is not '{NAME}'"
    try:
        batch, plan = _probe(model)
        with torch.no_grad():
            packed = packed_trunk(model, plan) if is_trunk else packed_hidden(model, plan)
            padded = _padded_hidden(model, batch, is_trunk)[:, :-1][plan.trained[:, 1:]]
    except Exception as error:  # any failure of an unknown architecture means: use the slow way
        return _line(error)
    try:
        return _difference(packed[plan.spread], padded, model.dtype) or find_leak(model, is_trunk=is_trunk)
    except RuntimeError as error:  # it has no gradient
        return _line(error)


def _line(error: Exception) -> str:
    kind = "" if isinstance(error, UnsupportedAttentionError) else f"{type(error).__name__}: "
    return f"{kind}{error}".splitlines()[0][:160]


def find_leak(model: Any, *, is_trunk: bool = False) -> str | None:
    """Say that one sequence of a packed row reaches into another, as through a convolution or a recurrence.

    The gradient of what is said of the last sequence is exactly 0 at the tokens of all others, in any
    precision and however small the weights are, unless something beside attention carries them over.
    """
    leaves: list[Tensor] = []

    def cut(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_(True))
        return leaves[0].clone()

    handle = model.get_input_embeddings().register_forward_hook(cut)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            _, plan = _probe(model)
            hidden = packed_trunk(model, plan) if is_trunk else packed_hidden(model, plan)
            first = plan.input_ids.shape[1] - plan.segments[-1]
            last = hidden[plan.sources >= first].float()
            weights = torch.randn(last.shape, generator=torch.Generator().manual_seed(1)).to(last.device)
            (gradient,) = torch.autograd.grad((last * weights).sum(), leaves[0])
    finally:
        handle.remove()
    if bool(gradient[0, :first].abs().max() > 1e-6 * gradient[0, first:].abs().max()):
        return "beside attention something else carries tokens over from one sequence to the next"
    return None


def find_head_fault(model: Any) -> str | None:
    """Say why the head is not a plain linear map of the hidden states, or None when it is."""
    weight = plain_head_weight(model)
    if weight is None:
        return "its head is not a linear map without bias"
    _, plan = _probe(model)
    with torch.no_grad():
        logits = F.linear(packed_hidden(model, plan), weight)
        return _difference(packed_logits(model, plan), logits, model.dtype)


def _difference(found: Tensor, expected: Tensor, dtype: torch.dtype) -> str | None:
    found, expected = found.float(), expected.float()
    gap = float((found - expected).pow(2).mean().sqrt() / expected.std())
    if gap <= TOLERANCE.get(dtype, 0.05):
        return None
    return f"its packed forward differs from the plain one by {gap:.2g} standard deviations"


def _probe(model: Any) -> tuple[TrainBatch, PackPlan]:
    """Two short rows that share a prompt of five tokens, and one of their own."""
    vocabulary = model.config.get_text_config().vocab_size
    ids = torch.randint(vocabulary, (3, 10), generator=torch.Generator().manual_seed(0))
    ids[1, :5] = ids[0, :5]
    present = torch.arange(10) < torch.tensor([10, 8, 7])[:, None]
    trained = present & (torch.arange(10) >= torch.tensor([5, 5, 3])[:, None])
    batch = TrainBatch(ids, present, trained, torch.zeros(3, 10))
    return batch.to(model.device), make_plan(batch).to(model.device)


def _padded_hidden(model: Any, batch: TrainBatch, is_trunk: bool) -> Tensor:
    """Last hidden states ``[B, T, H]`` of the plain forward."""
    inputs = model_inputs(batch.token_ids, batch.attention_mask)
    if is_trunk:
        return model(**inputs, use_cache=False).last_hidden_state
    seen: list[Tensor] = []

    def pick(hidden: Tensor) -> Tensor:
        seen.append(hidden)
        return hidden[:, :0]

    with head_input(model, pick):
        model(**inputs, use_cache=False)
    return seen[0]
