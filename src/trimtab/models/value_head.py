"""Critics of PPO: a value for every state, from a model of its own or from the policy's trunk."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.config.model import ModelConfig
from trimtab.errors import ConfigError, nearest
from trimtab.models.forward import TokenScores, scores_and_hidden, selected_logits, trunk_hidden
from trimtab.models.load import is_sequence_classifier, load_causal_lm, load_sequence_classifier
from trimtab.models.packed_forward import packed_trunk
from trimtab.models.packing import PackPlan


@dataclass(frozen=True, slots=True)
class HeadScale:
    """A value is ``factor`` · (a reward model's raw score) + ``shift``."""

    factor: float = 1.0
    shift: float = 0.0


UNSCALED = HeadScale()


class ValueHead(nn.Module):
    """One linear map from hidden states to values, in fp32: bf16 would round the targets. Starts at zero."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """``hidden [..., H]`` → values ``[...]``, fp32."""
        return self.linear(hidden.float()).squeeze(-1)


class Critic(nn.Module):
    """A trunk of its own and a value head."""

    def __init__(self, trunk: nn.Module, head: ValueHead) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, token_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Values ``[B, T]``; see ``align_values``."""
        return align_values(self.head(trunk_hidden(self.trunk, token_ids, attention_mask)), attention_mask)

    def packed(self, plan: PackPlan) -> Tensor:
        """Values ``[N]`` at the sources of a packed row: of the state before each trained token."""
        return self.head(packed_trunk(self.trunk, plan))


class SharedCritic(nn.Module):
    """A value head on the policy's trunk. Only the head is its own: the policy is not a submodule."""

    def __init__(self, policy: Any, head: ValueHead) -> None:
        super().__init__()
        self._policy = (policy,)  # in a tuple, so that its parameters are not registered twice
        self.head = head

    def forward(self, token_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Values ``[B, T]``; the gradient reaches the policy's trunk."""
        return policy_values(self._policy[0], self.head, token_ids, attention_mask)

    def forward_both(
        self,
        token_ids: Tensor,
        attention_mask: Tensor,
        completion_mask: Tensor,
        *,
        temperature: float = 1.0,
        with_entropy: bool = False,
        with_logits: bool = False,
    ) -> tuple[TokenScores, Tensor]:
        """The policy's token scores and the values ``[B, T]`` from one pass of the trunk."""
        scores, hidden = scores_and_hidden(
            self._policy[0],
            token_ids,
            attention_mask,
            completion_mask,
            temperature=temperature,
            with_entropy=with_entropy,
            with_logits=with_logits,
        )
        return scores, align_values(self.head(hidden), attention_mask)


def policy_values(policy: Any, head: ValueHead, token_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Values ``[B, T]`` of a head on the policy's last hidden states; its own head does not run."""
    nowhere = torch.zeros_like(token_ids, dtype=torch.bool)
    _, hidden = selected_logits(policy, token_ids, attention_mask, nowhere)
    return align_values(head(hidden), attention_mask)


def align_values(values: Tensor, attention_mask: Tensor) -> Tensor:
    """Shift values ``[B, T]`` read at each token to the token that is emitted next.

    ``result[:, t]`` is the value of the state before token t is emitted, read at position t − 1: aligned to
    ``token_ids`` like log-probabilities. It is 0 in column 0, on padding, and before the first real token.
    """
    mask = attention_mask.bool()
    shifted = F.pad(values[:, :-1], (1, 0))
    real = F.pad(mask[:, 1:] & mask[:, :-1], (1, 0))
    return torch.where(real, shifted, torch.zeros_like(shifted))


def build_critic(
    kind: str,
    init_path: str | os.PathLike[str] | None,
    policy: Any,
    config: ModelConfig | None = None,
    seed: int = 0,
    *,
    scale: HeadScale = UNSCALED,
) -> nn.Module:
    """Make a critic: ``forward(token_ids, attention_mask) -> values [B, T]``.

    ``separate``: trunk and head of the reward model in ``init_path``, or the trunk of a language model there,
    or (None) a copy of the policy's trunk, both with a zero head. ``shared``: a zero head on the policy's own
    trunk. ``seed`` only matters for a classifier directory without a trained head. ``scale`` turns the reward
    model's raw scores into the rewards that the critic has to predict.

    Raises:
        ConfigError: an unknown ``kind``.
        ModelError: ``init_path`` cannot be loaded.
    """
    head = ValueHead(policy.config.get_text_config().hidden_size).to(policy.device)
    if kind == "shared":
        return SharedCritic(policy, head)
    if kind != "separate":
        raise ConfigError(
            f"unknown critic '{kind}'{nearest(kind, ['separate', 'shared'])}; fix rl.ppo.critic"
        )
    if init_path is None:
        return Critic(copy.deepcopy(policy.base_model), head).eval()
    options = {"dtype": policy.dtype, "device": policy.device}
    if not is_sequence_classifier(init_path):
        trunk = load_causal_lm(init_path, config, **options).base_model
        return Critic(trunk, ValueHead(trunk.config.get_text_config().hidden_size).to(policy.device)).eval()
    model = load_sequence_classifier(
        init_path, config, num_labels=None, pad_token_id=None, seed=seed, **options
    )
    head = ValueHead(model.config.get_text_config().hidden_size).to(policy.device)
    with torch.no_grad():
        weight, bias = model.score.weight.float(), model.score.bias
        head.linear.weight.copy_(scale.factor * _one_label(weight))
        head.linear.bias.fill_(scale.shift)
        if bias is not None:
            head.linear.bias.add_(scale.factor * _one_label(bias.float()))
    return Critic(model.base_model, head).eval()


def _one_label(values: Tensor) -> Tensor:
    """The score's own row of a head; of two labels the second's minus the first's."""
    return values[1:2] - values[:1] if len(values) == 2 else values[:1]
