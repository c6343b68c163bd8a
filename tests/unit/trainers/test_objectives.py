"""What is minimised, by hand: a row of two or three tokens at a time."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.unit.trainers.systems import rl_config
from torch import Tensor

from trimtab.distributed.interfaces import Scores
from trimtab.trainers.objectives import JointObjective, PolicyObjective, Supervised, ValueObjective
from trimtab.types import TrainBatch

MASK = torch.tensor([[False, True, True], [False, True, False]])


def rows(**columns: Tensor) -> TrainBatch:
    """Two rows of two and one completion tokens; advantages 1 and −2."""
    plain: dict[str, Any] = {
        "token_ids": torch.ones(2, 3, dtype=torch.int64),
        "attention_mask": torch.ones(2, 3, dtype=torch.bool),
        "completion_mask": MASK,
        "advantages": torch.tensor([[0, 1.0, 1.0], [0, -2.0, 0]]),
    }
    return TrainBatch(**{**plain, **columns})


def token_values(*values: float) -> Tensor:
    """Three numbers at the completion tokens."""
    return torch.zeros(2, 3).masked_scatter(MASK, torch.tensor(values))


def run(batch: TrainBatch, logprobs: Tensor, kl_coef: float = 0.0, **keys: Any) -> dict[str, float]:
    rl = rl_config(**{"importance_correction": "none", **keys})
    loss, shares = PolicyObjective.of(rl, batch, kl_coef)(Scores(logprobs=logprobs), batch)
    return {"loss": float(loss), **{name: float(share) for name, share in shares.items()}}


def test_on_policy_loss_is_minus_the_mean_advantage() -> None:
    """Trap 5: without old log-probabilities the ratio is exactly 1 and nothing is clipped."""
    found = run(rows(), token_values(-1.0, -2.0, -3.0))
    assert found["loss"] == pytest.approx(-(1 + 1 - 2) / 3)
    assert (found["policy/ratio_mean"], found["policy/ratio_max"], found["policy/clipfrac"]) == (1, 1, 0)
    assert found["kl/policy"] == 0


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [("token_mean", 0.0), ("sequence_mean", (-1 + 2) / 2), ("fixed_length", 0.0)],
)
def test_reductions(reduction: str, expected: float) -> None:
    """R9: the mean over tokens, the mean of the rows' means, or the sum over rows · max_new_tokens."""
    assert run(rows(), token_values(-1.0, -2.0, -3.0), reduction=reduction)["loss"] == pytest.approx(expected)


def test_fixed_length_divides_by_the_limit() -> None:
    """R9: Dr. GRPO's denominator is B · max_new_tokens, however long the answers are."""
    positive = rows(advantages=torch.tensor([[0, 1.0, 1.0], [0, 1.0, 0]]))
    found = run(positive, token_values(-1.0, -2.0, -3.0), reduction="fixed_length", max_new_tokens=6)
    assert found["loss"] == pytest.approx(-3 / (2 * 6))


def test_on_policy_gradient_is_reinforce() -> None:
    """Trap 5: ρ = 1 gives the gradient −A/n at each trained token and exactly 0 elsewhere (trap 7)."""
    logprobs = token_values(-1.0, -2.0, -3.0).requires_grad_()
    batch = rows()
    rl = rl_config(importance_correction="none")
    PolicyObjective.of(rl, batch, 0.0)(Scores(logprobs=logprobs), batch)[0].backward()
    assert logprobs.grad is not None
    torch.testing.assert_close(logprobs.grad, token_values(-1 / 3, -1 / 3, 2 / 3))


def test_off_policy_clip_and_diagnostics() -> None:
    """R9: ratios 2, 1 and ½ at a clip of 0.2: the bad token's ½ is held at 0.8, the good one's 2 at 1.2."""
    old = token_values(-1.0, -1.0, -1.0)
    now = token_values(-1 + math.log(2), -1.0, -1 + math.log(0.5))
    found = run(rows(old_logprobs=old), now, clip={"ratio": None, "low": 0.2, "high": 0.2})
    assert found["loss"] == pytest.approx((-1.2 - 1.0 + 0.8 * 2) / 3)
    assert found["policy/clipfrac"] == pytest.approx(2 / 3)
    assert found["policy/ratio_max"] == pytest.approx(2)
    assert found["policy/ratio_mean"] == pytest.approx(3.5 / 3)
    k3 = [2 - 1 - math.log(2), 0, 0.5 - 1 + math.log(2)]
    assert found["kl/policy"] == pytest.approx(sum(k3) / 3, rel=1e-5)


def test_importance_correction_weights_every_token() -> None:
    """Trap 9: weight min(learner / sampler, cap) of each token; `none` leaves the loss as it is."""
    learner = token_values(-1.0, -1.0, -1.0)
    sampler = token_values(-1.0 - math.log(3), -1.0 + math.log(2), -1.0)
    batch = rows(sampling_logprobs=sampler, old_logprobs=learner)
    plain = run(batch, learner)
    token = run(batch, learner, importance_correction="token", importance_cap=2.0)
    assert plain["loss"] == pytest.approx(0)
    assert token["loss"] == pytest.approx((-2.0 - 0.5 + 2.0) / 3)  # weights 3 → capped at 2, ½, 1
    sequence = run(batch, learner, importance_correction="sequence_sum", importance_cap=2.0)
    assert sequence["loss"] == pytest.approx((-1.5 - 1.5 + 2.0) / 3)  # 3 · ½ for the whole first row


