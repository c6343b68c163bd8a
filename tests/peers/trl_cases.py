"""The comparisons: our function, TRL's, and the leaf tensor that both are differentiated by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trimtab.functional import (
    bradley_terry_loss,
    cispo_loss,
    clipped_policy_loss,
    kl_estimate,
    kl_loss,
    logprobs_and_entropy,
    loss_denominator,
    ppo_loss,
    reduce_loss,
)

from .trl_adapters import (
    COLUMNS,
    MAX_NEW_TOKENS,
    ROWS,
    completion_mask,
    logprobs,
    near,
    normal,
    trl_grpo,
    trl_reward,
    trl_rloo,
)

BETA = 0.04
REDUCTION_OF = {"grpo": "sequence_mean", "bnpo": "token_mean", "dr_grpo": "fixed_length"}


@dataclass(frozen=True)
class Case:
    """Two functions of the same leaf tensor that should agree, or differ for the reason in ``on_purpose``."""

    name: str
    leaf: Callable[[torch.dtype], Tensor]
    ours: Callable[[Tensor], Tensor]
    theirs: Callable[[Tensor], Tensor]
    on_purpose: str = ""

    def differences(self, dtype: torch.dtype) -> tuple[float, float]:
        """Largest difference of the loss, and of its gradient relative to the gradient's largest entry."""
        results = []
        for function in (self.ours, self.theirs):
            leaf = self.leaf(dtype).requires_grad_()
            loss = function(leaf)
            results.append((loss.detach(), torch.autograd.grad(loss, leaf)[0]))
        (loss, gradient), (their_loss, their_gradient) = results
        scale = float(their_gradient.abs().max())
        return float((loss - their_loss).abs()), float((gradient - their_gradient).abs().max()) / scale


def our_policy_loss(
    kind: str, advantages: Tensor, kl_coef: float = 0.0, **clip: Any
) -> Callable[[Tensor], Tensor]:
    """Our clipped loss, reduced over the whole batch; the KL in the loss when ``kl_coef`` is not 0."""

    def loss(leaf: Tensor) -> Tensor:
        mask, old = completion_mask(), near(1, leaf.dtype)
        per_token = clipped_policy_loss(leaf, old, advantages.to(leaf.dtype), mask, **clip)
        if kl_coef:
            per_token = per_token + kl_coef * kl_loss(leaf, near(2, leaf.dtype), "k3", old, mask=mask)
        return reduce_loss(per_token, mask, kind, loss_denominator(mask, kind, MAX_NEW_TOKENS))

    return loss


def policy_cases() -> list[Case]:
    """GRPO and its relatives, PPO's policy loss (advantages per token), CISPO."""
    per_row, per_token = normal(3, ROWS), normal(4, ROWS, COLUMNS)
    mask = completion_mask()

    def our_ppo(leaf: Tensor) -> Tensor:
        return ppo_loss(leaf, near(1, leaf.dtype), per_token.to(leaf.dtype), mask=mask)

    def our_cispo(leaf: Tensor) -> Tensor:
        loss = cispo_loss(leaf, near(1, leaf.dtype), per_row.to(leaf.dtype), 1.3, mask=mask)
        return reduce_loss(loss, mask, "token_mean", loss_denominator(mask, "token_mean"))

    cases = [
        Case(f"{name}: {kind}", logprobs, our_policy_loss(kind, per_row), trl_grpo(name, per_row))
        for name, kind in REDUCTION_OF.items()
    ]
    higher = {"clip_low": 0.2, "clip_high": 0.28}
    cases += [
        Case(
            "dapo: token_mean, clip-higher, 2 micro-batches", logprobs,
            our_policy_loss("token_mean", per_row, **higher),
            trl_grpo("dapo", per_row, epsilon_high=0.28, micro_batches=2),
        ),
        Case(
            "gspo: ratio of sequences, sequence_mean", logprobs,
            our_policy_loss("sequence_mean", per_row, clip_low=0.05, clip_high=0.05, ratio="sequence"),
            trl_grpo(
                "grpo", per_row, epsilon_low=0.05, epsilon_high=0.05, importance_sampling_level="sequence"
            ),
        ),
        Case(
            "two-sided clip: dual_clip = TRL's delta", logprobs,
            our_policy_loss("token_mean", per_row, dual_clip=1.4), trl_grpo("bnpo", per_row, delta=1.4),
        ),
        Case("ppo_loss: advantages per token", logprobs, our_ppo, trl_grpo("bnpo", per_token)),
        Case("cispo: ratio_max 1.3", logprobs, our_cispo, trl_grpo("cispo", per_row, epsilon_high=1.3)),
        Case(
            "KL in the loss: k3 × ratio = use_bias_correction_kl", logprobs,
            our_policy_loss("token_mean", per_row, kl_coef=BETA),
            trl_grpo("bnpo", per_row, beta=BETA, use_bias_correction_kl=True),
        ),
    ]  # fmt: skip
    return cases


