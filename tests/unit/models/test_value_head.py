"""Critics: aligned values, right starting points, gradients where they belong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.unit.models.tiny import PAD, random_prompts, tiny_model, tiny_tokenizer

from trimtab.errors import ConfigError
from trimtab.models.forward import sequence_scores, token_scores
from trimtab.models.load import load_sequence_classifier, save_model
from trimtab.models.value_head import HeadScale, SharedCritic, align_values, build_critic

IDS = torch.tensor([[*random_prompts(9)[0]], [*random_prompts(6)[0], PAD, PAD, PAD]])
MASK = torch.tensor([[True] * 9, [True] * 6 + [False] * 3])


def test_alignment_by_hand() -> None:
    """R6: the value at t is read at t − 1; 0 in the first column, on padding, and where nothing precedes."""
    values = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    mask = torch.tensor([[True, True, True, False]])
    assert align_values(values, mask).tolist() == [[0.0, 1.0, 2.0, 0.0]]
    assert align_values(values, mask.flip(1)).tolist() == [[0.0, 0.0, 2.0, 3.0]]


def test_values_do_not_see_the_token_they_precede() -> None:
    """R6: V_t depends on tokens before t only: changing token t changes values after t, not at t."""
    critic = build_critic("separate", None, tiny_model())
    torch.nn.init.normal_(critic.head.linear.weight)
    changed = IDS.clone()
    changed[0, 4] = (changed[0, 4] + 1) % 250 + 3
    one, other = critic(IDS, MASK), critic(changed, MASK)
    assert torch.allclose(one[0, :5], other[0, :5], atol=1e-6)
    assert not torch.allclose(one[0, 5], other[0, 5], atol=1e-6)
    assert not one[1, 6:].any() and not one[:, 0].any()


def test_separate_critic_is_a_copy() -> None:
    """R6: it starts at zero on a copy of the policy's trunk, and training it leaves the policy alone."""
    policy = tiny_model()
    critic = build_critic("separate", None, policy)
    values = critic(IDS, MASK)
    assert values.shape == IDS.shape and not values.any()
    critic.head.linear.weight.data.fill_(0.1)
    critic(IDS, MASK).sum().backward()
    assert critic.trunk.layers[0].mlp.up_proj.weight.grad is not None
    assert all(p.grad is None for p in policy.parameters())


def test_critic_from_a_reward_model(tmp_path: Path) -> None:
    """R6: trunk and head of the reward model: its value before the token after the end is the reward."""
    policy = tiny_model()
    start = save_model(policy, tiny_tokenizer(), tmp_path / "sft")
    reward_model = load_sequence_classifier(start, pad_token_id=PAD, seed=3)
    folder = save_model(reward_model, tiny_tokenizer(), tmp_path / "rm")
    critic = build_critic("separate", folder, policy)
    ids, mask = torch.tensor(random_prompts(8)), torch.ones(1, 8, dtype=torch.bool)
    reward = sequence_scores(reward_model, ids[:, :7], mask[:, :7])
    assert torch.allclose(critic(ids, mask)[:, 7], reward, atol=1e-5) and reward.any()
    plain = build_critic("separate", start, policy)
    assert not plain(ids, mask).any()


def test_critic_on_the_scale_of_its_rewards(tmp_path: Path) -> None:
    """R6: raw scores of 40 and more, normalised by the card for the reward, are normalised for the critic."""
    policy = tiny_model()
    start = save_model(policy, tiny_tokenizer(), tmp_path / "sft")
    reward_model = load_sequence_classifier(start, pad_token_id=PAD, seed=3)
    with torch.no_grad():
        reward_model.score.weight.mul_(100)
    folder = save_model(reward_model, tiny_tokenizer(), tmp_path / "rm")
    ids, mask = torch.tensor(random_prompts(8)), torch.ones(1, 8, dtype=torch.bool)
    with torch.no_grad():
        raw = float(sequence_scores(reward_model, ids[:, :7], mask[:, :7]))
    mean, std, weight = 5.0, 20.0, 0.5
    scale = HeadScale(weight / std, -mean * weight / std)
    critic = build_critic("separate", folder, policy, scale=scale)
    assert float(critic(ids, mask)[0, 7]) == pytest.approx(weight * (raw - mean) / std, abs=1e-4)


def test_shared_critic_in_one_pass() -> None:
    """R6: scores and values of one pass equal those of two; only the head is the critic's own."""
    policy = tiny_model("Gemma2")
    critic = build_critic("shared", None, policy)
    assert isinstance(critic, SharedCritic)
    assert [name for name, _ in critic.named_parameters()] == ["head.linear.weight", "head.linear.bias"]
    critic.head.linear.weight.data.normal_()
    completion = MASK.clone()
    completion[:, :3] = False
    scores, values = critic.forward_both(IDS, MASK, completion, temperature=0.8, with_entropy=True)
    apart = token_scores(policy, IDS, MASK, completion, temperature=0.8, with_entropy=True)
    assert torch.allclose(scores.logprobs, apart.logprobs) and torch.allclose(scores.entropy, apart.entropy)
    assert torch.allclose(values, critic(IDS, MASK), atol=1e-6) and values.any()
    values.sum().backward()
    assert policy.model.layers[0].mlp.up_proj.weight.grad is not None


def test_bf16_trunk_has_fp32_values() -> None:
    """R6 (bf16): values are fp32 whatever the trunk is."""
    policy = tiny_model(dtype=torch.bfloat16)
    for kind in ("separate", "shared"):
        critic = build_critic(kind, None, policy)
        assert critic(IDS, MASK).dtype == torch.float32
        assert critic.head.linear.weight.dtype == torch.float32


def test_unknown_kind() -> None:
    """R25: an unknown critic names the nearest one."""
    with pytest.raises(ConfigError, match="did you mean 'shared'"):
        build_critic("share", None, tiny_model())