def test_kl_and_entropy_terms() -> None:
    """R2, trap 1: k3 to the reference with coefficient β in the loss; the entropy bonus is subtracted."""
    now, ref = token_values(-1.0, -1.0, -1.0), token_values(-1.0, -1.0 - math.log(2), -1.0)
    batch = rows(ref_logprobs=ref, advantages=torch.zeros(2, 3))
    k3 = 0.5 - 1 + math.log(2)
    found = run(batch, now, kl_coef=0.3)
    assert found["loss/kl"] == pytest.approx(0.3 * k3 / 3, rel=1e-5)
    assert found["loss"] == pytest.approx(found["loss/kl"])
    rl = rl_config(entropy_coef=0.5, importance_correction="none")
    scores = Scores(logprobs=now, entropy=token_values(1.0, 2.0, 3.0))
    loss, shares = PolicyObjective.of(rl, batch, 0.0)(scores, batch)
    assert float(loss) == pytest.approx(-0.5 * 2)
    assert float(shares["policy/entropy"]) == pytest.approx(2)
    assert float(shares["loss/entropy"]) == pytest.approx(-1)


def test_kl_in_the_reward_is_not_in_the_loss() -> None:
    """R6: where the KL is charged to the reward, the loss has no second copy of it."""
    now, ref = token_values(-1.0, -1.0, -1.0), token_values(-1.0, -3.0, -1.0)
    found = run(rows(ref_logprobs=ref), now, kl_coef=0.3, kl={"placement": "reward", "estimator": "k1"})
    assert "loss/kl" not in found
    assert found["loss"] == pytest.approx(0)


def test_cispo_keeps_the_gradient_of_a_capped_token() -> None:
    """R9: CISPO's gradient is −min(ρ, cap)·A at every token, also where PPO's would be 0."""
    now = token_values(-1 + math.log(8), -1.0, -1.0).requires_grad_()
    batch = rows(old_logprobs=token_values(-1.0, -1.0, -1.0))
    rl = rl_config("cispo", importance_correction="none")
    PolicyObjective.of(rl, batch, 0.0)(Scores(logprobs=now), batch)[0].backward()
    assert now.grad is not None
    torch.testing.assert_close(now.grad, token_values(-5 / 3, -1 / 3, 2 / 3))


def test_value_objective() -> None:
    """R6: ½·max of the squared errors of the free and the clipped value, mean over tokens, times vf_coef."""
    batch = rows(old_values=token_values(0.0, 0.0, 0.0), returns=token_values(1.0, 1.0, -1.0))
    objective = ValueObjective(value_clip=0.2, coef=0.1, num_tokens=3.0)
    loss, shares = objective(Scores(values=token_values(0.5, 0.1, 0.0)), batch)
    expected = 0.5 * (0.8**2 + 0.9**2 + 1.0) / 3
    assert float(shares["loss/value"]) == pytest.approx(expected)
    assert float(loss) == pytest.approx(0.1 * expected)
    assert float(shares["critic/clipfrac"]) == pytest.approx(1 / 3)


def test_joint_objective_is_the_sum() -> None:
    """R6: a critic on the policy's trunk trains with the policy's loss plus vf_coef times its own."""
    batch = rows(old_values=token_values(0.0, 0.0, 0.0), returns=token_values(1.0, 1.0, -1.0))
    scores = Scores(logprobs=token_values(-1.0, -1.0, -1.0), values=token_values(0.5, 0.1, 0.0))
    policy = PolicyObjective.of(rl_config("ppo", importance_correction="none"), batch, 0.0)
    value = ValueObjective(0.2, 0.1, 3.0)
    loss, shares = JointObjective(policy, value)(scores, batch)
    assert float(loss) == pytest.approx(float(policy(scores, batch)[0] + value(scores, batch)[0]))
    assert float(shares["loss/total"]) == pytest.approx(float(loss))


def test_supervised_is_the_mean_over_completion_tokens() -> None:
    """R1: SFT trains completion tokens only, over the tokens of the whole mini-batch."""
    loss, _ = Supervised(num_tokens=3.0)(Scores(logprobs=token_values(-1.0, -2.0, -3.0)), rows())
    assert float(loss) == pytest.approx(2)


def test_the_kl_is_weighed_like_the_surrogate() -> None:
    """Trap 9: both are expectations over what the sampler could say: weights 1.25, 1 and the cap 2.

    d = 0.5 at every token: k3 = e⁻⁰·⁵ − 0.5, ρ = 1.
    """
    logprobs = token_values(-1.0, -2.0, -3.0)
    sampled = logprobs - token_values(math.log(1.25), 0.0, math.log(4.0))
    batch = rows(ref_logprobs=logprobs - token_values(0.5, 0.5, 0.5), sampling_logprobs=sampled)
    found = run(batch, logprobs, kl_coef=0.1, importance_correction="token", kl={"coef": 0.1})
    k3 = math.exp(-0.5) - 0.5
    kl = 0.1 * k3 * (1.25 + 1 + 2) / 3
    policy = -(1.25 + 1 - 2 * 2) / 3
    assert found["loss/kl"] == pytest.approx(kl, rel=1e-5)
    assert found["loss"] == pytest.approx(policy + kl, rel=1e-5)
    plain = run(batch, logprobs, kl_coef=0.1, kl={"coef": 0.1})
    assert plain["loss/kl"] == pytest.approx(0.1 * k3, rel=1e-5)