def rloo_case() -> Case:
    """RLOO's loss in TRL is the PPO loss of summed log-probabilities."""
    advantages, mask = normal(3, ROWS), completion_mask()

    def ours(leaf: Tensor) -> Tensor:
        old = (near(1, leaf.dtype, 0.1) * mask).sum(1)
        return ppo_loss((leaf * mask).sum(1), old, advantages.to(leaf.dtype))

    return Case("rloo: ppo_loss of whole completions", logprobs, ours, trl_rloo(advantages, 0.1))


def bradley_terry_case(margin: bool, centre_coef: float | None) -> Case:
    """The reward model's loss, with and without margins and centring."""
    margins = normal(6, ROWS).abs() if margin else None

    def ours(leaf: Tensor) -> Tensor:
        chosen, rejected = leaf.chunk(2)
        gap = 0.0 if margins is None else margins.to(leaf.dtype)
        return bradley_terry_loss(chosen, rejected, gap, centre_coef or 0.0).mean()

    name = "Bradley-Terry" + ", margin" * margin + (", centring" if centre_coef else "")
    scores = lambda dtype: 3 * normal(5, 2 * ROWS, dtype=dtype)  # noqa: E731
    return Case(name, scores, ours, trl_reward(margins, centre_coef))


def logprob_case() -> Case:
    """Log-probabilities and entropy from logits, at temperature 0.8."""
    ids = torch.randint(50, (ROWS, COLUMNS), generator=torch.Generator().manual_seed(7))
    weight = normal(8, 2, ROWS, COLUMNS)

    def weighted(pair: tuple[Tensor, Tensor]) -> Tensor:
        return sum((w.to(x.dtype) * x).mean() for w, x in zip(weight, pair, strict=True))

    def theirs(leaf: Tensor) -> Tensor:
        from trl.trainer.utils import selective_log_softmax_and_entropy

        return weighted(selective_log_softmax_and_entropy(leaf, ids, temperature=0.8))

    return Case(
        "logprobs and entropy, temperature 0.8",
        lambda dtype: 2 * normal(9, ROWS, COLUMNS, 50, dtype=dtype),
        lambda leaf: weighted(logprobs_and_entropy(leaf, ids, 0.8, True, 7)),
        theirs,
    )


def kl_case_on_purpose() -> Case:
    """TRL's default KL in the loss is bare k3: the same number on-policy, another gradient (trap 1)."""
    mask, none = completion_mask(), torch.zeros(ROWS)

    def ours(leaf: Tensor) -> Tensor:
        kl = BETA * kl_loss(leaf, near(2, leaf.dtype), "k3", mask=mask)
        return reduce_loss(kl, mask, "token_mean", loss_denominator(mask, "token_mean"))

    return Case(
        "KL in the loss: TRL's default", logprobs, ours, trl_grpo("bnpo", none, beta=BETA),
        on_purpose="bare k3 has the gradient of the forward KL; ours has that of the reverse KL",
    )  # fmt: skip


def bare_k3_case() -> Case:
    """The same TRL loss against our estimate, differentiated as it stands: only the gradient differs."""
    mask, none = completion_mask(), torch.zeros(ROWS)

    def ours(leaf: Tensor) -> Tensor:
        kl = BETA * kl_estimate(leaf, near(2, leaf.dtype), "k3", mask=mask)
        return reduce_loss(kl, mask, "token_mean", loss_denominator(mask, "token_mean"))

    return Case("bare k3 (kl_estimate) = TRL's default", logprobs, ours, trl_grpo("bnpo", none, beta=BETA))


def cases() -> list[Case]:
    """Every comparison, those that differ on purpose last."""
    return [
        *policy_cases(),
        rloo_case(),
        bare_k3_case(),
        bradley_terry_case(margin=False, centre_coef=None),
        bradley_terry_case(margin=True, centre_coef=None),
        bradley_terry_case(margin=True, centre_coef=0.01),
        logprob_case(),
        kl_case_on_purpose(),
    ]
