"""Another loss of your own, from the parts of `trimtab.functional`: first its checks, then a short training.

    python examples/custom_loss.py --steps 40

The example is a penalty instead of a clip: ρA − |A|·(ρ − 1)² / (2ε) per token, to be maximised (Xie et al.
2024, "Simple Policy Optimization"). It is largest at ρ = 1 + ε where A > 0 and at ρ = 1 − ε where A < 0,
where PPO clips. A token beyond is pulled back instead of losing its gradient.

A loss is a function of (logprobs, old_logprobs, advantages, mask) that returns one number per token, to be
minimised. Reduction, KL and advantages are separate, so nothing else has to be written again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from grpo_single_file import PolicyLoss, parse_settings, train
from torch import Tensor

from trimtab.functional import loss_denominator, masked_fill_zero, reduce_loss, token_ratio

EPSILON = 0.2


def penalty_loss(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """Loss per token ``[B, T]`` of advantages ``[B]``; exactly 0, without gradient, outside ``mask``."""
    ratio = token_ratio(logprobs, old_logprobs, mask)
    advantage = advantages.detach().unsqueeze(1)
    gain = ratio * advantage - advantage.abs() * (ratio - 1).square() / (2 * EPSILON)
    return masked_fill_zero(-gain, mask)


def check_loss(loss: PolicyLoss) -> None:
    """What every policy loss must hold; raises AssertionError where it does not.

    On-policy (ρ = 1) the gradient is REINFORCE's; masked tokens have none; micro-batches change nothing.
    """
    draw = torch.Generator().manual_seed(0)
    old = -torch.rand(6, 5, generator=draw, dtype=torch.float64)
    advantages = torch.randn(6, generator=draw, dtype=torch.float64)
    mask = torch.arange(5) < torch.tensor([5, 3, 1, 4, 2, 5]).unsqueeze(1)

    def gradient(logprobs: Tensor, size: int) -> Tensor:
        leaf = logprobs.clone().requires_grad_()
        denominator = loss_denominator(mask, "token_mean")
        for part in torch.arange(len(leaf)).split(size):
            per_token = loss(leaf[part], old[part], advantages[part], mask[part])
            reduce_loss(per_token, mask[part], "token_mean", denominator).backward()
        assert leaf.grad is not None
        return leaf.grad

    reinforce = -advantages.unsqueeze(1) * mask / mask.sum()
    assert torch.allclose(gradient(old, 6), reinforce), "on-policy it is not REINFORCE"
    moved = old + 0.3 * torch.randn(6, 5, generator=draw, dtype=torch.float64)
    assert bool((gradient(moved, 6)[~mask] == 0).all()), "a masked token has a gradient"
    assert torch.allclose(gradient(moved, 6), gradient(moved, 4)), "the micro-batches change the gradient"


def main(arguments: Sequence[str] | None = None) -> list[dict[str, float]]:
    """Check the loss, then train with it; two updates per batch, or the ratio would always be 1."""
    check_loss(penalty_loss)
    print("the loss holds: REINFORCE on-policy, no gradient outside the mask, any micro-batches")
    given = list(sys.argv[1:] if arguments is None else arguments)
    return train(parse_settings(["--num-updates", "2", *given]), penalty_loss)


if __name__ == "__main__":
    main()
