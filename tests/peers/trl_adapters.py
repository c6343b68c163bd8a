"""TRL's own loss code, called without its trainers' constructors.

Each function returns TRL's loss as a function of one leaf tensor: a bare trainer gets just the attributes
that ``_compute_loss`` reads, and the leaf stands for what a model would have computed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

ROWS, COLUMNS, MAX_NEW_TOKENS = 8, 12, 16


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers; the same ones in both precisions."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def logprobs(dtype: torch.dtype) -> Tensor:
    """Log-probabilities of the current policy, ``[B, T]``."""
    return -2 + 0.5 * normal(0, ROWS, COLUMNS, dtype=dtype)


def near(seed: int, dtype: torch.dtype, distance: float = 0.4) -> Tensor:
    """Those of another policy, far enough away that every branch of the clip is taken."""
    return logprobs(dtype) + distance * normal(seed, ROWS, COLUMNS, dtype=dtype)


def completion_mask() -> Tensor:
    """Completions of 1 to T tokens, padded on the right."""
    lengths = torch.tensor([12, 7, 1, 9, 3, 12, 5, 10])
    return torch.arange(COLUMNS) < lengths[:, None]


def _accelerator() -> SimpleNamespace:
    return SimpleNamespace(
        num_processes=1,
        sync_gradients=True,
        gather=lambda x: x,
        gather_for_metrics=lambda x: x,
        reduce=lambda x, reduction=None: x,
    )


def trl_grpo(loss_type: str, advantages: Tensor, **attributes: Any) -> Callable[[Tensor], Tensor]:
    """TRL's ``GRPOTrainer._compute_loss`` of the per-token log-probabilities, summed over micro-batches."""
    options = {
        "beta": 0.0, "epsilon_low": 0.2, "epsilon_high": 0.2, "importance_sampling_level": "token",
        "delta": None, "use_bias_correction_kl": False, "micro_batches": 1,
    } | attributes  # fmt: skip
    micro_batches = options.pop("micro_batches")
    arguments = SimpleNamespace(
        delta=options.pop("delta"),
        use_bias_correction_kl=options.pop("use_bias_correction_kl"),
        steps_per_generation=micro_batches,
    )

    def loss(leaf: Tensor) -> Tensor:
        from trl import GRPOTrainer  # here, so that collecting the tests does not import it

        trainer = GRPOTrainer.__new__(GRPOTrainer)
        state = {
            "loss_type": loss_type, "args": arguments, "aux_loss_enabled": False, "top_entropy_quantile": 1.0,
            "off_policy_mask_threshold": None, "use_vllm": False, "max_completion_length": MAX_NEW_TOKENS,
            "current_gradient_accumulation_steps": micro_batches, "accelerator": _accelerator(),
            "_entropy_bonus_enabled": False, "_metrics": {"train": defaultdict(list)},
            "model": SimpleNamespace(training=True),
        }  # fmt: skip
        trainer.__dict__.update(state | options)
        total, mask, size = leaf.new_zeros(()), completion_mask(), ROWS // micro_batches
        for start in range(0, ROWS, size):
            part = slice(start, start + size)
            trainer._get_per_token_logps_and_entropies = (
                lambda *_, part=part, **__: (leaf[part], torch.zeros_like(leaf[part]), None)
            )  # fmt: skip
            inputs = {
                "prompt_ids": torch.zeros(size, 1, dtype=torch.long),
                "prompt_mask": torch.ones(size, 1, dtype=torch.long),
                "completion_ids": torch.zeros(size, COLUMNS, dtype=torch.long),
                "completion_mask": mask[part].long(),
                "advantages": advantages.to(leaf.dtype)[part],
                "old_per_token_logps": near(1, leaf.dtype)[part],
                "ref_per_token_logps": near(2, leaf.dtype)[part],
                "num_items_in_batch": mask.sum(),
            }
            total = total + trainer._compute_loss(None, inputs)
        return total

    return loss


def trl_rloo(advantages: Tensor, distance: float) -> Callable[[Tensor], Tensor]:
    """TRL's ``RLOOTrainer._compute_loss``: ratios of whole completions."""
    mask = completion_mask()

    def loss(leaf: Tensor) -> Tensor:
        from trl import RLOOTrainer

        trainer = RLOOTrainer.__new__(RLOOTrainer)
        trainer.__dict__.update(
            epsilon_low=0.2, epsilon_high=0.2, aux_loss_enabled=False, accelerator=_accelerator(),
            _metrics={"train": defaultdict(list)}, model=SimpleNamespace(training=True),
            _get_per_token_logps_and_entropies=lambda *_, **__: (leaf, torch.zeros_like(leaf), None),
        )  # fmt: skip
        ids = torch.zeros(ROWS, COLUMNS, dtype=torch.long)
        inputs = {
            "prompt_ids": ids[:, :1], "prompt_mask": ids[:, :1], "completion_ids": ids,
            "completion_mask": mask.long(), "advantages": advantages.to(leaf.dtype),
            "old_logps": (near(1, leaf.dtype, distance) * mask).sum(1),
        }  # fmt: skip
        return trainer._compute_loss(None, inputs)

    return loss


def trl_reward(margins: Tensor | None, centre_coef: float | None) -> Callable[[Tensor], Tensor]:
    """TRL's ``RewardTrainer.compute_loss``: the leaf holds the chosen scores, then the rejected ones."""

    def loss(leaf: Tensor) -> Tensor:
        from trl import RewardTrainer

        trainer = RewardTrainer.__new__(RewardTrainer)
        trainer.__dict__.update(
            args=SimpleNamespace(center_rewards_coefficient=centre_coef), accelerator=_accelerator(),
            _tp_size=1, _total_train_tokens=0, _metrics={"train": defaultdict(list)},
            model=SimpleNamespace(training=True),
        )  # fmt: skip
        inputs = {"attention_mask": torch.ones(2 * ROWS, 3, dtype=torch.long)}
        if margins is not None:
            inputs["margin"] = margins.to(leaf.dtype)

        def model(**_: Any) -> SimpleNamespace:
            return SimpleNamespace(logits=leaf.unsqueeze(-1))

        return trainer.compute_loss(model, inputs)

    return loss
